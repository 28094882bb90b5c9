"""Requests by read() and write() on /dev/fuse: one thread and one cloned descriptor each.

One read is one whole message. Also with io_uring in use a reader goes on, for FORGET and INTERRUPT come here.
"""

import contextlib
import errno
import fcntl
import logging
import os
import threading
import time

from fsdriver.device.crew import Crew
from fsdriver.device.dispatch import Dispatcher
from fsdriver.device.placement import FollowedCallers
from fsdriver.device.progress import Progress
from fsdriver.protocol import MAX_WRITE, MalformedMessage, abi, parse_message

log = logging.getLogger(__name__)

BUFFER_SIZE = MAX_WRITE + 4096
"""The largest message: a WRITE with its headers. The kernel asks for at least this much room."""

_GATHERING = 0.002
"""Seconds. Nobody waits for a FORGET, and who is interrupted can wait that long."""

_OUT_SIZE = abi.OUT_HEADER.size
_pack_out = abi.OUT_HEADER.pack
_pack_out_into = abi.OUT_HEADER.pack_into

# The request vanished before it was read (killed, or another reader took it), or there is nothing after all.
_READ_AGAIN = frozenset((errno.ENOENT, errno.EINTR, errno.EAGAIN))
# Unmounted; aborted.
_CONNECTION_ENDED = frozenset((errno.ENODEV, errno.ECONNABORTED))


def clone(device: int) -> int:
    """A second descriptor of the same connection, so that readers do not share one queue of unanswered requests."""
    descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, abi.DEV_IOC_CLONE, device.to_bytes(4, "little"))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def send(device: int, unique: int, error: int, body: bytes) -> None:
    """Write one reply. One that the kernel no longer waits for (interrupted, unmounted) is dropped."""
    if error:
        _write(device, unique, _pack_out(_OUT_SIZE, -error, unique))
    else:
        _write(device, unique, _pack_out(_OUT_SIZE + len(body), 0, unique) + body)


def _write(device: int, unique: int, message: bytes | memoryview) -> None:
    try:
        os.write(device, message)
    except OSError as exc:
        if exc.errno == errno.ENOENT or exc.errno in _CONNECTION_ENDED:
            return
        log.error("the kernel refused the reply to request %d: %s", unique, exc)
        # Somebody waits for this answer, whatever was wrong with it.
        with contextlib.suppress(OSError):
            os.write(device, _pack_out(_OUT_SIZE, -errno.EIO, unique))


class Reader(threading.Thread):
    """Reads until the connection ends. `ended_by` is then the errno that ended it."""

    def __init__(self, device: int, dispatcher: Dispatcher, number: int) -> None:
        super().__init__(name=f"reader-{number}", daemon=True)
        self.progress = Progress(self.name)
        self.ended_by = 0
        self._device = device
        self._dispatcher = dispatcher
        self._number = number
        self.crew: Crew | None = None
        """Set before `start`: whom it takes turns with. Who has none is alone, and all requests come elsewhere, so
        FORGETs may wait for each other and come many in one message."""

    def send_later(self, unique: int, error: int, body: bytes) -> None:
        send(self._device, unique, error, body)

    def run(self) -> None:
        try:
            self._read_on()
        finally:
            if self.crew is not None:
                self.crew.end()

    def _read_on(self) -> None:
        device, serve, progress = self._device, self._dispatcher.serve_device, self.progress
        crew, number = self.crew, self._number
        placement = FollowedCallers() if crew is not None and number == 0 else None
        buffer = bytearray(BUFFER_SIZE)
        message = memoryview(buffer)
        # The reply's header stands right before `out`: what a READ puts there leaves in one write.
        answer = memoryview(bytearray(_OUT_SIZE + MAX_WRITE))
        out = answer[_OUT_SIZE:]
        readv, buffers = os.readv, [buffer]
        while True:
            if crew is not None and number >= crew.reading and not crew.wait(number):
                return
            try:
                length = readv(device, buffers)
            except OSError as exc:
                if exc.errno in _READ_AGAIN:
                    continue
                self.ended_by = exc.errno or errno.EIO
                if exc.errno not in _CONNECTION_ENDED:
                    log.error("reading /dev/fuse failed: %s", exc)
                return
            progress.turn += 1
            if crew is not None:
                crew.begins()
            caller = 0
            try:
                event = parse_message(message[:length])
                unique, caller = event.head.unique, event.head.pid
                reply = serve(event, out, self)
            except MalformedMessage as exc:
                unique, reply = exc.unique, self._dispatcher.refuse(exc)
            if reply is not None:
                error, body = reply
                if body.__class__ is int:
                    size = _OUT_SIZE + body
                    _pack_out_into(answer, 0, size, 0, unique)
                    _write(device, unique, answer[:size])
                    length = max(length, size)
                else:
                    send(device, unique, error, body)  # type: ignore[arg-type]
            progress.turn += 1
            if crew is None:
                time.sleep(_GATHERING)
                continue
            crew.served(number, length)
            if placement is not None:
                placement.served(caller, length)
