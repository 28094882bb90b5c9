"""Gets requests going that the kernel left lying in an io_uring queue.

The kernel (6.14 to 6.18) hands a queued request to an entry only when an answer is committed on that queue: a new entry
is not looked at. When all entries of a queue turn into `Later`s at once, a request behind them would wait for one of
those, and may be the very one that would free them (an unlock). A statfs made on that CPU is handed to a new entry at
once; committing its answer fetches what was left.

Other requests may be quicker to the new entries and turn into `Later`s, too: the statfs then lies in the queue like the
rest, and the next one has to come from another thread.

Another process makes them. A thread of this one that waits for its own drive when the process is killed could not end,
nor would the process, whose death is what ends the drive: programs would wait for ever.
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock

from fsdriver.device import nudging


class Nudger:
    """Tells the process. Thread-safe."""

    def __init__(self, point: Path) -> None:
        """`point`: where the drive is mounted. Errors: OSError."""
        self._point = point
        self._lock = Lock()
        self._stopped = False
        self._process = self._started()

    def nudge(self, cpu: int) -> None:
        """From any thread, once the new entry is the kernel's; does not wait."""
        with self._lock:
            if self._stopped:
                return
            try:
                os.write(self._pipe(), nudging.CPU.pack(cpu))
            except BlockingIOError:
                return  # it has thousands to make
            except OSError:  # somebody killed it
                self._end(0.0)
                self._process = self._started()
                os.write(self._pipe(), nudging.CPU.pack(cpu))

    def stop(self, timeout: float) -> None:
        """After the connection has ended, and with it what was under way."""
        with self._lock:
            self._stopped = True
            self._end(timeout)

    def _pipe(self) -> int:
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def _started(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", nudging.__file__, str(self._point)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        return process

    def _end(self, timeout: float) -> None:
        process = self._process
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
