"""A sealed file that comes back: a restore, an attachment, a copy from a stick, put into the drive as it is.

Nothing is taken for sealed because it says so. The bytes are copied aside and verified there, chunk by chunk, so that
neither a forged head nor a write meanwhile brings plaintext into the store. Where the key is not on loan this cannot be
done: such content is stored as it is only if no listed program had a part in it, since then there is no plaintext of
the drive in it.
"""

import errno
import os
import secrets
import stat

from fsdriver.content import MAGIC, FileKey, Header, SealedFile, is_whole
from fsdriver.content.backing import write_all
from fsdriver.errors import FsError, NodeVanished
from fsdriver.filesystem.drive import Drive
from fsdriver.nodes.openfile import DropIn
from policy import Label

_COPY_STEP = 1 << 20


class Unpacking:
    """Puts the inner file in the place of the one that was sealed around it. `incoming` is a descriptor of the corner's
    folder for what is not finished."""

    def __init__(self, drive: Drive, incoming: int) -> None:
        self._drive = drive
        self._incoming = incoming

    def unpack(self, dropin: DropIn, *, certainly: bool) -> None:
        """Settle `dropin` if its content is a whole sealed file of this company, else leave it sealed as content.

        `certainly`: only if its key is here. Errors: OSError (a full disk), NodeVanished.
        """
        sealed = dropin.file.sealed
        assert sealed is not None
        head = sealed.read(0, 4096)
        if len(head) < 4096 or not head.startswith(MAGIC):
            return
        try:
            header = Header.parse(head)
            header.require_company(self._drive.files.company)
            key = self._drive.keys.lent(header)
            is_whole(head, sealed.size, key)
        except FsError:
            return
        label = self._drive.views.bundle.label_by_id(header.label)
        if label is None or (key is None and certainly):
            return
        raised = _higher(dropin.replaced_label, label)
        if raised is not None and key is None:
            return
        temporary = secrets.token_hex(12).encode()
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._incoming)
        placed = False
        try:
            _copy(sealed, fd)
            if self._is_sealed(dropin, fd, head, key, raised):
                self._drive.files.leave_log(header.file_id)
                self._place(dropin, fd, temporary)
                placed = True
        finally:
            os.close(fd)
            if not placed:
                os.unlink(temporary, dir_fd=self._incoming)

    def _is_sealed(self, dropin: DropIn, fd: int, head: bytes, key: FileKey | None, raised: Label | None) -> bool:
        if key is None:
            return not dropin.file.by_listed and os.pread(fd, len(head), 0) == head
        try:
            is_whole(os.pread(fd, len(head), 0), os.fstat(fd).st_size, key)
            inner = SealedFile.open(fd, lambda header: key)
            if not inner.verified:
                inner.verify()
            if raised is not None:
                inner.rewrap(raised.id, (self._drive.keys.wrapped(raised, key, inner.header.file_id),))
        except FsError:
            return False
        return True

    def _place(self, dropin: DropIn, fd: int, temporary: bytes) -> None:
        drive, outer = self._drive, dropin.file
        found = os.fstat(outer.fd)
        os.fchmod(fd, stat.S_IMODE(found.st_mode))
        os.fchown(fd, found.st_uid, found.st_gid)
        os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns))
        if dropin.synced:
            os.fsync(fd)
        directory = drive.directories.descriptor(dropin.parent)
        if os.stat(dropin.name, dir_fd=directory.fd, follow_symlinks=False).st_ino != outer.inode.ino:
            raise NodeVanished("the name went to another file meanwhile")
        os.rename(temporary, dropin.name, src_dir_fd=self._incoming, dst_dir_fd=directory.fd)
        drive.inodes.unlinked(outer.inode, dropin.parent, dropin.name, last=True)
        drive.lines.gone(drive.directories.child_path(dropin.parent, dropin.name))
        drive.kernel.inval_entry(dropin.parent.nodeid(), dropin.name)
        dropin.settled = True
        if dropin.synced:
            os.fsync(directory.fd)


def _higher(replaced: Label | None, own: Label) -> Label | None:
    """The label of the file that was replaced, if it is the higher one: a label does not sink by replacing."""
    return replaced if replaced is not None and replaced.level.rank > own.level.rank else None


def _copy(sealed: SealedFile, fd: int) -> None:
    """The content of `sealed`, holes as holes."""
    size, at = sealed.size, 0
    os.ftruncate(fd, size)
    buffer = memoryview(bytearray(min(size, _COPY_STEP)))
    while at < size:
        try:
            at = sealed.seek(at, os.SEEK_DATA)
            end = sealed.seek(at, os.SEEK_HOLE)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return
            raise
        while at < end and (got := sealed.read_into(at, buffer[: min(len(buffer), end - at)])):
            write_all(fd, buffer[:got], at)
            at += got
