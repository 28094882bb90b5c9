"""Gets requests going that the kernel left lying in an io_uring queue.

The kernel (6.14 to 6.18) hands a queued request to an entry only when an answer is committed on that queue: a new entry
is not looked at. When all entries of a queue turn into `Later`s at once, a request behind them would wait for one of
those, and may be the very one that would free them (an unlock). A statfs made on that CPU is handed to a new entry at
once; committing its answer fetches what was left.

Other requests may be quicker to the new entries and turn into `Later`s, too: the statfs then lies in the queue like the
rest, and the next one has to come from another thread.
"""

import contextlib
import os
from pathlib import Path

from fsdriver.device.pool import Pool

_THREADS = 512


class Nudger:
    def __init__(self, point: Path) -> None:
        self._point = point
        self._pool = Pool(_THREADS, "nudge")
        self._asked: set[int] = set()

    def nudge(self, cpu: int) -> None:
        """From any thread, once the new entry is the kernel's; never blocks."""
        if cpu not in self._asked:
            self._asked.add(cpu)
            self._pool.submit(lambda: self._touch(cpu))

    def stop(self, timeout: float) -> None:
        """After the connection has ended, and with it what was under way."""
        self._pool.close(timeout)

    def _touch(self, cpu: int) -> None:
        self._asked.discard(cpu)
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {cpu})
            os.statvfs(self._point)
