"""CREATE and MKNOD of regular files: a file is sealed before anybody can see its name.

A caller with the plaintext view gets its content's handle. A caller without one makes a drop-in (`dropins`).
"""

import errno
import os
import secrets
import stat

from fsdriver.content import Header, RedoLog, SealedFile
from fsdriver.errors import NodeVanished, ViewRefused
from fsdriver.filesystem.asker import Asker
from fsdriver.filesystem.drive import VIEW_NAMES, Drive
from fsdriver.filesystem.filekeys import GivenKey
from fsdriver.nodes.inode import CIPHER, PLAIN, Inode
from fsdriver.nodes.openfile import OpenFile
from fsdriver.protocol import InHeader, events
from policy import Action, Label

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _new_file(name: bytes, directory: int, mode: int) -> tuple[int, bool]:
    """An empty file, and whether it is called `name` already. A file without a name is given it once it is sealed: who
    is killed on the way leaves nothing. Not every filesystem has that (NFS has not). Errors: OSError."""
    try:
        return os.open(b".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, mode, dir_fd=directory), False
    except OSError as exc:
        if exc.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
    return os.open(name, _FLAGS, mode, dir_fd=directory), True


class Births:
    """Makes sealed files."""

    def __init__(self, drive: Drive, company: bytes, redo: RedoLog) -> None:
        self._drive = drive
        self._company = company
        self._redo = redo

    def seal_new(
        self,
        name: bytes,
        directory: int,
        mode: int,
        head: InHeader,
        label: Label,
        asker: Asker,
        path: str,
        *,
        store_path: bytes = b"",
    ) -> tuple[int, SealedFile]:
        """A new sealed file called `name` in the directory behind `directory`, owned by the caller, empty.

        `path` is where it will lie in the drive; `store_path` where it lies now, if that is elsewhere.

        Errors: FileExistsError; MustWait and the lease errors before anything was made.
        """
        self._drive.files.require_room()
        file_id = secrets.token_bytes(16)
        remember = None if label.per_file else self._drive.files.verified.remembering()
        key, slot = self._drive.keys.born(label, file_id, asker, path)
        fd, named = _new_file(name, directory, stat.S_IMODE(mode))
        try:
            self._drive.files.give_to(head, fd, directory)
            if mode & (stat.S_ISUID | stat.S_ISGID):
                os.fchmod(fd, stat.S_IMODE(mode))  # chown(2) took these bits away
            sealed = SealedFile.create(
                fd,
                file_key=key,
                file_id=file_id,
                company=self._company,
                label=label.id,
                slots=(slot,),
                redo=self._redo,
                path=store_path or os.fsencode(path.lstrip("/")),
                made=remember,
            )
            if not named:
                os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory)
        except BaseException:
            os.close(fd)
            if named:
                os.unlink(name, dir_fd=directory)
            raise
        return fd, sealed

    def plain(self, head: InHeader, parent: Inode, name: bytes, mode: int, label: Label, asker: Asker) -> OpenFile:
        """A new file in the plaintext view, recorded. The caller holds one reference to the open file."""
        drive = self._drive
        path = drive.directories.child_path(parent, name)
        directory = drive.directories.descriptor(parent)
        fd, sealed = self.seal_new(name, directory.fd, mode, head, label, asker, path)
        inode = drive.inodes.remember(parent, name, os.fstat(fd))
        inode.identify(label.id, sealed.header.file_id)
        file = drive.files.adopt(inode, fd, sealed)
        try:
            self.record(inode, label, asker, path, PLAIN)
        except BaseException:
            os.unlink(name, dir_fd=directory.fd)
            drive.inodes.unlinked(inode, parent, name, last=True)
            drive.lines.gone(path)
            drive.files.release(file)
            raise
        return file

    def record(self, inode: Inode, label: Label, asker: Asker, path: str, view: int, detail: str = "") -> None:
        """That a file was made. Errors: SpoolFailed; it must not stay then."""
        self._drive.recorder.record(
            "create",
            asker.caller,
            inode,
            path=path,
            label=label.qualified,
            view=VIEW_NAMES[view],
            rule=self._drive.views.standing(asker.caller, label).rule,
            detail=detail,
            durable=label.wait_fsync,
        )

    def mknod(self, event: events.Mknod, asker: Asker) -> bytes:
        """A regular file by mknod(2): made and closed again."""
        drive = self._drive
        parent = drive.inodes.get(event.head.nodeid)
        label = drive.views.child_label(parent)
        path = drive.directories.child_path(parent, event.name)
        drive.require(asker.caller, label, Action.CREATE, None, path)
        file = self.plain(event.head, parent, event.name, event.mode, label, asker)
        inode = file.inode
        try:
            view = drive.view(asker.caller, inode)
            if view == CIPHER and file.sealed is not None:
                drive.unfinished.leave(inode, asker.caller, file.sealed)
            drive.inodes.count_lookup(inode, view)
            return drive.entry(inode, view, os.fstat(file.fd))
        finally:
            drive.files.release(file)

    def relabel(self, inode: Inode, label: Label, asker: Asker) -> None:
        """Give a file another label: its key is wrapped anew, its content is not touched. Recorded.

        Errors: MustWait and the key errors; ViewRefused where the caller sees no plaintext of either label;
        NodeVanished where another machine gives it a label, too.
        """
        drive = self._drive
        path = drive.directories.path(inode)
        with drive.files.borrowed(inode) as file:
            before = drive.files.label(inode)
            if before is None:
                raise ViewRefused(f"{path}: its label is unknown, so it cannot be given another one")

            def key_of(header: Header) -> GivenKey:
                _require_label(inode, header, before)
                return drive.keys.of(header, before, asker, Action.WRITE, path)

            sealed = drive.files.unlock(file, path, key_of, asker)
            key = key_of(sealed.header).unwrap()
            drive.files.require_writable(file)
            with drive.claims.changing(file, may_wait=asker.may_wait):
                _require_label(inode, sealed.header, before)
                sealed.rewrap(label.id, (drive.keys.wrapped(label, key, sealed.header.file_id),))
            inode.label_id = label.id
        drive.recorder.record(
            "relabel",
            asker.caller,
            inode,
            path=path,
            label=label.qualified,
            generation=sealed.generation,
            detail=f"was {before.qualified}; the file took the place of one with the higher label",
        )


def _require_label(inode: Inode, header: Header, label: Label) -> None:
    """Errors: NodeVanished where the file has another one by now: then it is decided anew what may become of it."""
    if header.label != label.id:
        inode.label_id, inode.file_id = header.label, header.file_id
        raise NodeVanished("another machine has given it another label")
