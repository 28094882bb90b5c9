"""GETLK, SETLK, SETLKW, and the locks that a close ends. One table per file serves both views.

A waiting lock sits in the pool, never in a reader or ring thread, and ends with EINTR when its caller is interrupted.
"""

import errno
import threading

from fsdriver.device import Later
from fsdriver.filesystem.drive import Drive
from fsdriver.nodes.locks import END_OF_FILE, F_UNLCK, Lock, LockTable
from fsdriver.nodes.openfile import OpenFile
from fsdriver.protocol import abi, events, replies


class Locking:
    """The locks of all open files. One condition wakes all waiters: locks are held for long and wanted by few."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self._changed = threading.Condition()

    def getlk(self, event: events.Getlk) -> bytes:
        table, wanted = self._wanted(event)
        with self._changed:
            held = table.conflict(wanted)
        if held is None:
            return replies.lock(wanted.start, wanted.end, F_UNLCK, 0)
        return replies.lock(held.start, held.end, held.kind, held.pid)

    def setlk(self, event: events.Setlk | events.Setlkw) -> bytes:
        table, wanted = self._wanted(event)
        with self._changed:
            if not self._take(table, wanted):
                raise BlockingIOError(errno.EAGAIN, "another owner holds the lock")
        return replies.EMPTY

    def setlkw(self, event: events.Setlkw) -> bytes | Later:
        """At once if nothing is in the way, else from the pool."""
        try:
            return self.setlk(event)
        except BlockingIOError:
            waiter = _Waiter(self, *self._wanted(event))
            return Later(waiter.run, waiter.cancel)

    def closed(self, file: OpenFile, owner: int) -> None:
        """close(2) of a descriptor: the POSIX locks of its owner go."""
        if file.posix:
            with self._changed:
                if file.posix.release_owner(owner):
                    self._changed.notify_all()

    def released(self, file: OpenFile, owner: int) -> None:
        """The open file description is gone, and its flock with it."""
        if file.flock:
            with self._changed:
                if file.flock.release_owner(owner):
                    self._changed.notify_all()

    def _wanted(self, event: events.Getlk | events.Setlk | events.Setlkw) -> tuple[LockTable, Lock]:
        file = self._drive.handle(event.fh).file
        if event.lk_flags & abi.LK_FLOCK:
            return file.flock, Lock(0, END_OF_FILE, event.type, event.owner, event.pid)
        return file.posix, Lock(event.start, event.end, event.type, event.owner, event.pid)

    def _take(self, table: LockTable, wanted: Lock) -> bool:
        """Under the condition's lock."""
        if wanted.kind != F_UNLCK and table.conflict(wanted) is not None:
            return False
        table.apply(wanted)
        # Also a lock that was made weaker lets others in.
        self._changed.notify_all()
        return True


class _Waiter:
    """One SETLKW that has to wait."""

    def __init__(self, locking: Locking, table: LockTable, wanted: Lock) -> None:
        self._locking, self._table, self._wanted = locking, table, wanted
        self._interrupted = False

    def run(self) -> bytes:
        changed = self._locking._changed
        with changed:
            while not self._interrupted:
                if self._locking._take(self._table, self._wanted):
                    return replies.EMPTY
                changed.wait()
        raise InterruptedError(errno.EINTR, "interrupted while waiting for a lock")

    def cancel(self) -> None:
        changed = self._locking._changed
        with changed:
            self._interrupted = True
            changed.notify_all()
