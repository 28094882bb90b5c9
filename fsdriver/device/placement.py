"""On which CPU requests are served."""

import logging
import os
import time
from collections.abc import Callable

from fsdriver.device.yielding import yielding

log = logging.getLogger(__name__)

LARGE = 64 * 1024
"""A READ this long is read ahead: nobody sleeps until it is answered, so a second CPU is worth its wake-up."""

_IN_A_ROW = 4
"""So many batches that ask for another place, one after another, make a server move."""


_LOOK_OFTEN, _LOOK_SELDOM = 4, 32
"""After so many requests a caller's CPU is looked at again."""

_PROCESSOR = 36
"""Where /proc/PID/stat names the CPU, counted from behind the name (proc(5): field 39)."""


def cpu_of(thread: int) -> int:
    """The CPU on which a thread last ran, -1 if it is gone or hidden."""
    try:
        with open(f"/proc/{thread}/stat", "rb", buffering=0) as file:
            return int(file.read(1024).rpartition(b")")[2].split()[_PROCESSOR])
    except (OSError, ValueError, IndexError):
        return -1


class Placement:
    """Follows the callers: a server on its caller's CPU runs while the caller sleeps, and wakes nobody across CPUs.

    Only the first server stays there under large READs; the others then run where there is room. Used by the server's
    own thread, whose affinity it sets; that of the first one also decides for all whether they yield to callers.
    A request of an io_uring queue tells its CPU; for /dev/fuse see `FollowedCallers`.
    """

    def __init__(self, first: bool, in_a_row: int = _IN_A_ROW) -> None:
        self._first = first
        self._in_a_row = in_a_row
        self._yielding = yielding() if first else None
        self._anywhere = os.sched_getaffinity(0)
        self._cpu = -1
        self._asked = 0

    def served(self, cpu: int, size: int) -> None:
        """A batch came from `cpu`; `size` bytes is how long its last answer was."""
        if self._yielding is not None:
            self._yielding.look(time.monotonic())
        if size >= LARGE:
            cpu = self._cpu if self._first else -1
        if cpu == self._cpu:
            self._asked = 0
            return
        self._asked += 1
        if self._asked == self._in_a_row:
            self._asked = 0
            self._cpu = cpu
            self._move({cpu} if cpu >= 0 else self._anywhere)

    def _move(self, cpus: set[int]) -> None:
        try:
            os.sched_setaffinity(0, cpus)
        except OSError as exc:
            # A CPU this process may not use: whoever asks from there is served from here.
            log.debug("a server stays where it is: %s", exc.strerror)


class FollowedCallers:
    """A `Placement` for the first reader of /dev/fuse: no message says on which CPU its caller runs, so /proc is asked
    now and then; seldom while the callers stay."""

    def __init__(self, cpu_of: Callable[[int], int] = cpu_of) -> None:
        self._placement = Placement(first=True, in_a_row=2)
        self._cpu_of = cpu_of
        self._cpu = -1
        self._interval = self._left = _LOOK_OFTEN

    def served(self, caller: int, size: int) -> None:
        """A request of thread `caller` (0: nobody's)."""
        self._left -= 1
        if self._left > 0 or not caller:
            return
        cpu = self._cpu_of(caller)
        self._interval = min(2 * self._interval, _LOOK_SELDOM) if cpu == self._cpu else _LOOK_OFTEN
        self._left = self._interval
        self._cpu = cpu
        if cpu >= 0:
            self._placement.served(cpu, size)
