"""One store and several machines: what has to be looked after all the time (docs/format.md 12, docs/decisions/0034).

A thread gives claims up a moment after they were taken, sees what other machines have made of open files and tells the
kernel, places what a dead machine has left, lets in machines that come, and notices when all have gone. Nothing of it
is done while this machine is alone but to listen for a knock.
"""

import logging
import threading
import time
from contextlib import suppress

from fsdriver.content import RedoLog
from fsdriver.errors import DAMAGE, FsError
from fsdriver.filesystem.asker import MustWait
from fsdriver.filesystem.drive import Drive
from fsdriver.filesystem.locking import Locking
from fsdriver.filesystem.peers import LOOK_SECONDS, Peers
from fsdriver.nodes.inode import CIPHER, PLAIN
from fsdriver.nodes.openfile import Handle, OpenFile

log = logging.getLogger(__name__)

_TICK = 0.1
"""Seconds for which a claim is kept, so that many small changes need not claim each: others see them after that."""
_GONE_SECONDS = 5.0
"""After this long without another machine this one is alone."""
_DRAIN_SECONDS = 5.0
"""For as long a machine that comes waits until the kernel has forgotten what it was told."""
_REFRESH_SHARE = 0.1
"""Of the time, at most, goes into looking at open files."""


class Sharing(threading.Thread):
    """The thread of one drive."""

    def __init__(self, drive: Drive, peers: Peers, locking: Locking, redo: RedoLog, *, shared: bool) -> None:
        """`shared`: other machines have the store already."""
        super().__init__(name="sharing", daemon=True)
        self._drive = drive
        self._peers = peers
        self._locking = locking
        self._redo = redo
        self._stopping = threading.Event()
        self._shared = drive.claims.active = shared
        self._met = self._look_at = time.monotonic()
        drive.claims.on_change = self._changed

    @property
    def others(self) -> list[str]:
        """The machines that have the store as well, as the last look showed."""
        return self._peers.alive

    def stop(self) -> None:
        """Give up what is claimed, and end."""
        self._stopping.set()
        self.join()
        self._drive.claims.give_up_all()

    def run(self) -> None:
        while not self._stopping.wait(_TICK):
            try:
                self._tick()
            except (OSError, FsError) as exc:
                log.warning("other machines' work on the store cannot be followed: %s", exc)
            except Exception:
                log.exception("bug while the store was shared")

    def _tick(self) -> None:
        if not self._shared:
            if self._peers.is_knocked():
                self._begin()
            elif self._drive.claims.active:  # who knocked has gone before it could be let in
                self._keep_to_itself()
            return
        self._drive.claims.give_up_all()
        now = time.monotonic()
        if now < self._look_at:
            return
        self._peers.look()
        if self._peers.alive or self._peers.is_knocked():
            self._met = now
        elif now - self._met > _GONE_SECONDS:
            self._end()
            return
        for file in self._drive.files:
            try:
                self._follow(file)
            except (OSError, FsError) as exc:  # over a network it may be gone, for example
                log.debug("%r is not followed: %s", file.inode, exc)
        self._look_at = now + max(LOOK_SECONDS, (time.monotonic() - now) / _REFRESH_SHARE)

    # ---- coming and going ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """A machine comes. It is let in when all that is changed is changed under claims, and nothing that was changed
        before counts in the redo log. Errors: OSError; then it waits, and the next tick tries again."""
        drive = self._drive
        drive.claims.active = True
        for file in drive.files:
            drive.claims.claim_unasked(file)
        drive.claims.give_up_all()
        self._redo.checkpoint()
        for file in drive.files:
            self._locking.show(file)
        for inode in drive.inodes:  # what the kernel was told holds for longer than it may from now on
            if inode.is_directory:
                drive.kernel.inval_inode(inode.nodeid())
                if inode.parent is not None:
                    drive.kernel.inval_entry(inode.parent.nodeid(), inode.name)
            else:
                for view in (PLAIN, CIPHER):
                    if inode.is_known(view):
                        drive.kernel.inval_inode(inode.nodeid(view), -1)
        drive.kernel.drain(_DRAIN_SECONDS)
        self._peers.admit()
        self._shared = True
        self._met = time.monotonic()
        log.info("another machine has the store as well")

    def _end(self) -> None:
        """No other machine has the store any more."""
        if not self._peers.be_alone():
            return
        self._keep_to_itself()
        log.info("no other machine has the store any more")

    def _keep_to_itself(self) -> None:
        self._shared = self._drive.claims.active = False
        for file in self._drive.files:  # only now: what is locked from now on stands nowhere but in the tables
            self._locking.hide(file)

    # ---- following -------------------------------------------------------------------------------------------------

    def _follow(self, file: OpenFile) -> None:
        """See whether another machine has changed `file`. Waits for nobody: others wait for this thread. Errors:
        OSError, FsError."""
        claims = self._drive.claims
        if file.sealed is None or file.claimed:
            return
        try:
            claims.look(file, may_wait=False)
        except MustWait:
            return  # somebody is at work on it: the next tick sees what came of it
        except DAMAGE as exc:
            if file.damage is None:
                file.damage = exc
                if (handle := _somebody(file)) is not None:
                    self._drive.damaged(handle.caller, file.inode, exc)

    def _changed(self, file: OpenFile) -> None:
        """Something of `file` was taken over: its pages in the kernel are old, and its line goes on."""
        drive, inode = self._drive, file.inode
        inode.commit_cached = None
        drive.kernel.inval_inode(inode.nodeid(PLAIN))
        drive.tell_other_view(inode, PLAIN)
        handle = _somebody(file)
        if handle is None or file.sealed is None:
            return
        inode.label_id = file.sealed.header.label
        try:
            drive.lines.met(file.sealed, handle.caller, inode)
        except FsError as exc:
            file.damage = exc


def _somebody(file: OpenFile) -> Handle | None:
    """Who is named in a record about an open file that nobody asked about."""
    with suppress(StopIteration, RuntimeError):
        return next(iter(file.handles))
    return None
