"""On which CPU a server of io_uring requests runs."""

import logging
import os
import time

from fsdriver.device.yielding import yielding

log = logging.getLogger(__name__)

LARGE = 64 * 1024
"""A READ this long is read ahead: nobody sleeps until it is answered, so a second CPU is worth its wake-up."""

_IN_A_ROW = 4
"""So many batches that ask for another place, one after another, make a server move."""


class Placement:
    """Follows the callers: a server on its caller's CPU runs while the caller sleeps, and wakes nobody across CPUs.

    Only the first server stays there under large READs; the others then run where there is room. Used by the server's
    own thread, whose affinity it sets; that of the first one also decides for all whether they yield to callers.
    """

    def __init__(self, first: bool) -> None:
        self._first = first
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
        if self._asked == _IN_A_ROW:
            self._asked = 0
            self._cpu = cpu
            self._move({cpu} if cpu >= 0 else self._anywhere)

    def _move(self, cpus: set[int]) -> None:
        try:
            os.sched_setaffinity(0, cpus)
        except OSError as exc:
            # A CPU this process may not use: whoever asks from there is served from here.
            log.debug("a ring server stays where it is: %s", exc.strerror)
