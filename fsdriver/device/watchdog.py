"""Aborts the connection when the drive hangs: a caller in the kernel cannot be killed while its request is unanswered.

Two signs, each for `limit` seconds: a thread that serves requests stays inside one of them; or the kernel has requests
waiting that are neither in a handler nor a `Later` (somebody waiting for a key or a lock may wait for long), while
nothing moves. What aborts is fusectl's `abort` file; root needs no mounted fusectl for it.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from fsdriver.device import syscalls
from fsdriver.device.progress import Progress

log = logging.getLogger(__name__)

_CONNECTIONS = Path("/sys/fs/fuse/connections")


class ControlUnavailable(Exception):
    """fusectl cannot be reached: the mount cannot be aborted by hand or by the watchdog."""


class Control:
    """The fusectl directory of one connection."""

    def __init__(self, minor: int) -> None:
        """Raises ControlUnavailable."""
        self._directory = _control_directory(minor)

    def waiting(self) -> int:
        """Requests that the kernel has not got an answer to. Raises OSError once the connection is gone."""
        return int(self._read("waiting"))

    def abort(self) -> None:
        """End the connection: every waiting caller gets ECONNABORTED or ENOTCONN at once."""
        descriptor = os.open("abort", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            os.write(descriptor, b"1")
        finally:
            os.close(descriptor)

    def fileno(self) -> int:
        return self._directory

    def close(self) -> None:
        os.close(self._directory)

    def _read(self, name: str) -> bytes:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            return os.read(descriptor, 64)
        finally:
            os.close(descriptor)


def _control_directory(minor: int) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(_CONNECTIONS / str(minor), flags)
    except OSError:
        pass  # not mounted there; root has another way
    try:
        tree = syscalls.detached_mount("fusectl")
    except OSError as exc:
        raise ControlUnavailable(
            f"hung requests cannot be aborted ({exc.strerror}); root can run: mount -t fusectl none {_CONNECTIONS}"
        ) from exc
    try:
        return os.open(str(minor), flags, dir_fd=tree)
    except OSError as exc:
        raise ControlUnavailable(f"fusectl does not know connection {minor}") from exc
    finally:
        os.close(tree)


class Watchdog(threading.Thread):
    """Looks every quarter of `limit`. `aborted` says why, once it had to act."""

    def __init__(
        self,
        control: Control,
        workers: Callable[[], Sequence[Progress]],
        late: Callable[[], int],
        limit: float,
    ) -> None:
        """`late` counts the requests that wait on purpose; `limit` is in seconds."""
        super().__init__(name="watchdog", daemon=True)
        self.aborted = ""
        self._control = control
        self._workers = workers
        self._late = late
        self._limit = limit
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        looks = 4
        turns: dict[str, int] = {}
        still: dict[str, int] = {}
        lost = 0
        while not self._stopped.wait(self._limit / looks):
            moved = False
            for worker in self._workers():
                turn = worker.turn
                same = turns.get(worker.name) == turn
                moved |= not same
                still[worker.name] = still.get(worker.name, 0) + 1 if same and turn & 1 else 0
                turns[worker.name] = turn
                if still[worker.name] >= looks:
                    return self._abort(f"{worker.name} is stuck in a request")
            try:
                idle = not moved and not any(still.values())
                lost = lost + 1 if idle and self._control.waiting() > self._late() else 0
            except OSError:
                return None  # the connection is gone
            if lost >= looks:
                return self._abort("requests wait and nobody serves them")

    def _abort(self, reason: str) -> None:
        self.aborted = f"{reason} for {self._limit:g} s"
        log.critical("watchdog: %s: aborting the connection", self.aborted)
        try:
            self._control.abort()
        except OSError as exc:
            log.critical("watchdog: aborting failed: %s", exc)
