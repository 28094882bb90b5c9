"""Who may change a file that several machines have open: claims (docs/format.md 12).

While other machines have the store, whoever changes a file has *claimed* it: an exclusive lock that all of them see. It
is taken with the first change and given up a moment later, once everything is committed and nothing of it counts in the
redo log; what others have committed meanwhile is taken over when the claim is taken. Reading takes no lock: a chunk
that verifies is whole. Only what does not verify is read again under a lock (`steady`), since somebody may have been
writing it. While this machine is alone nothing is locked.

A thread that serves the kernel's requests never waits for another machine: it gets MustWait.
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fsdriver.content import HEADER_SIZE, RedoLog
from fsdriver.content import range_locks as locks
from fsdriver.content.search import Sought
from fsdriver.errors import DAMAGE, FsError
from fsdriver.filesystem.asker import Asker, MustWait
from fsdriver.filesystem.peers import Peers
from fsdriver.nodes.openfile import OpenFile

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds for which a change waits for a machine that does not give up its claim, before it is EIO."""
WAITING_MAX = 128
"""Threads that wait for claims at once: half of the pool is left for everything else. One more is EIO."""
_ASKED_FIRST, _ASKED_LATER = 0.001, 0.02
_BIRTH = 5.0
"""Seconds that a machine may take from making a file to writing its header."""


class ClaimHeld(OSError):
    """EIO: another machine has claimed the file and does not let go. Nothing is known to be wrong with the file."""


