"""What all operations share: the store, the inode table, decisions, keys, records and the way back to the kernel."""

import errno
import itertools
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from fsdriver.content import Header, plain_size
from fsdriver.content.silly import is_silly
from fsdriver.errors import NodeVanished, Revoked, ViewRefused
from fsdriver.filesystem.asker import Asker
from fsdriver.filesystem.claims import ClaimHeld, Claims
from fsdriver.filesystem.copies import Copies
from fsdriver.filesystem.corner import STATE_DIRECTORY
from fsdriver.filesystem.filekeys import FileKeys
from fsdriver.filesystem.kernel import KernelLink
from fsdriver.filesystem.lines import Lines
from fsdriver.filesystem.openfiles import OpenFiles
from fsdriver.filesystem.prefetch import Prefetch
from fsdriver.filesystem.recorder import Recorder
from fsdriver.filesystem.verifier import Verifier
from fsdriver.identity import Caller, Callers
from fsdriver.nodes.directories import Directories
from fsdriver.nodes.inode import CIPHER, PLAIN, Inode, InodeTable
from fsdriver.nodes.openfile import DirectoryHandle, DropIn, Handle, OpenFile
from fsdriver.nodes.unfinished import UnfinishedFiles
from fsdriver.protocol import Attr, attr_from_stat, replies
from fsdriver.views import Views
from policy import Action, Label, Standing, View

VIEW_NAMES = {PLAIN: View.PLAINTEXT.value, CIPHER: View.CIPHERTEXT.value}

VALID_ALONE = 60.0
VALID_SHARED = 0.5
"""Seconds for which the kernel may believe attributes, and names that mean the same to everybody: directories,
symlinks, device nodes. Regular files' names have 0: they mean another node to another caller, so every walk asks
(docs/decisions/0003). What changes through the other view is invalidated at once; other machines tell nothing."""


def without_setid(mode: int) -> int:
    """A file's permission bits once somebody else has written to it."""
    return mode & ~(stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0))


