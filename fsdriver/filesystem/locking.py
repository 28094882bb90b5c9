"""GETLK, SETLK, SETLKW, and the locks that a close ends. One table per file serves both views.

While other machines have the store, what the table holds stands on the backing file as well, where their daemons see
it. Whoever gets a lock then finds what the one before has written, and what was written under a lock is committed
before it goes. Such a lock is taken in the pool, since that may wait for other machines' changes.

A lock that has to wait holds no thread, neither a reader's nor one of the pool: it stands in a queue, gets its turn
when a lock goes, and ends with EINTR when its caller is interrupted. It does hold a buffer of the transport, so there
is a limit, and no user has more waits than are left for the others: 128 of 256 alone, the next one then 64. Beyond that
it is ENOLCK, as fcntl(2) and flock(2) have it.
"""

import errno
import logging
import os
import re
import threading
import time
from collections.abc import Callable

from fsdriver.content import range_locks
from fsdriver.device import Later
from fsdriver.errors import FsError
from fsdriver.filesystem.claims import PATIENCE
from fsdriver.filesystem.drive import Drive
from fsdriver.nodes.locks import END_OF_FILE, F_UNLCK, Lock, LockTable
from fsdriver.nodes.openfile import Handle, OpenFile
from fsdriver.protocol import InHeader, abi, events, replies

log = logging.getLogger(__name__)

WAITING_MAX = 256
"""Of all users. There must be buffers left for who lets the lock go, and for everything else."""

_LOOK_SECONDS = 1.0
_LOOK_OUTSIDE_SECONDS = 0.05
"""Other machines do not tell when a lock of theirs goes."""
_DRAIN_SECONDS = PATIENCE + 5.0
"""The kernel drops a page once it has written it, and that write may wait for a claim."""
_SIGNALS = re.compile(rb"^(SigPnd|ShdPnd|SigBlk|SigIgn):\t([0-9a-f]+)$", re.MULTILINE)


