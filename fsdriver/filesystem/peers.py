"""The other machines that have the same store, as their locks tell (docs/format.md 12).

A daemon that is *alone* has byte 0 of `.grantfs/sharing` for itself and need not lock anything else. A machine that
comes knocks (byte 1); the one that is alone then makes itself ready to share, and both have byte 0 together. A daemon
that died has changes in its redo log that count: whoever sees that its log is free places them, before anybody touches
the files again.
"""

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from fsdriver.content import RedoLog, Replayed, is_begun, is_log, works
from fsdriver.content import range_locks as locks
from fsdriver.filesystem.corner import REDO, STATE_DIRECTORY

log = logging.getLogger(__name__)

SHARING = b"sharing"
_PRESENCE_AT, _KNOCK_AT = 0, 1
JOIN_SECONDS = 20.0
"""For as long a machine that comes waits to be let in."""
LOOK_SECONDS = 0.25
"""Between two looks at the others' logs."""
STALE_SECONDS = 2 * LOOK_SECONDS
"""A look that is older than this says nothing. A machine that has come waits as long before it changes anything: then
all have seen it."""
_ASKED_EVERY = 0.02
_NEVER = float("-inf")
_LOG = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def kept_out(corner: int) -> Iterator[bool]:
    """Whether no machine has the store, and none that ever had it can mount it within this block. `corner` is a
    descriptor of its `.grantfs`. Errors: OSError."""
    try:
        fd = os.open(SHARING, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=corner)
    except FileNotFoundError:  # a copy, or never mounted
        yield True
        return
    try:
        yield locks.take(fd, locks.EXCLUSIVE, _PRESENCE_AT)
    finally:
        os.close(fd)


class Peers:
    """`top` and `corner` are descriptors of the store and its `.grantfs`; `own` is the name of this machine's log,
    which is held and has been replayed. `sound` and `look` may be called from any thread."""

    def __init__(self, top: int, corner: int, own: bytes, on_replayed: Callable[[Replayed], None]) -> None:
        self.on_replayed = on_replayed
        """Told what became of each change that a dead machine had left."""
        self._top = top
        self._own = own
        self._logs = os.open(REDO, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=corner)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._sharing = os.open(SHARING, flags, 0o600, dir_fd=corner)
        self._alive: dict[bytes, int] = {}
        """Other machines' logs that a working daemon has, open."""
        self.known = False
        """Whether another machine has, or once had, this store."""
        self.ever: list[str] = []
        """Which ones."""
        self._looked = _NEVER
        self._looking = threading.Lock()

    @property
    def alive(self) -> list[str]:
        """The other machines that have the store now."""
        return sorted(map(os.fsdecode, list(self._alive)))

    # ---- coming and going ------------------------------------------------------------------------------------------

    def join(self) -> bool:
        """Be let in; whether other machines have the store. Errors: TimeoutError, OSError."""
        end = time.monotonic() + JOIN_SECONDS
        locks.take(self._sharing, locks.SHARED, _KNOCK_AT)
        try:
            while True:
                if self.be_alone():
                    return False
                if locks.take(self._sharing, locks.SHARED, _PRESENCE_AT):
                    break
                if time.monotonic() > end:
                    raise TimeoutError("the machine that has the store does not answer")
                time.sleep(_ASKED_EVERY)
        finally:
            locks.release(self._sharing, _KNOCK_AT)
        self.look()
        time.sleep(STALE_SECONDS)
        return True

    def is_knocked(self) -> bool:
        """Whether a machine waits to be let in."""
        return locks.held_by_others(self._sharing, locks.EXCLUSIVE, _KNOCK_AT) is not None

    def admit(self) -> None:
        """Let in who knocks. Everything that is changed from now on is changed under locks."""
        locks.take(self._sharing, locks.SHARED, _PRESENCE_AT)

    def be_alone(self) -> bool:
        """Whether nobody else has the store, nor has left anything in it that is not in place. Errors: OSError."""
        if not locks.take(self._sharing, locks.EXCLUSIVE, _PRESENCE_AT):
            return False
        if self.look():
            return True
        self.admit()  # somebody is placing what was left, and comes next
        return False

    def close(self) -> None:
        for fd in (*self._alive.values(), self._sharing, self._logs):
            os.close(fd)
        self._alive.clear()

    # ---- who lives -------------------------------------------------------------------------------------------------

    def sound(self) -> bool:
        """Whether nobody has died since the last look, which is not old: no change of a dead machine waits to be
        placed. Never waits: False while somebody looks."""
        if not self._looking.acquire(blocking=False):
            return False
        try:
            return time.monotonic() - self._looked < STALE_SECONDS and all(map(works, self._alive.values()))
        finally:
            self._looking.release()

    def look(self) -> bool:
        """See who is there, and place what the dead have left; whether nothing is left of any. Errors: OSError."""
        with self._looking:
            now = time.monotonic()
            sure = True
            others = set(filter(is_log, map(os.fsencode, os.listdir(self._logs)))) - {self._own}
            self.known = bool(others)
            self.ever = sorted(map(os.fsdecode, others))
            for name in others:
                sure &= self._look_at(name)
            self._looked = now if sure else _NEVER
            return sure

    def _look_at(self, name: bytes) -> bool:
        """Whether the machine of this log works, or has left nothing."""
        fd = self._alive.get(name)
        if fd is None:
            try:
                fd = os.open(name, _LOG, dir_fd=self._logs)
            except (FileNotFoundError, IsADirectoryError):
                return True
            except OSError as exc:
                log.warning("what lies at %r in .grantfs/redo cannot be opened: %s", name, exc.strerror)
                return True
        try:
            if works(fd):
                self._alive[name] = fd
                return True
            self._alive.pop(name, None)
            if stat.S_ISREG(os.fstat(fd).st_mode) and is_begun(fd):
                return self._replay(name)
            return True
        finally:
            if self._alive.get(name) != fd:
                os.close(fd)

    def _replay(self, name: bytes) -> bool:
        """The log of a daemon that died, unless its machine or somebody else does that just now."""
        try:
            redo = RedoLog(self._top, STATE_DIRECTORY + b"/" + REDO + b"/" + name)
        except BlockingIOError:
            return False
        try:
            for one in redo.replay():
                self.on_replayed(one)
        finally:
            with suppress(OSError):
                redo.close()
        machine = os.fsdecode(name)
        log.warning("the drive of machine %s ended in the midst of its work: its changes are in place", machine)
        return True