@dataclass(slots=True)
class Drive:
    """One mounted store. `store` is a descriptor of its top directory."""

    store: int
    inodes: InodeTable
    directories: Directories
    views: Views
    callers: Callers
    keys: FileKeys
    files: OpenFiles
    claims: Claims
    lines: Lines
    recorder: Recorder
    copies: Copies
    prefetch: Prefetch
    verifier: Verifier
    kernel: KernelLink
    now: Callable[[], float]
    unfinished: UnfinishedFiles = field(default_factory=UnfinishedFiles)
    handles: dict[int, Handle | DropIn | DirectoryHandle] = field(default_factory=dict)
    next_fh: Callable[[], int] = field(default_factory=lambda: itertools.count(1).__next__)

    @property
    def epoch(self) -> tuple[int, int]:
        """Another value once a bundle, the login map or a lease took something away: what was decided before it is
        decided anew. It has changed before `Revocation` looks at the handles."""
        return self.views.epoch, self.keys.epoch

    def validity(self, inode: Inode) -> float:
        """Seconds for which the kernel may believe the attributes that it is told now."""
        if not self.claims.active:
            return VALID_ALONE
        # A file may be changed between LOOKUP and OPEN; once it is open, and locked, its size has to be that of now.
        return 0.0 if inode.is_regular else VALID_SHARED

    def stat(self, inode: Inode) -> os.stat_result:
        """The store's facts about `inode`. Errors: NodeVanished."""
        if (file := inode.opened) is not None:
            return os.fstat(file.fd)
        if inode.removed is not None:
            return os.fstat(inode.removed.fd)
        if inode.parent is None:
            return os.fstat(self.store)
        above = self.directories.descriptor(inode.parent)
        try:
            found = os.stat(inode.name, dir_fd=above.fd, follow_symlinks=False)
        except FileNotFoundError:
            raise NodeVanished(f"{inode.name!r} is gone") from None
        if found.st_ino != inode.ino:
            raise NodeVanished(f"{inode.name!r} is another file now")
        return found

    def attributes(self, inode: Inode, view: int, found: os.stat_result) -> Attr:
        """What the caller of `view` sees in stat(2): for plaintext the plain size, without reading the file."""
        if not inode.is_regular or (view == CIPHER and not inode.is_dropin):
            return attr_from_stat(found, inode.ino)
        file = inode.opened
        if file is None or file.sealed is None:
            return attr_from_stat(found, inode.ino, plain_size(found.st_size))
        attr = attr_from_stat(found, inode.ino, file.sealed.size)
        if file.modified_ns is not None:
            seconds, nanoseconds = divmod(file.modified_ns, 1_000_000_000)
            attr = attr._replace(
                mtime=seconds, mtimensec=nanoseconds, ctime=seconds, ctimensec=nanoseconds, blocks=-(-attr.size // 512)
            )
        return attr

    def entry(self, inode: Inode, view: int, found: os.stat_result) -> bytes:
        """The reply that names `inode` for the caller of `view`; the lookup is counted by `InodeTable.remember`."""
        valid = self.validity(inode)
        attr = self.attributes(inode, view, found)
        nodeid = inode.nodeid(view if inode.is_regular else PLAIN)
        return replies.entry(nodeid, attr, 0.0 if inode.is_regular else valid, valid)

    def handle(self, fh: int) -> Handle | DropIn:
        """An open handle on a regular file. Errors: NodeVanished."""
        handle = self.handles.get(fh)
        if handle is None or isinstance(handle, DirectoryHandle):
            raise NodeVanished(f"handle {fh} is not open")
        return handle

    def reserve_name(self, parent: Inode, name: bytes) -> None:
        """Errors: PermissionError for the name that is the drive's own, and for those that are an NFS client's."""
        if (parent is self.inodes.root and name == STATE_DIRECTORY) or is_silly(name):
            raise PermissionError(errno.EACCES, "this name is not for files of the drive")

    def drop_setid(self, file: OpenFile) -> None:
        """A write or truncate by somebody without CAP_FSETID: set-user-id goes, set-group-id where it means one."""
        mode = stat.S_IMODE(os.fstat(file.fd).st_mode)
        if (dropped := without_setid(mode)) != mode:
            os.fchmod(file.fd, dropped)

    def view(self, caller: Caller, inode: Inode) -> int:
        """Which node of a regular file the caller gets: by the file's label as far as it is known, else its place's."""
        standing = self.views.standing(caller, self.views.label_of(inode))
        return PLAIN if standing.view is View.PLAINTEXT else CIPHER

    def require(self, caller: Caller, label: Label | None, action: Action, inode: Inode | None, path: str) -> None:
        """Errors: ViewRefused, and a record says who was refused what."""
        standing = self.views.standing(caller, label)
        if action in standing.allow:
            return
        self.refuse(caller, label, standing.rule, action, inode, path)

    def refuse(
        self, caller: Caller, label: Label | None, rule: str, action: Action, inode: Inode | None, path: str
    ) -> NoReturn:
        """Record a refusal and raise ViewRefused."""
        name = label.qualified if label is not None else "unknown"
        why = f"{action.value} refused by {rule}"
        if caller.why_unlisted:
            why += f"; caller unlisted: {caller.why_unlisted}"
        self.recorder.record("denied", caller, inode, path=path, label=name, rule=rule, detail=why)
        raise ViewRefused(f"{path} ({name}): {why}")

    def plaintext(self, caller: Caller, inode: Inode, header: Header) -> tuple[Label, Standing]:
        """What the header's label gives this caller, if it is plaintext; else the node is the wrong one."""
        inode.identify(header.label, header.file_id)
        label = self.views.bundle.label_by_id(header.label)
        standing = self.views.standing(caller, label)
        if label is None or standing.view is not View.PLAINTEXT:
            raise NodeVanished("the header's label gives this caller another view")
        return label, standing

    def damaged(self, caller: Caller, inode: Inode, exc: Exception) -> None:
        """Record that sealed bytes were not what they should be, or that the store's disk did not give them."""
        if isinstance(exc, ClaimHeld) or (isinstance(exc, OSError) and exc.errno != errno.EIO):
            return
        label = self.views.label_of(inode)
        self.recorder.record(
            "damaged",
            caller,
            inode,
            label=label.qualified if label is not None else "unknown",
            detail=f"{type(exc).__name__}: {exc}",
        )

    def undone(self, event: str, caller: Caller, inode: Inode, path: str, exc: OSError) -> None:
        """Record that the store refused what a record had announced."""
        label = self.views.label_of(inode)
        self.recorder.record(
            "failed",
            caller,
            inode,
            path=path,
            label=label.qualified if label is not None else "unknown",
            detail=f"{event}: {exc.strerror}",
        )

    def truncate(self, file: OpenFile, size: int, asker: Asker) -> None:
        """Give the content of an unlocked file another size. Errors: Revoked; those of a claim."""
        if file.sealed is None:
            raise Revoked("the key of this file was taken away")
        self.files.require_writable(file)
        with self.claims.changing(file, may_wait=asker.may_wait):
            file.sealed.truncate(size)
            file.modified_ns = time.time_ns()
        self.tell_other_view(file.inode, PLAIN)

    def tell_both_views(self, inode: Inode) -> None:
        """Link count, owner or the like changed: both nodes have old attributes. Their pages are as they were."""
        for view in (PLAIN, CIPHER):
            if inode.is_known(view):
                self.kernel.inval_inode(inode.nodeid(view), -1)

    def tell_other_view(self, inode: Inode, view: int) -> None:
        """The kernel's other node of this file has old attributes or pages: forget them."""
        if inode.is_regular and inode.is_known(1 - view):
            self.kernel.inval_inode(inode.nodeid(1 - view))

    def tell_other_view_attributes(self, inode: Inode, view: int) -> None:
        """Mode, owner or times changed through one node: the other has old ones. Its pages are as they were."""
        if inode.is_regular and inode.is_known(1 - view):
            self.kernel.inval_inode(inode.nodeid(1 - view), -1)
