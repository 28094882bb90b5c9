"""Files that programs without the plaintext view put into the drive.

What they write is sealed under the folder's label as it arrives: nothing is stored unsealed, not even for a moment. The
handle's node is known to that handle only; by name everybody, the writer too, sees the sealed file. At the end, content
that is itself a sealed file of this company (a restore, a file mailed back) is stored as it is, under its own label.

O_TRUNC on an existing file is a replacement: it grows in the drive's own corner of the store and takes the name at the
close; a writer that was killed leaves the old file.
"""

import errno
import os
import secrets
import stat
import time

from fsdriver.content import MAGIC, Header, is_whole
from fsdriver.errors import FsError, NodeVanished
from fsdriver.filesystem.asker import Asker
from fsdriver.filesystem.births import Births
from fsdriver.filesystem.closers import holds_for_writing, was_killed
from fsdriver.filesystem.drive import STATE_DIRECTORY, VIEW_NAMES, Drive
from fsdriver.filesystem.replacing import replacing
from fsdriver.nodes.inode import CIPHER, Inode
from fsdriver.nodes.openfile import DropIn, OpenFile
from fsdriver.protocol import abi, events, replies
from policy import Action, Label

INCOMING = b"incoming"
_COPY_STEP = 1 << 20


class DropIns:
    """Makes, fills and ends drop-ins. `corner` is a descriptor of the store's `.grantfs`."""

    def __init__(self, drive: Drive, births: Births, corner: int) -> None:
        self._drive = drive
        self._births = births
        try:
            os.mkdir(INCOMING, 0o700, dir_fd=corner)
        except FileExistsError:
            pass
        self._incoming = os.open(INCOMING, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=corner)
        for leftover in os.listdir(self._incoming):  # of a daemon that died: the names they were for are as they were
            os.unlink(leftover, dir_fd=self._incoming)

    def close(self) -> None:
        os.close(self._incoming)

    # ---- beginning ---------------------------------------------------------------------------------------------

    def create(self, event: events.Create, asker: Asker, parent: Inode, label: Label) -> bytes:
        """CREATE of a new name by a caller who may create here, but not see plaintext."""
        drive = self._drive
        path = drive.directories.child_path(parent, event.name)
        directory = drive.directories.descriptor(parent)
        fd, sealed = self._births.seal_new(event.name, directory.fd, event.mode, event.head, label, asker, path)
        inode = drive.inodes.remember(parent, event.name, os.fstat(fd))
        inode.label_id, inode.file_id = label.id, sealed.header.file_id
        file = drive.files.adopt(inode, fd, sealed)
        dropin = self._begin(file, inode, label, parent, event.name, None, asker, path)
        drive.inodes.count_lookup(dropin.node, CIPHER)
        entry = drive.entry(dropin.node, CIPHER, os.fstat(fd))
        return replies.created(entry, dropin.fh, abi.FOPEN_DIRECT_IO)

    def replace(self, event: events.Open, asker: Asker, inode: Inode, label: Label | None) -> bytes:
        """OPEN with O_TRUNC of an existing file: needs the right to delete it and to create here."""
        drive = self._drive
        assert inode.parent is not None
        path = drive.directories.path(inode)
        drive.require(asker.caller, label, Action.DELETE, inode, path)
        place = drive.views.child_label(inode.parent)
        drive.require(asker.caller, place, Action.CREATE, inode, path)
        found = drive.stat(inode)
        temporary = secrets.token_hex(12).encode()
        fd, sealed = self._births.seal_new(
            temporary,
            self._incoming,
            found.st_mode,
            event.head,
            self._higher(label, place),
            asker,
            path,
            store_path=STATE_DIRECTORY + b"/" + INCOMING + b"/" + temporary,
        )
        os.fchmod(fd, stat.S_IMODE(found.st_mode))
        os.fchown(fd, found.st_uid, found.st_gid)
        fresh = drive.inodes.unplaced(inode.parent, inode.name, os.fstat(fd))
        fresh.label_id, fresh.file_id = sealed.header.label, sealed.header.file_id
        file = drive.files.adopt(fresh, fd, sealed)
        name, parent = inode.name, inode.parent
        dropin = self._begin(file, fresh, place, parent, name, temporary, asker, path, inode.ino)
        return replies.opened(dropin.fh, abi.FOPEN_DIRECT_IO)

    @staticmethod
    def _higher(old: Label | None, place: Label) -> Label:
        """A label does not sink by replacing."""
        return old if old is not None and old.level.rank > place.level.rank else place

    def _begin(
        self,
        file: OpenFile,
        inode: Inode,
        label: Label,
        parent: Inode,
        name: bytes,
        temporary: bytes | None,
        asker: Asker,
        path: str,
        replaced: int = 0,
    ) -> DropIn:
        drive = self._drive
        rule = drive.views.standing(asker.caller, label).rule
        node = drive.inodes.unplaced(parent, name, os.fstat(file.fd))
        node.opened, node.is_dropin = file, True
        dropin = DropIn(drive.next_fh(), file, node, label, parent, name, temporary, asker.caller, path, rule, replaced)
        try:
            drive.recorder.record(
                "create",
                asker.caller,
                inode,
                path=path,
                label=label.qualified,
                view=VIEW_NAMES[CIPHER],
                rule=rule,
                detail="replacing" if temporary is not None else "drop-in",
                durable=label.wait_fsync,
            )
        except BaseException:
            self._discard(dropin)
            self._end(dropin)
            raise
        drive.handles[dropin.fh] = dropin
        return dropin

    # ---- going on ----------------------------------------------------------------------------------------------

    def write(self, dropin: DropIn, event: events.Write) -> int:
        if dropin.settled or dropin.file.sealed is None:
            raise OSError(errno.EIO, "the file was complete and has taken its name")
        dropin.complete = False
        done = dropin.file.sealed.write(event.offset, event.data)
        dropin.file.modified_ns = time.time_ns()
        dropin.bytes_written += done
        return done

    def flush(self, dropin: DropIn, pid: int) -> None:
        """close(2) of one descriptor. If it seems to be the last, a replacement takes its name now, and a whole sealed
        file is unpacked, so that whoever closed finds it in place: nobody waits for `release`."""
        if dropin.settled:
            return
        dropin.file.commit()
        dropin.complete = not was_killed(pid)
        if dropin.temporary is not None:
            if not dropin.complete or holds_for_writing(dropin.replaced, pid, dropin.caller.pid):
                return
            self._take_name(dropin)
        if dropin.bytes_written and self._is_sealed_file(dropin, certainly=True):
            self._unpack(dropin)

    def release(self, dropin: DropIn) -> None:
        """The last descriptor is gone."""
        drive = self._drive
        detail = ""
        try:
            if not dropin.settled:
                dropin.file.commit()
                if dropin.temporary is not None:
                    if not dropin.complete:
                        detail = "its writer died: the file stays as it was"
                        self._discard(dropin)
                        return
                    self._take_name(dropin)
                if dropin.bytes_written and self._is_sealed_file(dropin, certainly=False):
                    self._unpack(dropin)
            if dropin.settled:
                detail = "stored as the sealed file it is"
        finally:
            drive.recorder.record(
                "close",
                dropin.caller,
                dropin.file.inode,
                path=dropin.path,
                label=dropin.label.qualified,
                view=VIEW_NAMES[CIPHER],
                rule=dropin.rule,
                bytes_written=dropin.bytes_written,
                detail=detail,
            )
            self._end(dropin)

    def _take_name(self, dropin: DropIn) -> None:
        """The replacement is complete: it becomes the file of its name."""
        drive = self._drive
        assert dropin.temporary is not None
        directory = drive.directories.descriptor(dropin.parent)
        try:
            there = os.stat(dropin.name, dir_fd=directory.fd, follow_symlinks=False)
        except FileNotFoundError:
            victim = None
        else:
            victim = drive.inodes.remember(dropin.parent, dropin.name, there)
        with replacing(drive, victim, dropin.parent, dropin.name):
            os.rename(dropin.temporary, dropin.name, src_dir_fd=self._incoming, dst_dir_fd=directory.fd)
        dropin.temporary = None
        drive.inodes.placed(dropin.file.inode, dropin.parent, dropin.name)
        drive.files.moved(dropin.file.inode)
        drive.kernel.inval_entry(dropin.parent.nodeid(), dropin.name)

    # ---- a sealed file comes back ------------------------------------------------------------------------------

    def _is_sealed_file(self, dropin: DropIn, *, certainly: bool) -> bool:
        """Whether the content is a whole sealed file of this company. `certainly`: its key is here and its own commit
        says how long it is; otherwise fields and lengths have to do."""
        sealed = dropin.file.sealed
        assert sealed is not None
        head = bytearray(4096)
        if sealed.read_into(0, memoryview(head)) < len(head) or not head.startswith(MAGIC):
            return False
        try:
            header = Header.parse(bytes(head))
            header.require_company(self._drive.files.company)
            verified = is_whole(bytes(head), sealed.size, self._drive.keys.lent(header))
        except FsError:
            return False
        return verified or not certainly

    def _unpack(self, dropin: DropIn) -> None:
        """The inner file takes the place of the one that was sealed around it."""
        drive = self._drive
        outer, sealed = dropin.file, dropin.file.sealed
        assert sealed is not None
        temporary = secrets.token_hex(12).encode()
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._incoming)
        try:
            buffer, done = memoryview(bytearray(_COPY_STEP)), 0
            while got := sealed.read_into(done, buffer):
                os.pwrite(fd, buffer[:got], done)
                done += got
            found = os.fstat(outer.fd)
            os.fchmod(fd, stat.S_IMODE(found.st_mode))
            os.fchown(fd, found.st_uid, found.st_gid)
            os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns))
            directory = drive.directories.descriptor(dropin.parent)
            if os.stat(dropin.name, dir_fd=directory.fd, follow_symlinks=False).st_ino != outer.inode.ino:
                raise NodeVanished("the name went to another file meanwhile")
            os.rename(temporary, dropin.name, src_dir_fd=self._incoming, dst_dir_fd=directory.fd)
        except BaseException:
            os.unlink(temporary, dir_fd=self._incoming)
            raise
        finally:
            os.close(fd)
        drive.inodes.unlinked(outer.inode, dropin.parent, dropin.name, last=True)
        drive.kernel.inval_entry(dropin.parent.nodeid(), dropin.name)
        dropin.settled = True

    # ---- ending ------------------------------------------------------------------------------------------------

    def _discard(self, dropin: DropIn) -> None:
        """What was begun is taken back; a replaced file stays as it was."""
        if dropin.temporary is not None:
            os.unlink(dropin.temporary, dir_fd=self._incoming)
        else:
            directory = self._drive.directories.descriptor(dropin.parent)
            os.unlink(dropin.name, dir_fd=directory.fd)
            self._drive.inodes.unlinked(dropin.file.inode, dropin.parent, dropin.name, last=True)
        dropin.temporary = None

    def _end(self, dropin: DropIn) -> None:
        drive = self._drive
        dropin.node.opened = None
        drive.inodes.closed(dropin.node)
        drive.files.release(dropin.file)