class Locking:
    """The locks of all open files, and one queue of those who wait: locks are held for long and wanted by few."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self._lock = threading.Lock()
        self._waiting: list[_Waiter] = []
        self._watched = False

    def getlk(self, event: events.Getlk) -> bytes:
        file, table, wanted = self._wanted(event)
        with self._lock:
            held = _conflict(table, wanted) or self._conflict_outside(file, table, wanted)
        if held is None:
            return replies.lock(wanted.start, wanted.end, F_UNLCK, 0)
        return replies.lock(held.start, held.end, held.kind, held.pid)

    def setlk(self, event: events.Setlk) -> bytes | Later:
        if self._drive.claims.active:
            return Later(lambda: self._set_shared(event))
        return self._set(event)

    def _set_shared(self, event: events.Setlk | events.Setlkw) -> bytes:
        file, _, wanted = self._wanted(event)
        if wanted.kind == F_UNLCK:
            self._hand_over(file)
            return self._set(event)
        reply = self._set(event)
        try:
            self._take_over(file)
        except BaseException:  # who is told that it failed does not have it
            self._set(event._replace(type=F_UNLCK))
            raise
        return reply

    def _set(self, event: events.Setlk | events.Setlkw) -> bytes:
        file, table, wanted = self._wanted(event)
        with self._lock:
            if not self._take(file, table, wanted):
                raise BlockingIOError(errno.EAGAIN, "another owner holds the lock")
            self._wake()
        return replies.EMPTY

    def setlkw(self, event: events.Setlkw) -> bytes | Later:
        """At once if nothing is in the way, else when it is gone."""
        file, table, wanted = self._wanted(event)
        shared = self._drive.claims.active
        if shared and wanted.kind == F_UNLCK:
            return Later(lambda: self._set_shared(event))
        after = (lambda: self._take_over(file)) if shared else _nothing
        waiter = _Waiter(file, table, wanted, event.head, after)
        with self._lock:
            if self._take(file, table, wanted):
                self._wake()
                if not shared:
                    return replies.EMPTY
                waiter.done(taken=True)
                return Later(waiter.answer, lambda: None, lambda start: self._enter(waiter, start))
            self._make_sure_of_room(waiter.uid)
            self._waiting.append(waiter)
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._watch, name="lock-waiters", daemon=True).start()
        return Later(waiter.answer, lambda: self._interrupt(waiter), lambda start: self._enter(waiter, start))

    def closed(self, file: OpenFile, owner: int) -> None:
        """close(2) of a descriptor: the POSIX locks of its owner go."""
        if file.posix:
            self._release(file, file.posix, owner)

    def released(self, file: OpenFile, owner: int) -> None:
        """The open file description is gone, and its flock with it."""
        if file.flock:
            self._release(file, file.flock, owner)

    def show(self, file: OpenFile) -> None:
        """Other machines are about to come: what the tables hold stands on the backing file from now on."""
        with self._lock:
            for table in (file.posix, file.flock):
                if table:
                    self._show(file, table, 0, END_OF_FILE)

    def hide(self, file: OpenFile) -> None:
        """Other machines have gone: what stands on the backing file is not kept up any longer."""
        with self._lock:
            range_locks.release(file.fd, 0, range_locks.FLOCK_AT + 1)

    def _release(self, file: OpenFile, table: LockTable, owner: int) -> None:
        if self._drive.claims.active:
            self._hand_over(file)
        with self._lock:
            if table.release_owner(owner):
                self._show(file, table, 0, END_OF_FILE)
                self._wake()

    def _wanted(self, event: events.Getlk | events.Setlk | events.Setlkw) -> tuple[OpenFile, LockTable, Lock]:
        handle = self._drive.handle(event.fh)
        file = handle.file
        if event.lk_flags & abi.LK_FLOCK:
            return file, file.flock, Lock(0, END_OF_FILE, event.type, event.owner, event.pid)
        untold = False
        if isinstance(handle, Handle):
            handle.lockers.add(event.owner)
            untold = not handle.writable
        return file, file.posix, Lock(event.start, event.end, event.type, event.owner, event.pid, untold)

    # ---- between machines --------------------------------------------------------------------------------------

    def _hand_over(self, file: OpenFile) -> None:
        """A lock is about to go: what was written under it is committed, for all machines to see."""
        try:
            self._drive.claims.give_up(file)
        except (OSError, FsError) as exc:
            log.warning("%r: what was written under a lock is not in the store yet: %s", file.inode, exc)

    def _take_over(self, file: OpenFile) -> None:
        """A lock was taken: what another machine has written under it is what programs here read from now on."""
        with self._drive.claims.steady(file, may_wait=True):
            pass
        if not self._drive.kernel.drain_pages(_DRAIN_SECONDS):  # of what others may have taken over before us, too
            raise OSError(errno.EIO, "the kernel still has pages that another machine has changed since")

    # ---- under the lock ----------------------------------------------------------------------------------------

    def _take(self, file: OpenFile, table: LockTable, wanted: Lock) -> bool:
        if wanted.kind != F_UNLCK:
            if _conflict(table, wanted) is not None:
                return False
            outside = _outside(table, wanted.start, wanted.end)
            if self._drive.claims.active and outside and not _stand(file, wanted.kind, *outside):
                return False
        try:
            table.apply(wanted)
        except OSError:
            self._show(file, table, wanted.start, wanted.end)
            raise
        if wanted.kind == F_UNLCK:
            self._show(file, table, wanted.start, wanted.end)
        return True

    def _show(self, file: OpenFile, table: LockTable, start: int, end: int) -> None:
        """What `table` holds in a range stands on the backing file, if other machines are there to see it."""
        if not self._drive.claims.active:
            return
        for held in table.strongest(start, end):
            if (outside := _outside(table, held.start, held.end)) is not None:
                _stand(file, held.kind, *outside)

    def _conflict_outside(self, file: OpenFile, table: LockTable, wanted: Lock) -> Lock | None:
        outside = _outside(table, wanted.start, wanted.end)
        if not self._drive.claims.active or outside is None or wanted.kind == F_UNLCK:
            return None
        found = range_locks.held_by_others(file.fd, wanted.kind, *outside)
        if found is None:
            return None
        kind, start, length = found
        return Lock(start, start + length - 1 if length else END_OF_FILE, kind, 0, 0)

    def _make_sure_of_room(self, uid: int) -> None:
        theirs = sum(waiter.uid == uid for waiter in self._waiting)
        if theirs >= WAITING_MAX - len(self._waiting):
            raise OSError(errno.ENOLCK, f"{theirs} locks are waited for by uid {uid}, {len(self._waiting)} by all")

    def _wake(self) -> None:
        """A lock went or became weaker: whoever can have what it waits for gets it, first come first served."""
        for waiter in list(self._waiting):
            if self._take(waiter.file, waiter.table, waiter.wanted):
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
        looked = time.monotonic()
        while True:
            shared = self._drive.claims.active
            time.sleep(_LOOK_OUTSIDE_SECONDS if shared else _LOOK_SECONDS)
            with self._lock:
                if shared:
                    self._wake()
                waiting = list(self._waiting)
                self._watched = bool(waiting)
            if not waiting:
                return
            if time.monotonic() - looked < _LOOK_SECONDS:
                continue
            looked = time.monotonic()
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

    def __init__(
        self, file: OpenFile, table: LockTable, wanted: Lock, head: InHeader, after: Callable[[], None]
    ) -> None:
        """`after` is done once the lock was got, before that is told."""
        self.file, self.table, self.wanted = file, table, wanted
        self._after = after
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
        self._after()
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


def _outside(table: LockTable, start: int, end: int) -> tuple[int, int] | None:
    """Where a range of `table` stands on the backing file: (start, length). None for what lies too far behind."""
    if table.flock:
        return range_locks.FLOCK_AT, 1
    if start >= range_locks.PROGRAMS_END:
        return None
    return start, min(end + 1, range_locks.PROGRAMS_END) - start


def _stand(file: OpenFile, kind: int, start: int, length: int) -> bool:
    """Put a lock on the backing file, or take it off; False where another machine is in the way."""
    if kind == F_UNLCK:
        range_locks.release(file.fd, start, length)
        return True
    if not file.writable:
        kind = range_locks.SHARED  # a descriptor that only reads can have no other
    return range_locks.take(file.fd, kind, start, length)


def _nothing() -> None:
    return None
