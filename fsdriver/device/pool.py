"""Threads for answers that wait: as many as there are waiting, up to a limit; idle ones go away."""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger(__name__)

_IDLE_SECONDS = 10.0


class Pool:
    """Runs jobs (which must not raise) each on its own thread; beyond `limit` they queue, first come first served."""

    def __init__(self, limit: int, name: str = "later") -> None:
        self._limit = limit
        self._name = name
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._ended = threading.Condition(self._lock)
        self._jobs: deque[Callable[[], None]] = deque()
        self._idle = 0
        self._threads = 0
        self._closed = False
        self._anywhere = os.sched_getaffinity(0)

    def submit(self, job: Callable[[], None]) -> None:
        with self._changed:
            self._jobs.append(job)
            if len(self._jobs) <= self._idle:
                self._changed.notify()
            elif self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def close(self, timeout: float) -> bool:
        """Let the threads end; True when all have, after their jobs. Seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return self._ended.wait_for(lambda: not self._threads, timeout)

    def _work(self) -> None:
        with suppress(OSError):  # whoever started this thread may be held on one CPU
            os.sched_setaffinity(0, self._anywhere)
        while (job := self._next()) is not None:
            try:
                job()
            except Exception:
                log.exception("bug in a late answer")

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._idle += 1
            try:
                while not self._jobs:
                    if self._closed or not self._changed.wait(_IDLE_SECONDS):
                        if self._jobs:
                            continue
                        self._threads -= 1
                        self._ended.notify_all()
                        return None
                return self._jobs.popleft()
            finally:
                self._idle -= 1
