"""A sealed file that comes back: a restore, an attachment, a copy from a stick, put into the drive as it is.

Nothing is taken for sealed because it says so. The bytes are copied aside and verified there, chunk by chunk, so that
neither a forged head nor a write meanwhile brings plaintext into the store. Where the key is not on loan this cannot be
done: such content is stored as it is only if no listed program had a part in it, since then there is no plaintext of
the drive in it.

Extended attributes go the same way: what was set while the file came is sealed around, as content is, and what opens as
the inner file's own takes its place beside that.
"""

import errno
import os
import stat
from collections.abc import Iterator

from fsdriver.content import CHUNK_SIZE, HEADER_SIZE, MAGIC, FileKey, Header, SealedFile, is_whole, xattrs
from fsdriver.content.backing import user_names, write_all
from fsdriver.content.chunks import HOLE, ChunkSealer, word_at
from fsdriver.content.keys import FileKeys
from fsdriver.content.offsets import MARKER_SIZE, OVERHEAD
from fsdriver.errors import FsError, NodeVanished
from fsdriver.filesystem.drive import Drive
from fsdriver.filesystem.incoming import Incoming
from fsdriver.nodes.openfile import DropIn
from policy import Label

_COPY_STEP = 1 << 20


class Unpacking:
    """Puts the inner file in the place of the one that was sealed around it."""

    def __init__(self, drive: Drive, incoming: Incoming) -> None:
        self._drive = drive
        self._incoming = incoming

    def unpack(self, dropin: DropIn, *, certainly: bool) -> None:
        """Settle `dropin` if its content is a whole sealed file of this company, else leave it sealed as content.

        `certainly`: only if its key is here. Errors: OSError (a full disk), NodeVanished.
        """
        with dropin.file.lock:  # several descriptors may be closed at once
            if not dropin.settled:
                self._unpack(dropin, certainly=certainly)

    def _unpack(self, dropin: DropIn, *, certainly: bool) -> None:
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
        if label is None or (key is None and certainly) or _has_gap(sealed, header, key):
            return
        raised = _higher(dropin.replaced_label, label)
        if raised is not None and key is None:
            return
        temporary = self._incoming.new_name()
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._incoming.fd)
        placed = False
        try:
            _copy(sealed, fd)
            if self._is_sealed(dropin, fd, head, key, raised):
                self._carry_attributes(dropin, fd, header, key)
                self._drive.files.leave_log(header.file_id)
                self._place(dropin, fd, temporary)
                placed = True
        finally:
            os.close(fd)
            if not placed:
                os.unlink(temporary, dir_fd=self._incoming.fd)
                self._drive.unfinished.tried(dropin.file.inode)

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

    @staticmethod
    def _carry_attributes(dropin: DropIn, fd: int, header: Header, key: FileKey | None) -> None:
        """Give the inner file the attributes that are its own: those that were set on the drop-in, and then, as after
        O_TRUNC, those of the file it replaces. Without its key what was set is believed; it may be rubbish as its
        content may be. Errors: OSError."""
        sealed = dropin.file.sealed
        assert sealed is not None
        keys = FileKeys.draw(key, header.file_id, header.suite) if key is not None else None

        def is_own(name: bytes, value: bytes) -> bool:
            try:
                if keys is not None:
                    xattrs.open_sealed(keys, header.file_id, name, value)
            except FsError:
                return False
            return len(value) >= xattrs.OVERHEAD

        for name in user_names(dropin.file.fd):
            try:
                value = sealed.open_xattr(name, os.getxattr(dropin.file.fd, name))
            except FsError:
                continue
            if is_own(name, value):
                os.setxattr(fd, name, value)
            else:
                dropin.left_out.append(name)
        if keys is not None and dropin.replaced is not None:
            for name in set(user_names(dropin.replaced.fd)).difference(user_names(fd)):
                if is_own(name, value := os.getxattr(dropin.replaced.fd, name)):
                    os.setxattr(fd, name, value)

    def _place(self, dropin: DropIn, fd: int, temporary: bytes) -> None:
        drive, outer = self._drive, dropin.file
        found = os.fstat(outer.fd)
        os.fchmod(fd, stat.S_IMODE(found.st_mode))
        os.fchown(fd, found.st_uid, found.st_gid)
        os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns))
        if dropin.synced:
            os.fsync(fd)
        parent, name = outer.inode.parent, outer.inode.name  # where it lies now: it may have been renamed
        assert parent is not None
        directory = drive.directories.descriptor(parent)
        if os.stat(name, dir_fd=directory.fd, follow_symlinks=False).st_ino != outer.inode.ino:
            raise NodeVanished("the name went to another file meanwhile")
        os.rename(temporary, name, src_dir_fd=self._incoming.fd, dst_dir_fd=directory.fd)
        drive.inodes.unlinked(outer.inode, parent, name, last=True)
        drive.lines.gone(drive.directories.child_path(parent, name))
        drive.kernel.inval_entry(parent.nodeid(), name)
        outer.settled = True
        drive.unfinished.end(outer.inode)
        if dropin.synced:
            os.fsync(directory.fd)


def _higher(replaced: Label | None, own: Label) -> Label | None:
    """The label of the file that was replaced, if it is the higher one: a label does not sink by replacing."""
    return replaced if replaced is not None and replaced.level.rank > own.level.rank else None


def _has_gap(sealed: SealedFile, header: Header, key: FileKey | None) -> bool:
    """Whether zeros of the content cannot be a hole of the inner file, because no marker says so: it is not all there
    yet. Who writes it piece by piece is not made to wait for copies then. False may be wrong."""
    stride = header.chunk_size + OVERHEAD
    sealer = ChunkSealer(header, FileKeys.draw(key, header.file_id, header.suite)) if key is not None else None
    for start, end in _holes(sealed):
        first, after = max(0, -((start - HEADER_SIZE) // -stride)), (end - HEADER_SIZE) // stride
        if first >= after:
            continue  # no whole slot
        marker = memoryview(bytes(MARKER_SIZE))
        lowest = max(-1, first - 2 - CHUNK_SIZE // stride)  # a hole begins where a chunk around it does
        while first > lowest and not any(marker):
            first -= 1
            marker = memoryview(sealed.read(HEADER_SIZE + first * stride, MARKER_SIZE)) if first >= 0 else marker
        if first < 0:
            return True
        if not any(marker):
            continue  # zeros were written, too, and who knows how many
        if not word_at(marker, 0)[0] & HOLE:
            return True
        try:
            if sealer is not None and first + sealer.open_marker(marker, first) < after:
                return True
        except FsError:
            return True
    return False


def _holes(sealed: SealedFile) -> Iterator[tuple[int, int]]:
    at, size = 0, sealed.size
    while at < size and (start := sealed.seek(at, os.SEEK_HOLE)) < size:
        try:
            at = sealed.seek(start, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno != errno.ENXIO:
                raise
            at = size
        yield start, at


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
