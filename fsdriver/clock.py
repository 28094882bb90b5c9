"""The time that terms are measured by: the key server's, carried on by this machine's boot clock.

The wall clock is what its owner sets it to, so it counts only until the first answer of the server, and then never
below the newest time the server was ever seen to have. CLOCK_BOOTTIME cannot be set and runs through suspend.
"""

import threading
import time
from collections.abc import Callable

__all__ = ["ROLLBACK_TOLERANCE", "ServerClock", "boot_time"]

ROLLBACK_TOLERANCE = 60.0
"""Seconds a wall clock may be behind the server without anybody having turned it back."""


def boot_time() -> float:
    """Seconds since boot, suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ServerClock:
    """`now()` is seconds since the epoch, the server's. Thread-safe."""

    def __init__(
        self, seen: float = 0.0, *, wall: Callable[[], float] = time.time, boot: Callable[[], float] = boot_time
    ) -> None:
        """`seen`: the newest server time this machine knew before it was restarted, 0 for none."""
        self._boot = boot
        self._lock = threading.Lock()
        wall_now = wall()
        self._ahead = max(wall_now, seen) - boot()
        self._was_set = False
        self._rolled_back = wall_now < seen - ROLLBACK_TOLERANCE

    def now(self) -> float:
        return self._ahead + self._boot()

    def set(self, server: float, asked_at: float) -> None:
        """The server said `server` in answer to what was asked at boot time `asked_at`.

        Taken as the time of asking: a slow answer makes terms end early, never late.
        """
        with self._lock:
            ahead = server - asked_at
            # Between answers the boot clock cannot go back, so this is the server's own clock turned back.
            if self._was_set and ahead < self._ahead - ROLLBACK_TOLERANCE:
                self._rolled_back = True
            else:
                self._rolled_back = False
            self._ahead = ahead
            self._was_set = True

    @property
    def rolled_back(self) -> bool:
        """The wall clock, before the server's first answer, or else the server's, was found turned back."""
        return self._rolled_back
