"""Event -> handler -> reply, the same for both transports; answers that wait; INTERRUPT.

A handler answers at once (`bytes`, or an `int`: so many bytes lie in `out`), raises, or returns a `Later`, whose `run`
is carried out by the pool, so that a waiting key request or lock never holds a reader or a ring. This is the one place
where an exception becomes an errno.
"""

import errno
import logging
import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

from fsdriver.device.pool import Pool
from fsdriver.errors import to_errno
from fsdriver.protocol import MalformedMessage, events
from fsdriver.protocol.events import Event

log = logging.getLogger(__name__)

_REMEMBERED_INTERRUPTS = 1024


class Later(NamedTuple):
    """An answer that takes its time.

    `run` returns the body or raises, on a thread of the pool; what it needs of a Write's data it must have copied.
    `cancel`, where given, is called at most once when the caller was interrupted (from any thread, possibly before
    `run` begins, and it must not block); `run` then raises InterruptedError. `when`, where given, is for waits without
    an end: it is handed what starts `run`, and calls that once, when `run` has something to answer; until then nothing
    waits on a thread.
    """

    run: Callable[[], bytes]
    cancel: Callable[[], None] | None = None
    when: Callable[[Callable[[], None]], None] | None = None


Answer = bytes | int | Later
Handler = Callable[[Event, memoryview], Answer]
Reply = tuple[int, bytes | int]
"""errno (0: none), and the body, or how many bytes of it are in `out`."""


class Sender(Protocol):
    """Where a late reply goes: the descriptor or the ring entry that brought the request. Any thread may call it."""

    def send_later(self, unique: int, error: int, body: bytes) -> None: ...


class Dispatcher:
    """Shared by all readers and rings of one mount; thread-safe."""

    def __init__(self, handler: Handler, pool: Pool) -> None:
        self._handler = handler
        self._pool = pool
        self._lock = threading.Lock()
        self._waiting: dict[int, Later] = {}
        # An INTERRUPT may overtake its request: the kernel sends it as soon as the request was read, and another
        # thread may be the one to read it. The protocol lets us send it back (EAGAIN), which spins until the request
        # is answered; remembering the number costs nothing. Numbers are never used again.
        self._interrupted: dict[int, None] = {}
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many requests wait for a `Later`."""
        return len(self._waiting)

    def serve(self, event: Event, out: memoryview, sender: Sender) -> Reply | None:
        """The reply to `event`; None when none is due, now or ever. Never raises."""
        try:
            answer = self._handler(event, out)
        except Exception as exc:
            return to_errno(exc), b""
        kind = answer.__class__
        if kind is bytes or kind is int:
            return 0, answer  # type: ignore[return-value]
        if kind is Later:
            self._start(event.head.unique, answer, sender)  # type: ignore[arg-type]
            return None
        log.error("bug: the handler answered %s with %r", event.__class__.__name__, answer)
        return errno.EIO, b""

    def serve_device(self, event: Event, out: memoryview, sender: Sender) -> Reply | None:
        """As `serve`, for messages of /dev/fuse, among which are those that have no reply."""
        kind = event.__class__
        if kind is events.Interrupt:
            self._interrupt(event.unique)  # type: ignore[union-attr]
            return None
        reply = self.serve(event, out, sender)
        return None if kind is events.Forget or kind is events.BatchForget else reply

    def refuse(self, malformed: MalformedMessage) -> Reply:
        """What answers a message that is not one."""
        log.error("the kernel sent a malformed message: %s", malformed)
        return errno.EIO, b""

    def close(self) -> None:
        """Cancel everything that waits, and whatever may come."""
        with self._lock:
            self._closed = True
            waiting = list(self._waiting.values())
        for later in waiting:
            _cancel(later)

    def _start(self, unique: int, later: Later, sender: Sender) -> None:
        with self._lock:
            self._waiting[unique] = later
            cancelled = self._closed or unique in self._interrupted
        if cancelled:
            _cancel(later)

        def start() -> None:
            self._pool.submit(lambda: self._finish(unique, later, sender))

        if later.when is None:
            start()
        else:
            later.when(start)

    def _finish(self, unique: int, later: Later, sender: Sender) -> None:
        error, body = 0, b""
        try:
            body = later.run()
        except InterruptedError:
            error = errno.EINTR
        except Exception as exc:
            error = to_errno(exc)
        with self._lock:
            del self._waiting[unique]
        sender.send_later(unique, error, body)

    def _interrupt(self, unique: int) -> None:
        with self._lock:
            again = unique in self._interrupted
            self._interrupted[unique] = None
            if len(self._interrupted) > _REMEMBERED_INTERRUPTS:
                del self._interrupted[next(iter(self._interrupted))]
            later = self._waiting.get(unique)
        if later is not None and not again:
            _cancel(later)


def _cancel(later: Later) -> None:
    if later.cancel is None:
        return
    try:
        later.cancel()
    except Exception:
        log.exception("bug while interrupting a request")
