"""Files that programs without the plaintext view put into the drive.

What they write is sealed under the folder's label as it arrives: nothing is stored unsealed, not even for a moment. The
handle's node is known to that handle only; by name everybody, the writer too, sees the sealed file. At the end, content
that is itself a sealed file of this company (a restore, a file mailed back) is stored as it is, under its own label.

O_TRUNC on an existing file is a replacement: it grows in the drive's own corner of the store and takes the name at the
close; a writer that was killed leaves the old file.

Who has made a file so may open it again and go on while it is no sealed file and nobody else has written to it: some
programs make a file first (mknod) and fill it later, or open it once for every piece.
"""

import errno
import os
import stat
import time
from contextlib import suppress

from fsdriver.content import Header, SealedFile
from fsdriver.errors import NodeVanished, Revoked
from fsdriver.filesystem.asker import Asker
from fsdriver.filesystem.births import Births
from fsdriver.filesystem.closers import holds_for_writing, was_killed
from fsdriver.filesystem.drive import VIEW_NAMES, Drive
from fsdriver.filesystem.filekeys import GivenKey
from fsdriver.filesystem.incoming import Incoming
from fsdriver.filesystem.replacing import replacing
from fsdriver.filesystem.unpacking import Unpacking
from fsdriver.identity import Caller
from fsdriver.nodes.inode import CIPHER, Inode
from fsdriver.nodes.openfile import DropIn, OpenFile
from fsdriver.nodes.unfinished import Unfinished, state_of
from fsdriver.protocol import abi, events, replies
from policy import Action, Label


