"""MKDIR, RMDIR, UNLINK, RENAME, LINK, SYMLINK, MKNOD: names come and go, as the labels on both sides allow.

Hard links and moves change no label. A file moved over another keeps the higher of the two labels, and a directory
that a label's pattern names stays where it is until the policy says otherwise.
"""

import errno
import os
import stat

from fsdriver.content.backing import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2
from fsdriver.errors import LabelBoundary, NodeVanished
from fsdriver.filesystem.asker import Asker
from fsdriver.filesystem.births import Births
from fsdriver.filesystem.drive import Drive
from fsdriver.filesystem.removing import remove_directory
from fsdriver.filesystem.replacing import gone, replacing
from fsdriver.nodes.directories import Descriptor
from fsdriver.nodes.inode import PLAIN, Inode
from fsdriver.protocol import events, replies
from policy import Action, Label

KEY_PER_FILE = "key-per-file"
"""What a record names as the rule where a file would have to take a label whose keys are the server's own."""


def _is_recorded(event: str, inode: Inode) -> bool:
    """Of files everything, of directories that they move with all that is in them."""
    return inode.is_regular or (event == "rename" and inode.is_directory)


class Names:
    """Everything that changes a directory."""

    def __init__(self, drive: Drive, births: Births) -> None:
        self._drive = drive
        self._births = births

    # ---- coming ------------------------------------------------------------------------------------------------

    def mkdir(self, event: events.Mkdir, asker: Asker) -> bytes:
        parent, fd = self._place(event.head.nodeid, event.name)
        self._require_create(asker, parent, event.name)
        os.mkdir(event.name, event.mode & 0o7777, dir_fd=fd.fd)
        return self._own(event, parent, fd.fd)

    def symlink(self, event: events.Symlink, asker: Asker) -> bytes:
        parent, fd = self._place(event.head.nodeid, event.name)
        self._require_create(asker, parent, event.name)
        os.symlink(event.target, event.name, dir_fd=fd.fd)
        return self._own(event, parent, fd.fd)

    def mknod(self, event: events.Mknod, asker: Asker) -> bytes:
        """A regular file is born sealed, like CREATE's; the others are the store's own."""
        parent, fd = self._place(event.head.nodeid, event.name)
        if stat.S_ISREG(event.mode):
            return self._births.mknod(event, asker)
        self._require_create(asker, parent, event.name)
        os.mknod(event.name, event.mode, event.rdev, dir_fd=fd.fd)
        return self._own(event, parent, fd.fd)

    def link(self, event: events.Link, asker: Asker) -> bytes:
        drive = self._drive
        inode = drive.inodes.get(event.oldnodeid)
        parent, fd = self._place(event.head.nodeid, event.name)
        self._require_create(asker, parent, event.name)
        if inode.parent is None:
            raise OSError(errno.EPERM, "the root has no other name")
        if inode.is_regular:
            drive.require(asker.caller, drive.files.label(inode), Action.RENAME, inode, drive.directories.path(inode))
        source = drive.directories.descriptor(inode.parent)
        if os.stat(inode.name, dir_fd=source.fd, follow_symlinks=False).st_ino != inode.ino:
            raise NodeVanished(f"{inode.name!r} is another file now")
        other = drive.directories.path(inode)
        self._record("create", asker, inode, parent, event.name, detail=f"another name of {other}")
        try:
            os.link(inode.name, event.name, src_dir_fd=source.fd, dst_dir_fd=fd.fd, follow_symlinks=False)
        except OSError as exc:
            self._undone("create", asker, inode, parent, event.name, exc)
            raise
        found = os.stat(event.name, dir_fd=fd.fd, follow_symlinks=False)
        view = event.oldnodeid & 1
        inode = drive.inodes.remember(parent, event.name, found)
        drive.inodes.count_lookup(inode, view)
        drive.lines.gone(drive.directories.path(inode))  # of a file that was there before
        drive.tell_both_views(inode)
        return drive.entry(inode, view, found)

    def _own(self, event: events.Mkdir | events.Symlink | events.Mknod, parent: Inode, fd: int) -> bytes:
        """What was just made belongs to the caller, as if the caller had made it."""
        drive = self._drive
        drive.files.give_to(event.head, event.name, fd)
        found = os.stat(event.name, dir_fd=fd, follow_symlinks=False)
        inode = drive.inodes.remember(parent, event.name, found)
        drive.inodes.count_lookup(inode, PLAIN)
        return drive.entry(inode, PLAIN, found)

    # ---- going -------------------------------------------------------------------------------------------------

    def unlink(self, event: events.Unlink, asker: Asker) -> bytes:
        drive = self._drive
        parent, fd = self._place(event.head.nodeid, event.name)
        found = os.stat(event.name, dir_fd=fd.fd, follow_symlinks=False)
        inode = drive.inodes.remember(parent, event.name, found)
        self._require_delete(asker, inode, parent, event.name)
        self._record("delete", asker, inode, parent, event.name)
        try:
            os.unlink(event.name, dir_fd=fd.fd)
        except OSError as exc:
            self._undone("delete", asker, inode, parent, event.name, exc)
            raise
        gone(drive, inode, parent, event.name, last=found.st_nlink <= 1)
        return replies.EMPTY

    def rmdir(self, event: events.Rmdir, asker: Asker) -> bytes:
        drive = self._drive
        parent, fd = self._place(event.head.nodeid, event.name)
        path = drive.directories.child_path(parent, event.name)
        self._require_no_boundary(path)
        drive.require(asker.caller, drive.views.child_label(parent), Action.DELETE, None, path)
        found = os.stat(event.name, dir_fd=fd.fd, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory")
        inode = drive.inodes.remember(parent, event.name, found)
        last = drive.directories.descriptor(inode)
        remove_directory(event.name, fd.fd, last, asker)
        drive.directories.removed(inode, last)
        gone(drive, inode, parent, event.name, last=True)
        return replies.EMPTY

    # ---- moving ------------------------------------------------------------------------------------------------

    def rename(self, event: events.Rename, asker: Asker) -> bytes:
        """rename(2) and renameat2(2) with NOREPLACE or EXCHANGE."""
        if event.flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise OSError(errno.EINVAL, "no such kind of rename here")
        drive = self._drive
        parent, fd = self._place(event.head.nodeid, event.name)
        target_parent, target_fd = self._place(event.newdir, event.newname)
        found = os.stat(event.name, dir_fd=fd.fd, follow_symlinks=False)
        inode = drive.inodes.remember(parent, event.name, found)
        try:
            there = os.stat(event.newname, dir_fd=target_fd.fd, follow_symlinks=False)
        except FileNotFoundError:
            victim = None
        else:
            victim = drive.inodes.remember(target_parent, event.newname, there)
        if victim is not None and event.flags == RENAME_NOREPLACE:
            raise FileExistsError(errno.EEXIST, "the new name is taken")
        if victim is inode:
            return replies.EMPTY  # two names of one file: rename(2) does nothing
        self._require_move(asker, inode, parent, event.name, target_parent, event.newname)
        if victim is not None:
            if event.flags == RENAME_EXCHANGE:
                self._require_move(asker, victim, target_parent, event.newname, parent, event.name)
            else:
                self._require_delete(asker, victim, target_parent, event.newname)
                self._keep_higher_label(asker, inode, victim)
        for moving in (inode, victim) if event.flags == RENAME_EXCHANGE and victim is not None else (inode,):
            if moving.opened is not None:
                moving.opened.commit()
        if victim is not None and event.flags != RENAME_EXCHANGE:
            self._record("delete", asker, victim, target_parent, event.newname)
        path_of = drive.directories.child_path
        self._record("rename", asker, inode, parent, event.name, to=path_of(target_parent, event.newname))
        if victim is not None and event.flags == RENAME_EXCHANGE:
            self._record("rename", asker, victim, target_parent, event.newname, to=path_of(parent, event.name))
        replaced = victim if event.flags != RENAME_EXCHANGE else None
        try:
            with replacing(drive, replaced, target_parent, event.newname):
                renameat2(fd.fd, event.name, target_fd.fd, event.newname, event.flags)
        except OSError as exc:
            self._undone("rename", asker, inode, parent, event.name, exc)
            if victim is not None:
                what = "rename" if event.flags == RENAME_EXCHANGE else "delete"
                self._undone(what, asker, victim, target_parent, event.newname, exc)
            raise
        moved = [(inode, target_parent, event.newname)]
        if victim is not None and event.flags == RENAME_EXCHANGE:
            moved.append((victim, parent, event.name))
        for one, directory, name in moved:
            drive.inodes.moved(one, directory, name)
        if any(one.is_directory for one, _, _ in moved):
            drive.directories.renamed()
        for one, _, _ in moved:
            drive.files.moved(one)
        old, new = path_of(parent, event.name), path_of(target_parent, event.newname)
        if replaced is None and victim is not None:
            drive.lines.exchanged(old, new, folders=(inode.is_directory, victim.is_directory))
        else:
            drive.lines.moved(old, new, folder=inode.is_directory)
        return replies.EMPTY

    def _record(
        self, event: str, asker: Asker, inode: Inode, parent: Inode, name: bytes, *, to: str = "", detail: str = ""
    ) -> None:
        """Before it happens: what cannot be recorded is not done."""
        drive = self._drive
        if _is_recorded(event, inode):
            label = self._label_of_file_or_place(inode, parent)
            standing = drive.views.standing(asker.caller, label)
            drive.recorder.record(
                event,
                asker.caller,
                inode,
                path=drive.directories.child_path(parent, name),
                label=label.qualified if label is not None else "unknown",
                view=standing.view.value,
                rule=standing.rule,
                to=to,
                detail=detail,
            )

    def _undone(self, event: str, asker: Asker, inode: Inode, parent: Inode, name: bytes, exc: OSError) -> None:
        """Of what is recorded before it happens, and did not."""
        if _is_recorded(event, inode):
            self._drive.undone(event, asker.caller, inode, self._drive.directories.child_path(parent, name), exc)

    def _keep_higher_label(self, asker: Asker, inode: Inode, victim: Inode) -> None:
        """A label does not sink by saving: the file that takes a name takes the higher label of the two with it."""
        if not (inode.is_regular and victim.is_regular):
            return
        drive = self._drive
        mine, theirs = drive.files.label(inode), drive.files.label(victim)
        if mine is None or theirs is None or mine.id == theirs.id or theirs.level.rank <= mine.level.rank:
            return
        if theirs.per_file:
            # Only the server can wrap a key with this label's, and it gives keys to files that are born with the label.
            self._drive.refuse(
                asker.caller, theirs, KEY_PER_FILE, Action.RENAME, inode, self._drive.directories.path(inode)
            )
        self._births.relabel(inode, theirs, asker)

    # ---- who may -----------------------------------------------------------------------------------------------

    def _place(self, nodeid: int, name: bytes) -> tuple[Inode, Descriptor]:
        drive = self._drive
        parent = drive.inodes.get(nodeid)
        drive.reserve_name(parent, name)
        return parent, drive.directories.descriptor(parent)

    def _require_create(self, asker: Asker, parent: Inode, name: bytes) -> None:
        drive = self._drive
        path = drive.directories.child_path(parent, name)
        drive.require(asker.caller, drive.views.child_label(parent), Action.CREATE, None, path)

    def _require_no_boundary(self, path: str) -> None:
        if self._drive.views.bundle.is_boundary(path):
            raise LabelBoundary(f"{path}: a label's pattern names this directory; change the policy first")

    def _label_of_file_or_place(self, inode: Inode, parent: Inode) -> Label | None:
        return self._drive.files.label(inode) if inode.is_regular else self._drive.views.child_label(parent)

    def _require_delete(self, asker: Asker, inode: Inode, parent: Inode, name: bytes) -> None:
        drive = self._drive
        label = self._label_of_file_or_place(inode, parent)
        path = drive.directories.child_path(parent, name)
        if inode.is_directory:
            self._require_no_boundary(path)
        drive.require(asker.caller, label, Action.DELETE, inode, path)

    def _require_move(
        self, asker: Asker, inode: Inode, parent: Inode, name: bytes, target_parent: Inode, newname: bytes
    ) -> None:
        drive = self._drive
        path = drive.directories.child_path(parent, name)
        if inode.is_directory:
            self._require_no_boundary(path)
        drive.require(asker.caller, self._label_of_file_or_place(inode, parent), Action.RENAME, inode, path)
        if target_parent is not parent:
            self._require_create(asker, target_parent, newname)
