"""One mounted drive: the mount, the threads that serve it, and their end.

`start` mounts and returns when the drive answers; `stop` unmounts and ends every thread. Signals, logging and what the
drive shows are the caller's.
"""

import errno
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from fsdriver.device import ring
from fsdriver.device.crew import Crew
from fsdriver.device.dispatch import Dispatcher, Handler
from fsdriver.device.mount import Mounted, MountRefused, Unmounted, mount, real_path, unmount
from fsdriver.device.mourner import Mourner
from fsdriver.device.notify import Notifier
from fsdriver.device.nudge import Nudger
from fsdriver.device.pool import Pool
from fsdriver.device.progress import Progress
from fsdriver.device.reader import BUFFER_SIZE, Reader, clone, send
from fsdriver.device.uring import RingServer, possible_cpus
from fsdriver.device.watchdog import Control, ControlUnavailable, Watchdog
from fsdriver.protocol import Agreement, MalformedMessage, VersionUnsupported, events, negotiate, parse_message

log = logging.getLogger(__name__)

READ_AHEAD_KIB = 1024
"""A sequential reader then asks for whole 1-MiB requests; the kernel's default is 128 KiB."""

MOST_THREADS = 4
"""More than this only wait for the interpreter lock."""


class Session:
    """A drive on a mount point. Use once: start, (wait,) stop. Threads do not survive a fork: daemonize before."""

    def __init__(
        self,
        handler: Handler,
        point: Path,
        *,
        source: str = "grantfs",
        io_uring: bool = True,
        threads: int | None = None,
        late_answers: int = 256,
        hang_limit: float | None = 60.0,
        exec_allowed: bool = False,
        allow_other: bool | None = None,
    ) -> None:
        """`io_uring`: use it where the kernel offers it. `threads` serve requests (None: as many as CPUs, 2 to 4).

        `late_answers`: how many `Later` may run at once; `hang_limit`: seconds after which a hung connection is
        aborted, None: never; `allow_other` None: as root yes, as a plain user no.
        """
        self._point = point
        self._source = source
        self._want_io_uring = io_uring
        self._threads = threads or max(2, min(MOST_THREADS, os.cpu_count() or 1))
        self._hang_limit = hang_limit
        self._exec_allowed = exec_allowed
        self._allow_other = allow_other
        self._pool = Pool(late_answers)
        self._dispatcher = Dispatcher(handler, self._pool)
        self._mounted: Mounted | None = None
        self._readers: list[Reader] = []
        self._rings: list[RingServer] = []
        self._nudger: Nudger | None = None
        self._devices: list[int] = []
        self._control: Control | None = None
        self._mourner: Mourner | None = None
        self._watchdog: Watchdog | None = None
        self.agreement: Agreement
        self.notifier: Notifier
        self.transport = ""
        """"io_uring" or "/dev/fuse" once started."""

    def start(self) -> None:
        """Mount and serve. Raises MountRefused (also for a kernel that is too old); nothing is left behind then."""
        mounted = mount(
            self._point, source=self._source, exec_allowed=self._exec_allowed, allow_other=self._allow_other
        )
        self._mounted = mounted
        self._devices.append(mounted.device)
        try:
            self.agreement = _settle(mounted.device, io_uring=self._want_io_uring and ring.available())
            self._serve(mounted)
        except BaseException as exc:
            self.stop(release=True)
            if isinstance(exc, (OSError, VersionUnsupported)):
                raise MountRefused(f"{self._point}: {exc}") from exc
            raise

    def _serve(self, mounted: Mounted) -> None:
        self.transport = "io_uring" if self.agreement.io_uring and self._start_rings(mounted.device) else "/dev/fuse"
        # With io_uring only FORGET and INTERRUPT come by /dev/fuse: one reader is enough.
        readers: list[Reader] = []
        for number in range(1 if self._rings else self._threads):
            device = clone(mounted.device) if number else mounted.device
            if number:
                self._devices.append(device)
            readers.append(Reader(device, self._dispatcher, number))
        crew = None if self._rings else Crew([reader.progress for reader in readers])
        # Only now: where a descriptor could not be cloned no reader is there, and nothing that would have to end.
        self.notifier = Notifier(mounted.device, self.agreement)
        self.notifier.start()
        for reader in readers:
            reader.crew = crew
            reader.start()
            self._readers.append(reader)
        _raise_read_ahead(mounted.minor)
        try:
            self._control = Control(mounted.minor)
        except ControlUnavailable as exc:
            log.warning("%s", exc)
            return
        self._mourner = Mourner(self._control.fileno())
        if self._hang_limit is not None:
            self._watchdog = Watchdog(self._control, self._progress, lambda: self._dispatcher.waiting, self._hang_limit)
            self._watchdog.start()

    def _start_rings(self, device: int) -> bool:
        """False, and nothing left, where a ring cannot be made: the kernel then goes on using /dev/fuse."""
        self._nudger = Nudger(real_path(self._point))
        self._rings = [
            RingServer(number, possible_cpus(), device, self._dispatcher, self._nudger)
            for number in range(self._threads)
        ]
        # The kernel uses the entry that came last: server 0 is to be the first choice.
        for server in reversed(self._rings):
            server.start()
            server.registered.wait()
        failed = [server.failed for server in self._rings if server.failed]
        if failed:
            log.warning("io_uring cannot be used, /dev/fuse is: %s", failed[0])
            self._end_rings(time.monotonic() + 1.0)
        return not failed

    def _end_rings(self, deadline: float) -> bool:
        if self._nudger is not None:
            self._nudger.stop(max(0.1, deadline - time.monotonic()))
        for server in self._rings:
            server.stop()
        for server in self._rings:
            server.join(max(0.1, deadline - time.monotonic()))
        alive = [server for server in self._rings if server.is_alive()]
        for server in self._rings:
            if server not in alive:
                server.close()
        self._rings = alive
        return not alive

    def wait(self, timeout: float | None = None) -> bool:
        """Until the connection ended (unmounted or aborted by whomever): True; False after `timeout` seconds."""
        if not self._readers:
            return True
        self._readers[0].join(timeout)
        return not self._readers[0].is_alive()

    @property
    def aborted(self) -> str:
        """Why the connection was aborted; "" while it was not."""
        if self._watchdog is not None and self._watchdog.aborted:
            return self._watchdog.aborted
        return "aborted" if any(reader.ended_by == errno.ECONNABORTED for reader in self._readers) else ""

    def abort(self) -> None:
        """End the connection now; callers that wait get an error. The mount stays, dead. Raises ControlUnavailable."""
        if self._control is None:
            raise ControlUnavailable("fusectl is not reachable")
        self._control.abort()

    def stop(self, *, timeout: float = 5.0, release: bool = False) -> Unmounted:
        """Unmount and end all threads within about `timeout` seconds. Callable in any state; raises OSError.

        While programs hold files open (LAZY, or somebody else's lazy unmount) the threads go on serving them; `wait`
        for the end or `abort`, then `stop` again. `release` makes the mount point an ordinary, writable directory
        again; otherwise it stays guarded.
        """
        deadline = time.monotonic() + timeout
        result = Unmounted.ALREADY
        mounted, self._mounted = self._mounted, None
        if mounted is not None:
            self._dispatcher.close()
            try:
                result = unmount(mounted, patience=timeout / 2)
                if release:
                    mounted.point.release()
            finally:
                mounted.point.close()
        for reader in self._readers:
            reader.join(max(0.1, deadline - time.monotonic()))
        if any(reader.is_alive() for reader in self._readers):
            log.warning("%s was in use: it is served on for the programs that hold files open", self._point)
        else:
            self._end_threads(deadline)
        return result

    def _end_threads(self, deadline: float) -> None:
        """The connection is gone: nobody waits for an answer any more."""
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog.join(1.0)
        if self._mourner is not None:
            self._mourner.stop()
            self._mourner = None
        if self._control is not None:
            self._control.close()
            self._control = None
        ended = self._end_rings(deadline)
        if self._readers:
            self.notifier.stop()
            ended &= self.notifier.join(max(0.1, deadline - time.monotonic()))
        ended &= self._pool.close(max(0.1, deadline - time.monotonic()))
        if not ended:
            # Its descriptors may still be in use: they stay open until the process ends.
            log.warning("%s: a handler does not come back", self._point)
            return
        while self._devices:
            os.close(self._devices.pop())

    def _progress(self) -> Sequence[Progress]:
        return [*(reader.progress for reader in self._readers), *(server.progress for server in self._rings)]


def _settle(device: int, *, io_uring: bool) -> Agreement:
    """Answer INIT, the first message, before anybody else reads. Raises OSError, VersionUnsupported."""
    buffer = bytearray(BUFFER_SIZE)
    while True:
        try:
            length = os.readv(device, [buffer])
        except InterruptedError:
            continue
        try:
            init = parse_message(memoryview(buffer)[:length])
        except MalformedMessage as exc:
            raise OSError(errno.EPROTO, f"the kernel's INIT is malformed: {exc}") from exc
        if not isinstance(init, events.Init):
            send(device, init.head.unique, errno.EIO, b"")
            continue
        try:
            agreement = negotiate(init, io_uring=io_uring)
        except VersionUnsupported:
            send(device, init.head.unique, errno.EPROTO, b"")
            raise
        send(device, init.head.unique, 0, agreement.reply)
        if agreement.settled:
            return agreement


def _raise_read_ahead(minor: int) -> None:
    """Root only; a plain user's mount keeps the kernel's default."""
    try:
        Path(f"/sys/class/bdi/0:{minor}/read_ahead_kb").write_text(str(READ_AHEAD_KIB))
    except OSError as exc:
        log.info("read-ahead stays at the kernel's default: %s", exc.strerror)