class DropIns:
    """Makes, fills and ends drop-ins."""

    def __init__(self, drive: Drive, births: Births, incoming: Incoming) -> None:
        self._drive = drive
        self._births = births
        self._replacing: set[DropIn] = set()
        self._incoming = incoming
        self._unpacking = Unpacking(drive, incoming)

    # ---- beginning ---------------------------------------------------------------------------------------------

    def create(self, event: events.Create, asker: Asker, parent: Inode, label: Label) -> bytes:
        """CREATE of a new name by a caller who may create here, but not see plaintext."""
        drive = self._drive
        path = drive.directories.child_path(parent, event.name)
        directory = drive.directories.descriptor(parent)
        fd, sealed = self._births.seal_new(event.name, directory.fd, event.mode, event.head, label, asker, path)
        inode = drive.inodes.remember(parent, event.name, os.fstat(fd))
        inode.identify(label.id, sealed.header.file_id)
        file = drive.files.adopt(inode, fd, sealed)
        dropin = self._begin(file, inode, label, parent, event.name, None, asker, path)
        drive.inodes.count_lookup(dropin.node, CIPHER)
        entry = drive.entry(dropin.node, CIPHER, os.fstat(fd))
        return replies.created(entry, dropin.fh, abi.FOPEN_DIRECT_IO)

    def replace(self, event: events.Open, asker: Asker, replaced: OpenFile, label: Label | None) -> bytes:
        """OPEN with O_TRUNC of an existing file: needs the right to delete it and to create here."""
        drive, inode = self._drive, replaced.inode
        assert inode.parent is not None
        path = drive.directories.path(inode)
        born = self._higher(label, self.require_may_replace(inode, asker, label))
        found = drive.stat(inode)
        temporary = self._incoming.new_name()
        fd, sealed = self._births.seal_new(
            temporary,
            self._incoming.fd,
            found.st_mode,
            event.head,
            born,
            asker,
            path,
            store_path=self._incoming.path(temporary),
        )
        os.fchmod(fd, stat.S_IMODE(found.st_mode))
        os.fchown(fd, found.st_uid, found.st_gid)
        fresh = drive.inodes.unplaced(inode.parent, inode.name, os.fstat(fd))
        fresh.identify(sealed.header.label, sealed.header.file_id)
        file = drive.files.adopt(fresh, fd, sealed)
        name, parent = inode.name, inode.parent
        dropin = self._begin(file, fresh, born, parent, name, temporary, asker, path, replaced, label)
        return replies.opened(dropin.fh, abi.FOPEN_DIRECT_IO)

    def require_may_replace(self, inode: Inode, asker: Asker, label: Label | None) -> Label:
        """The label of its place. Errors: ViewRefused, where the caller may not put another file, of `label` or not, in
        the place of `inode`."""
        drive = self._drive
        assert inode.parent is not None
        path = drive.directories.path(inode)
        drive.require(asker.caller, label, Action.DELETE, inode, path)
        place = drive.views.child_label(inode.parent)
        drive.require(asker.caller, place, Action.CREATE, inode, path)
        return place

    def resume(self, event: events.Open, asker: Asker, file: OpenFile) -> bytes:
        """OPEN for writing, without O_TRUNC, of a file with which the caller may go on. Recorded."""
        drive, inode = self._drive, file.inode
        assert inode.parent is not None
        path = drive.directories.path(inode)
        sealed, left = self.unlocked(file, asker)
        label = drive.views.bundle.label_by_id(sealed.header.label)
        assert label is not None
        standing = drive.views.standing(asker.caller, label)
        drive.recorder.record(
            "open",
            asker.caller,
            inode,
            path=path,
            label=label.qualified,
            view=VIEW_NAMES[CIPHER],
            rule=standing.rule,
            detail="drop-in, going on",
            durable=label.wait_fsync,
        )
        dropin = DropIn(
            fh=drive.next_fh(),
            file=drive.files.share(file),
            node=drive.inodes.unplaced(inode.parent, inode.name, os.fstat(file.fd)),
            label=label,
            parent=inode.parent,
            name=inode.name,
            temporary=None,
            caller=asker.caller,
            path=path,
            rule=standing.rule,
            replaced_label=left.replaced_label,
        )
        drive.handles[dropin.fh] = dropin
        return replies.opened(dropin.fh, abi.FOPEN_DIRECT_IO)

    def unlocked(self, file: OpenFile, asker: Asker) -> tuple[SealedFile, Unfinished]:
        """The content of a file with which its maker goes on, and how it was left.

        Errors: ViewRefused where somebody else has written to it, or its maker may not create here any more; as OPEN.
        """
        drive, inode = self._drive, file.inode
        path = drive.directories.path(inode)
        label = drive.files.label(inode)
        drive.require(asker.caller, label, Action.CREATE, inode, path)
        assert label is not None

        def key_of(header: Header) -> GivenKey:
            if header.label != label.id:
                raise NodeVanished("its label is another one now")
            return drive.keys.of(header, label, asker, Action.CREATE, path)

        sealed = drive.files.unlock(file, path, key_of, asker)
        left = drive.unfinished.by(inode, asker.caller)
        is_open = any(isinstance(handle, DropIn) and handle.file is file for handle in list(drive.handles.values()))
        if left is not None and not file.by_listed and (is_open or state_of(sealed) == left.state):
            return sealed, left
        drive.unfinished.end(inode)
        standing = drive.views.standing(asker.caller, label)
        drive.refuse(asker.caller, label, standing.rule, Action.WRITE, inode, path)

    def settled(self, inode: Inode) -> Inode:
        """The file that a descriptor means whose drop-in was found to be a sealed file: that one has its name now."""
        drive = self._drive
        if inode.opened is None or not inode.opened.settled or inode.parent is None:
            return inode
        outer = inode.opened.inode
        assert outer.parent is not None
        directory = drive.directories.descriptor(outer.parent)
        try:
            found = os.stat(outer.name, dir_fd=directory.fd, follow_symlinks=False)
        except FileNotFoundError:
            return inode
        return drive.inodes.remember(outer.parent, outer.name, found)

    def under_way(self, inode: Inode, caller: Caller) -> OpenFile | None:
        """The open file that a descriptor of `caller` means by the node of `inode`, where that is a drop-in's."""
        if inode.is_dropin:
            files = [inode.opened] if inode.opened is not None else []
        else:
            replacing = list(self._replacing)
            files = [made.file for made in replacing if made.replaced is not None and made.replaced.inode is inode]
        return next((file for file in files if self._drive.unfinished.by(file.inode, caller)), None)

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
        replaced: OpenFile | None = None,
        replaced_label: Label | None = None,
    ) -> DropIn:
        drive = self._drive
        rule = drive.views.standing(asker.caller, label).rule
        node = drive.inodes.unplaced(parent, name, os.fstat(file.fd))
        node.opened, node.is_dropin = file, True
        # The replaced file stays open, so that its inode number is nobody else's when the replacement takes its name.
        held = drive.files.share(replaced) if replaced is not None else None
        dropin = DropIn(drive.next_fh(), file, node, label, parent, name, temporary, asker.caller, path, rule, held)
        dropin.replaced_label = replaced_label
        try:
            detail = "replacing" if temporary is not None else "drop-in"
            self._births.record(inode, label, asker, path, CIPHER, detail)
        except BaseException:
            self._discard(dropin)
            self._end(dropin)
            raise
        self._leave(dropin)
        drive.handles[dropin.fh] = dropin
        if replaced is not None:
            self._replacing.add(dropin)
        return dropin

    # ---- going on ----------------------------------------------------------------------------------------------

    def write(self, dropin: DropIn, event: events.Write, asker: Asker | None, *, may_wait: bool) -> int:
        if dropin.settled:
            raise OSError(errno.EIO, "the file was complete and has taken its name")
        if dropin.file.sealed is None:
            raise Revoked("the key of this file was taken away")
        if asker is None or not asker.caller.why_unlisted:
            dropin.file.by_listed = True
            if asker is not None:
                self._drive.copies.feeds(asker.caller.pid, dropin.path)
        dropin.complete = False
        with self._drive.claims.changing(dropin.file, may_wait=may_wait):
            done = dropin.file.sealed.write(event.offset, event.data)
            dropin.file.modified_ns = time.time_ns()
        dropin.bytes_written += done
        return done

    def flush(self, dropin: DropIn, pid: int) -> None:
        """close(2) of one descriptor. If it seems to be the last, a replacement takes its name now, and a whole sealed
        file is unpacked, so that whoever closed finds it in place: nobody waits for `release`."""
        if dropin.settled or dropin.given_up:
            return
        if dropin.file.sealed is None:
            raise Revoked("the key of this file was taken away")
        dropin.file.commit()
        dropin.complete = not was_killed(pid)
        if dropin.temporary is not None:
            assert dropin.replaced is not None
            if not dropin.complete or holds_for_writing(dropin.replaced.inode.ino, pid, dropin.caller.pid):
                return
            self._take_name(dropin)
        self._leave(dropin)
        if not dropin.given_up and dropin.bytes_written:
            self._unpacking.unpack(dropin, certainly=True)

    def release(self, dropin: DropIn) -> None:
        """The last descriptor is gone."""
        drive = self._drive
        try:
            if not dropin.settled and not dropin.given_up:
                self._complete(dropin)
        except OSError as exc:
            dropin.given_up = f"what was written last is not in the store: {exc.strerror}"
            raise
        finally:
            detail = dropin.given_up or ("stored as the sealed file it is" if dropin.settled else "")
            if dropin.left_out:
                names = b", ".join(dropin.left_out).decode(errors="replace")
                detail += f"; attributes that are not its own left out: {names}"
            try:
                if dropin.temporary is not None:
                    with suppress(OSError):  # what stays there goes at the next mount
                        self._discard(dropin)
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
            finally:
                self._end(dropin)

    def _complete(self, dropin: DropIn) -> None:
        dropin.file.commit()
        if dropin.temporary is not None:
            if dropin.file.sealed is None:
                dropin.given_up = "its key was taken away: the file stays as it was"
            elif not dropin.complete:
                dropin.given_up = "its writer died: the file stays as it was"
            else:
                self._take_name(dropin)
        self._leave(dropin)
        if not dropin.given_up and dropin.bytes_written:
            self._unpacking.unpack(dropin, certainly=False)

    def _leave(self, dropin: DropIn) -> None:
        """What is in the file now is its maker's, who may go on from here."""
        file, unfinished = dropin.file, self._drive.unfinished
        if file.by_listed or file.sealed is None or dropin.given_up:
            unfinished.end(file.inode)
        else:
            unfinished.leave(file.inode, dropin.caller, file.sealed, dropin.replaced_label)

    def _take_name(self, dropin: DropIn) -> None:
        """The replacement is complete: it becomes the file of its name, if that is still a file that it may replace.

        Errors: ViewRefused, when the name went to one that it may not.
        """
        drive = self._drive
        assert dropin.temporary is not None
        directory = drive.directories.descriptor(dropin.parent)
        try:
            there = os.stat(dropin.name, dir_fd=directory.fd, follow_symlinks=False)
        except FileNotFoundError:
            # As with any file: what is written to it after it was removed goes with it.
            dropin.given_up = "the file was removed meanwhile"
            return
        victim = drive.inodes.remember(dropin.parent, dropin.name, there)
        self._require_replaceable(dropin, victim, there)
        with replacing(drive, victim, dropin.parent, dropin.name):
            os.rename(dropin.temporary, dropin.name, src_dir_fd=self._incoming.fd, dst_dir_fd=directory.fd)
        dropin.temporary = None
        drive.inodes.placed(dropin.file.inode, dropin.parent, dropin.name)
        drive.files.moved(dropin.file.inode)
        if dropin.file.sealed is not None:
            drive.lines.left(dropin.file.sealed)
        drive.kernel.inval_entry(dropin.parent.nodeid(), dropin.name)
        if dropin.synced:
            os.fsync(directory.fd)

    def _require_replaceable(self, dropin: DropIn, victim: Inode, there: os.stat_result) -> None:
        """The name may lead to another file than at OPEN. That one is replaced where OPEN would have allowed it, too,
        and it is as open to others as the file that was opened (another replacement of that, for one)."""
        drive = self._drive
        assert dropin.replaced is not None
        if there.st_ino == dropin.replaced.inode.ino:
            return
        assert dropin.file.sealed is not None
        mine = drive.views.bundle.label_by_id(dropin.file.sealed.header.label)
        theirs = drive.files.label(victim) if victim.is_regular else None
        drive.require(dropin.caller, theirs, Action.DELETE, victim, dropin.path)
        own = os.fstat(dropin.file.fd)
        alike = (there.st_mode, there.st_uid, there.st_gid) == (own.st_mode, own.st_uid, own.st_gid)
        if mine is None or theirs is None or theirs.level.rank > mine.level.rank or not alike:
            dropin.given_up = "its name went to another file meanwhile"
            drive.refuse(dropin.caller, theirs, dropin.rule, Action.DELETE, victim, dropin.path)

    # ---- ending ------------------------------------------------------------------------------------------------

    def _discard(self, dropin: DropIn) -> None:
        """What was begun is taken back; a replaced file stays as it was."""
        if dropin.temporary is not None:
            os.unlink(dropin.temporary, dir_fd=self._incoming.fd)
        else:
            directory = self._drive.directories.descriptor(dropin.parent)
            os.unlink(dropin.name, dir_fd=directory.fd)
            self._drive.inodes.unlinked(dropin.file.inode, dropin.parent, dropin.name, last=True)
            self._drive.lines.gone(dropin.path)
        dropin.temporary = None

    def _end(self, dropin: DropIn) -> None:
        drive = self._drive
        self._replacing.discard(dropin)
        dropin.node.opened = None
        drive.inodes.closed(dropin.node)
        try:
            drive.files.release(dropin.file)
        finally:
            if dropin.replaced is not None:
                drive.files.release(dropin.replaced)
