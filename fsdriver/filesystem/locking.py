"""GETLK, SETLK, SETLKW, and the locks that a close ends. One table per file serves both views.

A lock that has to wait holds no thread, neither a reader's nor one of the pool: it stands in a queue, gets its turn
when a lock goes, and ends with EINTR when its caller is interrupted. It does hold a buffer of the transport, so there
is a limit, and no user has more waits than are left for the others: 128 of 256 alone, the next one then 64. Beyond that
it is ENOLCK, as fcntl(2) and flock(2) have it.
"""

import errno
import os
import re
import threading
import time
from collections.abc import Callable

from fsdriver.device import Later
from fsdriver.filesystem.drive import Drive
from fsdriver.nodes.locks import END_OF_FILE, F_UNLCK, Lock, LockTable
from fsdriver.nodes.openfile import Handle, OpenFile
from fsdriver.protocol import InHeader, abi, events, replies

WAITING_MAX = 256
"""Of all users. There must be buffers left for who lets the lock go, and for everything else."""

_LOOK_SECONDS = 1.0
_SIGNALS = re.compile(rb"^(SigPnd|ShdPnd|SigBlk|SigIgn):\t([0-9a-f]+)$", re.MULTILINE)


class Locking:
    """The locks of all open files, and one queue of those who wait: locks are held for long and wanted by few."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self._lock = threading.Lock()
        self._waiting: list[_Waiter] = []
        self._watched = False

    def getlk(self, event: events.Getlk) -> bytes:
        table, wanted = self._wanted(event)
        with self._lock:
            held = _conflict(table, wanted)
        if held is None:
            return replies.lock(wanted.start, wanted.end, F_UNLCK, 0)
        return replies.lock(held.start, held.end, held.kind, held.pid)

    def setlk(self, event: events.Setlk | events.Setlkw) -> bytes:
        table, wanted = self._wanted(event)
        with self._lock:
            if not self._take(table, wanted):
                raise BlockingIOError(errno.EAGAIN, "another owner holds the lock")
            self._wake()
        return replies.EMPTY

    def setlkw(self, event: events.Setlkw) -> bytes | Later:
        """At once if nothing is in the way, else when it is gone."""
        table, wanted = self._wanted(event)
        waiter = _Waiter(table, wanted, event.head)
        with self._lock:
            if self._take(table, wanted):
                self._wake()
                return replies.EMPTY
            self._make_sure_of_room(waiter.uid)
            self._waiting.append(waiter)
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._watch, name="lock-waiters", daemon=True).start()
        return Later(waiter.answer, lambda: self._interrupt(waiter), lambda start: self._enter(waiter, start))

    def closed(self, file: OpenFile, owner: int) -> None:
        """close(2) of a descriptor: the POSIX locks of its owner go."""
        if file.posix:
            self._release(file.posix, owner)

    def released(self, file: OpenFile, owner: int) -> None:
        """The open file description is gone, and its flock with it."""
        if file.flock:
            self._release(file.flock, owner)

    def _release(self, table: LockTable, owner: int) -> None:
        with self._lock:
            if table.release_owner(owner):
                self._wake()

    def _wanted(self, event: events.Getlk | events.Setlk | events.Setlkw) -> tuple[LockTable, Lock]:
        handle = self._drive.handle(event.fh)
        file = handle.file
        if event.lk_flags & abi.LK_FLOCK:
            return file.flock, Lock(0, END_OF_FILE, event.type, event.owner, event.pid)
        untold = False
        if isinstance(handle, Handle):
            handle.lockers.add(event.owner)
            untold = not handle.writable
        return file.posix, Lock(event.start, event.end, event.type, event.owner, event.pid, untold)

    # ---- under the lock ----------------------------------------------------------------------------------------

    def _take(self, table: LockTable, wanted: Lock) -> bool:
        if wanted.kind != F_UNLCK and _conflict(table, wanted) is not None:
            return False
        table.apply(wanted)
        return True

    def _make_sure_of_room(self, uid: int) -> None:
        theirs = sum(waiter.uid == uid for waiter in self._waiting)
        if theirs >= WAITING_MAX - len(self._waiting):
            raise OSError(errno.ENOLCK, f"{theirs} locks are waited for by uid {uid}, {len(self._waiting)} by all")

    def _wake(self) -> None:
        """A lock went or became weaker: whoever can have what it waits for gets it, first come first served."""
        for waiter in list(self._waiting):
            if self._take(waiter.table, waiter.wanted):
                self._waiting.remove(waiter)
                waiter.done(taken=True)

    def _interrupt(self, waiter: "_Waiter") -> None:
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                waiter.done(taken=False)

    def _watch(self) -> None:
        """While somebody waits: who was signalled waits no longer. The kernel says so by INTERRUPT, but over io_uring
        (seen with 6.18) not for a request that the signal met in its queue; that thread could not even be killed."""
        while True:
            time.sleep(_LOOK_SECONDS)
            with self._lock:
                waiting = list(self._waiting)
                self._watched = bool(waiting)
            if not waiting:
                return
            for waiter in waiting:
                if waiter.thread and _is_signalled(waiter.thread):
                    self._interrupt(waiter)

    def _enter(self, waiter: "_Waiter", start: Callable[[], None]) -> None:
        with self._lock:
            waiter.start = start
            if waiter.taken is not None:
                start()


class _Waiter:
    """One SETLKW that has to wait."""

    def __init__(self, table: LockTable, wanted: Lock, head: InHeader) -> None:
        self.table, self.wanted = table, wanted
        self.thread, self.uid = head.pid, head.uid
        self.start: Callable[[], None] | None = None
        self.taken: bool | None = None
        """Whether the lock was got; None while it is waited for."""

    def done(self, *, taken: bool) -> None:
        self.taken = taken
        if self.start is not None:
            self.start()

    def answer(self) -> bytes:
        if not self.taken:
            raise InterruptedError(errno.EINTR, "interrupted while waiting for a lock")
        return replies.EMPTY


def _is_signalled(thread: int) -> bool:
    """Whether a thread has a signal that would end its wait, or is gone."""
    try:
        with open(f"/proc/{thread}/status", "rb") as status:
            masks = {name: int(mask, 16) for name, mask in _SIGNALS.findall(status.read())}
    except OSError:
        return True
    return bool((masks[b"SigPnd"] | masks[b"ShdPnd"]) & ~masks[b"SigBlk"] & ~masks[b"SigIgn"])


def _conflict(table: LockTable, wanted: Lock) -> Lock | None:
    """What stands in the way. A process that ended has no locks, even if a child of it still has the descriptor; where
    that cannot write, a lock of the open file description, which would stay, looks the same and goes too."""
    while (held := table.conflict(wanted)) is not None:
        if not held.untold or not held.pid or os.path.exists(f"/proc/{held.pid}"):
            return held
        table.release_owner(held.owner)
    return None
