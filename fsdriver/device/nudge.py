"""Gets requests going that the kernel left lying in an io_uring queue.

The kernel (6.14 to 6.18) hands a queued request to an entry only when an answer is committed on that queue: a new entry
is not looked at. When all entries of a queue turn into `Later`s at once, a request behind them would wait for one of
those, and may be the very one that would free them (an unlock). A statfs made on that CPU is handed to a new entry at
once; committing its answer fetches what was left.
"""

import contextlib
import os
import queue
import threading
from pathlib import Path


class Nudger(threading.Thread):
    def __init__(self, point: Path) -> None:
        super().__init__(name="nudge", daemon=True)
        self._point = point
        self._asked: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._pending: set[int] = set()

    def nudge(self, cpu: int) -> None:
        """From any thread; never blocks."""
        if cpu not in self._pending:
            self._pending.add(cpu)
            self._asked.put(cpu)

    def stop(self) -> None:
        self._asked.put(None)

    def run(self) -> None:
        while (cpu := self._asked.get()) is not None:
            self._pending.discard(cpu)
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, {cpu})
                os.statvfs(self._point)
