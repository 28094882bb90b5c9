"""Rights that end while files are open: a new bundle, another login map, a lease that ended, an hour that passed.

The order is what makes it hold (design 7): handles refuse READ and WRITE first, then the kernel drops its pages, which
hands in what mappings have changed, then what was written is committed, then the keys go. Callers on other threads see
each step at once; the drain has a deadline, after which what is left is recorded as lost.
"""

import logging
import threading
from collections.abc import Iterable, Mapping

from fsdriver.errors import FsError
from fsdriver.filesystem.drive import VIEW_NAMES, Drive
from fsdriver.nodes.inode import CIPHER, PLAIN
from fsdriver.nodes.openfile import Handle, OpenFile
from policy import Action, Bundle, Standing, View

log = logging.getLogger(__name__)

DRAIN_SECONDS = 0.5
"""Of the second within which a revocation has to be done."""


class Revocation:
    """Takes rights away from open handles. Thread-safe: the key client's thread, the hours' and the end's call it."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self._lock = threading.Lock()

    def decide_anew(self, bundle: Bundle | None, logins: Mapping[int, str]) -> int:
        """A new bundle or login map: every open handle is decided again, without grace. How many were refused."""
        drive = self._drive
        with self._lock:
            drive.views.update(bundle, logins)
            refused = self._refuse(handle for handle in self._handles() if not self._still_entitled(handle))
            self._drop_pages(None)
        if bundle is not None:
            drive.callers.set_programs(bundle.programs)  # reads the programs, which takes as long as it takes
        return refused

    def labels_ended(self, labels: frozenset[bytes]) -> int:
        """The keys of these labels are no longer ours: no handle reads, no page stays, no file key stays.

        How many handles were refused.
        """
        drive = self._drive
        drive.files.verified.forget()  # first of all: what follows may fail, on a full disk say
        with self._lock:
            ended = [
                handle
                for handle in self._handles()
                if handle.view == PLAIN and handle.label is not None and handle.label.id in labels
            ]
            refused = self._refuse(ended)
            self._drop_pages(labels)
            for inode in drive.inodes:
                file = inode.opened
                if file is not None and file.sealed is not None and file.sealed.header.label in labels:
                    self._forget_key(file)
        return refused

    def hours_passed(self) -> None:
        """Decide handles again whose rule's `when:` has changed sides; what ends so has the label's grace."""
        with self._lock:
            self._decide_by_hour()

    def _decide_by_hour(self) -> None:
        drive = self._drive
        now = drive.now()
        over = []
        for handle in self._handles():
            if handle.standing.until > now or handle.revoked:
                continue
            standing = drive.views.standing(handle.caller, handle.label)
            grace = handle.label.grace if handle.label is not None else 0.0
            if _entitles(handle, standing):
                handle.standing = standing
            elif now >= handle.standing.until + grace:
                over.append(handle)
        if over:
            self._refuse(over)
            for handle in over:
                drive.kernel.inval_inode(handle.file.inode.nodeid(handle.view))

    def _handles(self) -> list[Handle]:
        return [handle for handle in list(self._drive.handles.values()) if isinstance(handle, Handle)]

    def _still_entitled(self, handle: Handle) -> bool:
        drive = self._drive
        if handle.label is not None:
            handle.label = drive.views.bundle.label_by_id(handle.label.id)
        standing = drive.views.standing(handle.caller, handle.label)
        if not _entitles(handle, standing):
            return False
        handle.standing = standing
        return True

    def _refuse(self, handles: Iterable[Handle]) -> int:
        drive = self._drive
        refused = [handle for handle in handles if not handle.revoked]
        for handle in refused:
            handle.revoked = True
            handle.file.refused = True
        for handle in refused:
            drive.recorder.record(
                "revoke",
                handle.caller,
                handle.file.inode,
                path=handle.path,
                label=handle.label.qualified if handle.label is not None else "unknown",
                view=VIEW_NAMES[handle.view],
                rule=handle.standing.rule,
                bytes_read=handle.bytes_read,
                bytes_written=handle.bytes_written,
            )
        return len(refused)

    def _drop_pages(self, labels: frozenset[bytes] | None) -> None:
        """Of the plaintext nodes with these labels, or of all: open or not. Open ones first, they are in use."""
        drive = self._drive
        known = [inode for inode in drive.inodes if inode.is_regular and inode.is_known(PLAIN)]
        for inode in sorted(known, key=lambda inode: inode.opened is None):
            if labels is None or inode.label_id is None or inode.label_id in labels:
                inode.commit_cached = None
                drive.kernel.inval_inode(inode.nodeid(PLAIN))
        if not drive.kernel.drain(DRAIN_SECONDS):
            drive.recorder.note("revoke", "the kernel did not hand in all changed pages in time: what is left is lost")

    def _forget_key(self, file: OpenFile) -> None:
        with file.lock:
            if file.sealed is None:
                return
            try:
                self._drive.claims.give_up(file)
            except (OSError, FsError) as exc:
                log.warning("%r: not all is committed: %s", file.inode, exc)
            sealed, file.sealed = file.sealed, None
            try:
                sealed.detach()
            except (OSError, FsError) as exc:
                self._drive.recorder.note("damaged", f"lost at a revocation: {exc}", path=self._path(file))

    def _path(self, file: OpenFile) -> str:
        return self._drive.directories.path(file.inode)


def _entitles(handle: Handle, standing: Standing) -> bool:
    """Whether `standing` still gives what the handle was opened for."""
    if handle.view == CIPHER:
        return standing.view is not View.NONE and Action.READ in standing.allow
    if standing.view is not View.PLAINTEXT:
        return False
    return (not handle.readable or Action.READ in standing.allow) and (
        not handle.writable or not {Action.WRITE, Action.CREATE}.isdisjoint(standing.allow)
    )