class Claims:
    """The claims of one drive. Thread-safe; a file's own lock is held where its claim is looked at or changes."""

    def __init__(self, peers: Peers, redo: RedoLog) -> None:
        self._peers = peers
        self._redo = redo
        self.active = False
        """Whether other machines have the store, or are about to."""
        self._lock = threading.Lock()
        self._claimed: set[OpenFile] = set()
        self._waiting = 0
        """Threads that wait for other machines."""
        self.on_change: Callable[[OpenFile], None] = lambda file: None
        """Told of each file of which something was taken over; must not wait."""

    # ---- changing --------------------------------------------------------------------------------------------------

    def require_patience(self, asker: Asker) -> None:
        """For who does something before the change that must not be done twice. Errors: MustWait."""
        if self.active and not asker.may_wait:
            raise MustWait

    def changing(self, file: OpenFile, *, may_wait: bool) -> "_Held":
        """Around a change of `file`. Errors: MustWait; DAMAGE, where what another machine made of it does not verify;
        ClaimHeld; OSError."""
        return _Held(self, file, self._claim, may_wait)

    @contextmanager
    def steady(self, file: OpenFile, *, may_wait: bool) -> Iterator[None]:
        """Around reading `file` as one state, the newest, which nobody changes meanwhile. Errors: as `changing`."""
        with _Held(self, file, self._share, may_wait):
            try:
                self.take_over(file)
                yield
            finally:
                if self.active and not file.claimed:
                    locks.release(file.fd, locks.COMMIT_AT)

    def look(self, file: OpenFile, *, may_wait: bool) -> bool:
        """Take over what another machine has committed to `file` by now; whether it was anything. Waits for nobody who
        is about to change it. Errors: MustWait; DAMAGE, if it is damage even when nobody changes it."""
        if not self._acquire(file, may_wait):
            raise MustWait
        try:
            return self.take_over(file)
        except DAMAGE:
            pass  # it may be in the midst of being written
        finally:
            file.lock.release()
        with self.steady(file, may_wait=may_wait):
            return True

    def hold(self, file: OpenFile, attempt: Callable[[OpenFile], bool], may_wait: bool) -> None:
        """Take the file's own lock, once `attempt` has succeeded under it; the caller releases it."""
        if not self._acquire(file, may_wait):
            raise MustWait
        try:
            if self.active and not attempt(file):
                if not may_wait:
                    locks.release(file.fd, locks.TURN_AT)  # who waits stands in line for itself
                    raise MustWait
                self._wait(file, attempt)
        except BaseException:
            file.lock.release()
            raise

    def _acquire(self, file: OpenFile, may_wait: bool) -> bool:
        # While the machine is alone nobody holds the file's lock for longer than a commit takes.
        return file.lock.acquire(blocking=may_wait or not self.active)

    def _wait(self, file: OpenFile, attempt: Callable[[OpenFile], bool]) -> None:
        """The file's lock is held, and let go between attempts."""
        with self._lock:
            if self._waiting >= WAITING_MAX:
                locks.release(file.fd, locks.TURN_AT)
                raise ClaimHeld(errno.EIO, f"{WAITING_MAX} others wait for what another machine has claimed")
            self._waiting += 1
        end = time.monotonic() + PATIENCE
        pause = _ASKED_FIRST
        try:
            while True:
                file.lock.release()
                try:
                    if not self._peers.sound():
                        self._peers.look()
                    time.sleep(pause)
                finally:
                    file.lock.acquire()
                if not self.active or attempt(file):
                    return
                if file.refused or time.monotonic() > end:  # a revocation waits for nobody
                    raise ClaimHeld(errno.EIO, "another machine has claimed the file and does not let go")
                pause = min(2 * pause, _ASKED_LATER)
        finally:
            with self._lock:
                self._waiting -= 1
            locks.release(file.fd, locks.TURN_AT)

    def _claim(self, file: OpenFile) -> bool:
        if file.claimed:
            return True
        if not self._attempt(file, locks.EXCLUSIVE):
            return False
        self._remember(file)
        self.take_over(file)
        if file.sealed is not None:
            file.sealed.assume_unsynced()
        return True

    def _remember(self, file: OpenFile) -> None:
        try:
            self._redo.claimed(file.inode.ino)
        except OSError:
            locks.release(file.fd, locks.COMMIT_AT)
            raise
        file.claimed = True
        with self._lock:
            self._claimed.add(file)

    def _share(self, file: OpenFile) -> bool:
        return file.claimed or (self._attempt(file, locks.SHARED) and self._is_born(file))

    def _attempt(self, file: OpenFile, kind: int) -> bool:
        """Take the lock in turn. Whoever does not get it is the next, until TURN_AT is let go."""
        if not file.writable:
            kind = locks.SHARED  # nothing is changed through it, or it is opened anew before
        if not locks.take(file.fd, kind, locks.TURN_AT) or not locks.take(file.fd, kind, locks.COMMIT_AT):
            return False
        if not self._peers.sound(file.inode.ino):  # only now: the claim may be free because its owner died
            locks.release(file.fd, locks.COMMIT_AT)
            return False
        locks.release(file.fd, locks.TURN_AT)
        return True

    @staticmethod
    def _is_born(file: OpenFile) -> bool:
        """Another machine may have made the file a moment ago, and not written its header yet."""
        found = os.fstat(file.fd)
        if found.st_size >= HEADER_SIZE or abs(time.time() - found.st_mtime) > _BIRTH:
            return True
        locks.release(file.fd, locks.COMMIT_AT)
        return False

    def take_over(self, file: OpenFile) -> bool:
        """Take over what another machine has committed to `file`, whose own lock is held; whether it was anything.
        Errors: DAMAGE."""
        if file.sealed is None or file.sealed.dirty or not file.sealed.refresh():
            return False
        self.on_change(file)
        return True

    # ---- giving up -------------------------------------------------------------------------------------------------

    def give_up(self, file: OpenFile) -> None:
        """Commit `file` and let others change it. Errors: OSError; then it stays claimed."""
        with file.lock:
            if not file.claimed:
                return
            file.commit()
            if file.sealed is not None:
                file.sealed.retire()
            elif file.inode.file_id is not None:  # its key was taken back, and what was logged before counts still
                self._redo.retire(Sought(file.inode.file_id, file.inode.ino), file.fd)
            with self._lock:
                self._claimed.discard(file)
            file.claimed = False
            self._redo.given_up(file.inode.ino)
            locks.release(file.fd, locks.COMMIT_AT)

    def give_up_all(self) -> None:
        """What cannot be committed stays claimed, and is tried again the next time."""
        with self._lock:
            claimed = list(self._claimed)
        for file in claimed:
            try:
                self.give_up(file)
            except (OSError, FsError) as exc:
                log.debug("%r stays claimed: %s", file.inode, exc)

    def claim_unasked(self, file: OpenFile) -> None:
        """Claim a file that nobody else knows yet, or that nobody else may have claimed, if that is so."""
        if not self.active:
            return
        with file.lock:
            if (
                self.active
                and file.writable
                and not file.claimed
                and locks.take(file.fd, locks.EXCLUSIVE, locks.COMMIT_AT)
            ):
                self._remember(file)


class _Held:
    """Around a block: the file's own lock, once an attempt has succeeded under it. Every WRITE pays for it."""

    __slots__ = ("_attempt", "_claims", "_file", "_may_wait")

    def __init__(self, claims: Claims, file: OpenFile, attempt: Callable[[OpenFile], bool], may_wait: bool) -> None:
        self._claims, self._file, self._attempt, self._may_wait = claims, file, attempt, may_wait

    def __enter__(self) -> None:
        self._claims.hold(self._file, self._attempt, self._may_wait)

    def __exit__(self, *_: object) -> None:
        self._file.lock.release()
