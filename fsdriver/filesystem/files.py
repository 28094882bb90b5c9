"""OPEN, CREATE, READ, WRITE and what else goes through a handle on a regular file.

The file's own header decides at OPEN, whatever its place suggested at LOOKUP; where the two differ the node is stale
and the kernel looks the name up again. READ and WRITE check the caller again: a descriptor that was inherited or passed
on serves only who may see plaintext. The record of an open is in the spool before the open is answered.
"""

import errno
import os
import time

from fsdriver.content import FileKey, Header, SealedFile
from fsdriver.errors import (
    ChunkForged,
    FileDamaged,
    FormatUnknown,
    HeaderDamaged,
    NodeVanished,
    NotSupported,
    OtherCompany,
    Revoked,
)
from fsdriver.filesystem.asker import Asker
from fsdriver.filesystem.births import Births
from fsdriver.filesystem.drive import VIEW_NAMES, Drive
from fsdriver.filesystem.dropins import DropIns
from fsdriver.filesystem.locking import Locking
from fsdriver.identity import Caller
from fsdriver.nodes.inode import CIPHER, PLAIN, Inode
from fsdriver.nodes.openfile import DropIn, Handle, OpenFile
from fsdriver.protocol import abi, events, replies
from policy import Action, Label, Standing, View

_DAMAGE = (ChunkForged, FileDamaged, FormatUnknown, HeaderDamaged, OtherCompany)
_COPY_STEP = 1 << 20
_COPY_MAX = 64 << 20
"""Bytes one COPY_FILE_RANGE moves at most: the caller asks again for the rest, and can be interrupted between."""


class Files:
    """Handles on regular files."""

    def __init__(self, drive: Drive, births: Births, dropins: DropIns, locking: Locking) -> None:
        self._drive = drive
        self._births = births
        self._dropins = dropins
        self._locking = locking

    # ---- opening -----------------------------------------------------------------------------------------------

    def open(self, event: events.Open, asker: Asker) -> bytes:
        drive = self._drive
        inode = drive.inodes.get(event.head.nodeid)
        if not inode.is_regular:
            raise OSError(errno.EINVAL, "not a regular file")
        begin = time.monotonic()
        file = drive.files.acquire(inode)
        try:
            if event.head.nodeid & 1 == PLAIN:
                return self._open_plain(event, asker, file, begin)
            return self._open_cipher(event, asker, file)
        except _DAMAGE as exc:
            self._damaged(asker.caller, inode, exc)
            raise
        finally:
            drive.files.release(file)  # a handle that was made holds a reference of its own

    def _open_plain(self, event: events.Open, asker: Asker, file: OpenFile, begin: float) -> bytes:
        drive = self._drive
        inode = file.inode
        mode = event.flags & os.O_ACCMODE
        writing = mode != os.O_RDONLY or bool(event.flags & os.O_TRUNC)
        action = Action.WRITE if writing else Action.READ
        path = drive.directories.path(inode)

        def key_of(header: Header) -> FileKey:
            label, _ = self._plaintext(asker.caller, inode, header)
            return drive.keys.of(header, label, asker, action, path)

        self._drop_stale_state(file)
        fresh = file.sealed is None
        sealed = drive.files.unlock(file, key_of, may_wait=asker.may_wait)
        if fresh and inode.parent is not None:
            drive.prefetch.waited(inode.parent, inode.name, time.monotonic() - begin)
        label, standing = self._plaintext(asker.caller, inode, sealed.header)
        if mode != os.O_WRONLY and Action.READ not in standing.allow:
            drive.refuse(asker.caller, label, standing.rule, Action.READ, inode, path)
        if writing and Action.WRITE not in standing.allow:
            drive.refuse(asker.caller, label, standing.rule, Action.WRITE, inode, path)
        if mode != os.O_RDONLY and not file.writable:
            raise PermissionError(errno.EACCES, "the store does not let the drive write this file")
        drive.recorder.record(
            "open",
            asker.caller,
            inode,
            path=path,
            label=label.qualified,
            generation=sealed.generation,
            view=VIEW_NAMES[PLAIN],
            rule=standing.rule,
            detail="truncated" if event.flags & os.O_TRUNC and sealed.size else "",
            durable=label.wait_fsync,
        )
        if event.flags & os.O_TRUNC and sealed.size:
            self._truncate(file, 0)
        handle = self._handle(file, PLAIN, asker.caller, label, standing, mode, path)
        flags = self._open_flags(file, label, mode)
        if handle.readable and flags & abi.FOPEN_KEEP_CACHE:
            drive.copies.reads(handle)  # what the kernel has cached is read without a word to us
        return replies.opened(handle.fh, flags)

    def _plaintext(self, caller: Caller, inode: Inode, header: Header) -> tuple[Label, Standing]:
        """What the header's label gives this caller, if it is plaintext; else the node is the wrong one."""
        drive = self._drive
        inode.label_id, inode.file_id = header.label, header.file_id
        label = drive.views.bundle.label_by_id(header.label)
        standing = drive.views.standing(caller, label)
        if label is None or standing.view is not View.PLAINTEXT:
            raise NodeVanished("the header's label gives this caller another view")
        return label, standing

    def _drop_stale_state(self, file: OpenFile) -> None:
        """Somebody else may have changed the store's file: believe nothing that was kept, in the kernel or here. While
        writes of our own are under way its times say nothing."""
        inode = file.inode
        if file.sealed is not None and file.sealed.dirty:
            return
        found = os.fstat(file.fd)
        if inode.store_ctime == found.st_ctime_ns:
            return
        inode.commit_cached = None
        if file.sealed is not None:
            file.sealed.recheck()
            inode.store_ctime = found.st_ctime_ns

    def _open_flags(self, file: OpenFile, label: Label, mode: int) -> int:
        """How the kernel treats the handle: its pages are kept while they are those of the commit we know."""
        inode = file.inode
        assert file.sealed is not None
        # A handle that cannot write has nothing to flush; locks taken through it go with RELEASE.
        flags = abi.FOPEN_NOFLUSH if mode == os.O_RDONLY else 0
        if label.recheck == "read" or file.refused:
            return flags | abi.FOPEN_DIRECT_IO
        if inode.commit_cached == (file.sealed.generation, file.sealed.sum):
            flags |= abi.FOPEN_KEEP_CACHE
        else:
            inode.commit_cached = (file.sealed.generation, file.sealed.sum)
        return flags

    def _open_cipher(self, event: events.Open, asker: Asker, file: OpenFile) -> bytes:
        """The sealed bytes as they lie in the store, for who may have them; O_TRUNC means a replacement."""
        drive = self._drive
        inode = file.inode
        path = drive.directories.path(inode)
        label, standing = self._cipher_standing(asker.caller, inode, file)
        if standing.view is View.PLAINTEXT:
            raise NodeVanished("the header's label gives this caller plaintext")
        mode = event.flags & os.O_ACCMODE
        if event.flags & os.O_TRUNC:
            return self._dropins.replace(event, asker, file, label)
        if mode != os.O_RDONLY:
            drive.refuse(asker.caller, label, standing.rule, Action.WRITE, inode, path)
        if standing.view is View.NONE or Action.READ not in standing.allow:
            drive.refuse(asker.caller, label, standing.rule, Action.READ, inode, path)
        file.commit()  # what a listed program has written so far is sealed before it is shown
        drive.recorder.record(
            "open",
            asker.caller,
            inode,
            path=path,
            label=label.qualified if label is not None else "unknown",
            view=VIEW_NAMES[CIPHER],
            rule=standing.rule,
            durable=label is not None and label.wait_fsync,
        )
        handle = self._handle(file, CIPHER, asker.caller, label, standing, mode, path)
        return replies.opened(handle.fh, abi.FOPEN_DIRECT_IO | abi.FOPEN_NOFLUSH)

    def _cipher_standing(self, caller: Caller, inode: Inode, file: OpenFile) -> tuple[Label | None, Standing]:
        drive = self._drive
        try:
            header = drive.files.header(file)
            header.require_company(drive.files.company)
        except _DAMAGE:
            assert inode.parent is not None
            label: Label | None = drive.views.child_label(inode.parent)  # the bytes may be seen, to be repaired
        else:
            inode.label_id, inode.file_id = header.label, header.file_id
            label = drive.views.label_of(inode)
        return label, drive.views.standing(caller, label)

    def create(self, event: events.Create, asker: Asker) -> bytes:
        drive = self._drive
        parent = drive.inodes.get(event.head.nodeid)
        drive.reserve_name(parent, event.name)
        label = drive.views.child_label(parent)
        standing = drive.views.standing(asker.caller, label)
        if Action.CREATE not in standing.allow:
            path = drive.directories.child_path(parent, event.name)
            drive.refuse(asker.caller, label, standing.rule, Action.CREATE, None, path)
        try:
            if standing.view is not View.PLAINTEXT:
                return self._dropins.create(event, asker, parent, label)
            label = self._label_at_birth(asker.caller, label, parent, event.name)
            standing = drive.views.standing(asker.caller, label)
            file = self._births.plain(event.head, parent, event.name, event.mode, label, asker)
        except FileExistsError:
            if event.flags & os.O_EXCL:
                raise
            raise NodeVanished("somebody else made the file meanwhile") from None
        try:
            inode = file.inode
            handle = self._handle(
                file, PLAIN, asker.caller, label, standing, event.flags & os.O_ACCMODE, drive.directories.path(inode)
            )
        finally:
            drive.files.release(file)
        drive.inodes.count_lookup(inode, PLAIN)
        entry = drive.entry(inode, PLAIN, os.fstat(file.fd))
        flags = abi.FOPEN_DIRECT_IO if label.recheck == "read" else abi.FOPEN_KEEP_CACHE
        return replies.created(entry, handle.fh, flags)

    def _label_at_birth(self, caller: Caller, place: Label, parent: Inode, name: bytes) -> Label:
        """A new file's label: its place's, unless its maker has the plaintext of a higher one open and that label's
        `save-lower:` says that it may not sink."""
        held = self._drive.copies.highest_held(caller.pid)
        if held is None or held.level.rank <= place.level.rank or held.save_lower == "record":
            return place  # what the process has read so far is told when it closes: a `copy` record
        if held.save_lower == "deny":
            path = self._drive.directories.child_path(parent, name)
            self._drive.refuse(caller, held, "save-lower", Action.CREATE, None, path)
        return held

    def _handle(
        self, file: OpenFile, view: int, caller: Caller, label: Label | None, standing: Standing, mode: int, path: str
    ) -> Handle:
        drive = self._drive
        handle = Handle(
            fh=drive.next_fh(),
            file=drive.files.share(file),
            view=view,
            caller=caller,
            label=label,
            standing=standing,
            readable=mode != os.O_WRONLY,
            writable=mode != os.O_RDONLY,
            path=path,
        )
        file.handles.add(handle)
        drive.handles[handle.fh] = handle
        if view == PLAIN:
            drive.copies.opens(handle)
            drive.verifier.opened(handle)
        if view == PLAIN and not self._still_given(handle):
            del drive.handles[handle.fh]
            drive.copies.closes(handle)
            file.handles.discard(handle)
            drive.files.release(file)
            raise Revoked("the right to this file was taken away while it was being opened")
        return handle

    def _still_given(self, handle: Handle) -> bool:
        """What was decided before a handle could be seen, looked at again now that `Revocation` sees it."""
        drive, label = self._drive, handle.label
        assert label is not None
        standing = drive.views.standing(handle.caller, drive.views.bundle.label_by_id(label.id))
        return standing.view is View.PLAINTEXT and (label.per_file or drive.keys.holds(label))

    # ---- content -----------------------------------------------------------------------------------------------

    def read(self, event: events.Read, asker: Asker, out: memoryview) -> int:
        """Up to `event.size` bytes into `out`; fewer only at the end of the file."""
        handle = self._drive.handle(event.fh)
        if isinstance(handle, DropIn):
            raise PermissionError(errno.EACCES, "what is dropped in cannot be read back through its own handle")
        if handle.view == CIPHER:
            if handle.revoked:
                raise Revoked("the right to read this file was taken away")
            done = os.preadv(handle.file.fd, [out[: event.size]], event.offset)
        else:
            self._check(handle, asker, Action.READ)
            sealed = handle.file.sealed
            if sealed is None:
                raise Revoked("the key of this file was taken away")
            try:
                done = sealed.read_into(event.offset, out[: event.size])
            except _DAMAGE as exc:
                self._damaged(asker.caller, handle.file.inode, exc)
                raise
            if handle.file.refused:
                handle.file.inode.commit_cached = None
                self._drive.kernel.inval_inode(handle.file.inode.nodeid(PLAIN))
        if not handle.bytes_read and done:
            self._drive.copies.reads(handle)
        handle.bytes_read += done
        return done

    def write(self, event: events.Write, asker: Asker | None) -> bytes:
        """`asker` is None for dirty pages of a mapping, which belong to the handle's opener."""
        handle = self._drive.handle(event.fh)
        if isinstance(handle, DropIn):
            return replies.written(self._dropins.write(handle, event, asker))
        if handle.view == CIPHER:
            raise PermissionError(errno.EACCES, "sealed bytes cannot be changed in place")
        if asker is not None:
            self._check(handle, asker, Action.WRITE)
            if asker.caller.pid != handle.caller.pid:
                self._drive.copies.feeds(asker.caller.pid, handle.path)
        file = handle.file
        sealed = file.sealed
        if sealed is None:
            raise Revoked("the key of this file was taken away")
        if not handle.bytes_written:
            self._drive.copies.writes(handle)
            self._drive.tell_other_view(file.inode, PLAIN)
            file.by_listed = True
        try:
            done = sealed.write(event.offset, event.data)
        except _DAMAGE as exc:
            self._damaged(handle.caller, file.inode, exc)
            raise
        file.modified_ns = time.time_ns()
        handle.bytes_written += done
        if event.write_flags & abi.WRITE_KILL_SUIDGID:
            self._drive.drop_setid(file)
        return replies.written(done)

    def _check(self, handle: Handle, asker: Asker, action: Action) -> None:
        """The caller of a READ or WRITE, who need not be the one that opened."""
        if handle.revoked:
            raise Revoked("the right to this file was taken away while it was open")
        if handle.file.damage is not None:
            raise FileDamaged(str(handle.file.damage))
        caller = asker.caller
        if caller is handle.caller:
            return
        standing = self._drive.views.standing(caller, handle.label)
        if standing.view is not View.PLAINTEXT or action not in standing.allow:
            self._drive.refuse(caller, handle.label, standing.rule, action, handle.file.inode, handle.path)

    def _damaged(self, caller: Caller, inode: Inode, exc: Exception) -> None:
        label = self._drive.views.label_of(inode)
        self._drive.recorder.record(
            "damaged",
            caller,
            inode,
            label=label.qualified if label is not None else "unknown",
            detail=f"{type(exc).__name__}: {exc}",
        )

    # ---- size and places ---------------------------------------------------------------------------------------

    def truncate(self, inode: Inode, fh: int | None, size: int, asker: Asker) -> None:
        """SETATTR with a size: through a handle that may write, or by name for who may."""
        drive = self._drive
        if fh is not None:
            handle = drive.handle(fh)
            if isinstance(handle, DropIn):
                self._truncate(handle.file, size)
                return
            if handle.view == PLAIN:
                self._check(handle, asker, Action.WRITE)
                self._truncate(handle.file, size)
                return
        with drive.files.borrowed(inode) as file:
            sealed = self.unlocked(inode, file, asker, Action.WRITE)
            label = drive.views.label_of(inode)
            drive.recorder.record(
                "write",
                asker.caller,
                inode,
                label=label.qualified if label is not None else "unknown",
                generation=sealed.generation,
                view=VIEW_NAMES[PLAIN],
                rule=drive.views.standing(asker.caller, label).rule,
                detail=f"truncated to {size} bytes",
            )
            self._truncate(file, size)

    def unlocked(self, inode: Inode, file: OpenFile, asker: Asker, action: Action) -> SealedFile:
        """The content of a file that is used without a handle: truncate(2), xattrs. Errors: as those of OPEN."""
        drive = self._drive
        path = drive.directories.path(inode)
        label = drive.files.label(inode)
        standing = drive.views.standing(asker.caller, label)
        if standing.view is not View.PLAINTEXT or action not in standing.allow:
            drive.refuse(asker.caller, label, standing.rule, action, inode, path)

        def key_of(header: Header) -> FileKey:
            header_label, _ = self._plaintext(asker.caller, inode, header)
            return drive.keys.of(header, header_label, asker, action, path)

        return drive.files.unlock(file, key_of, may_wait=asker.may_wait)

    def _truncate(self, file: OpenFile, size: int) -> None:
        if file.sealed is None:
            raise Revoked("the key of this file was taken away")
        file.sealed.truncate(size)
        file.modified_ns = time.time_ns()
        self._drive.tell_other_view(file.inode, PLAIN)

    def fallocate(self, event: events.Fallocate, asker: Asker) -> bytes:
        """Modes 0, KEEP_SIZE and PUNCH_HOLE|KEEP_SIZE; the others: EOPNOTSUPP."""
        handle = self._plain_handle(event.fh)
        self._check(handle, asker, Action.WRITE)
        assert handle.file.sealed is not None
        keep_size, punch_hole = 1, 2
        if event.mode == keep_size | punch_hole:
            handle.file.sealed.punch(event.offset, event.length)
        elif event.mode == 0:
            handle.file.sealed.allocate(event.offset, event.length)
        elif event.mode != keep_size:
            raise NotSupported("this kind of fallocate is not known here")
        handle.file.modified_ns = time.time_ns()
        self._drive.tell_other_view(handle.file.inode, PLAIN)
        return replies.EMPTY

    def lseek(self, event: events.Lseek, asker: Asker) -> bytes:
        handle = self._drive.handle(event.fh)
        if isinstance(handle, Handle) and handle.view == PLAIN and handle.file.sealed is not None:
            self._check(handle, asker, Action.READ)
            return replies.lseek(handle.file.sealed.seek(event.offset, event.whence))
        return replies.lseek(os.lseek(handle.file.fd, event.offset, event.whence))

    def copy_file_range(self, event: events.CopyFileRange, asker: Asker) -> bytes:
        """A copy inside the drive. Both handles must show the caller plaintext: sealed bytes are never content."""
        source, target = self._plain_handle(event.fh_in), self._plain_handle(event.fh_out)
        self._check(source, asker, Action.READ)
        self._check(target, asker, Action.WRITE)
        assert source.file.sealed is not None
        assert target.file.sealed is not None
        if not source.bytes_read:
            self._drive.copies.reads(source)
        if not target.bytes_written:
            self._drive.copies.writes(target)
            target.file.by_listed = True
        buffer = memoryview(bytearray(_COPY_STEP))
        done, wanted = 0, min(event.length, _COPY_MAX)
        while done < wanted:
            got = source.file.sealed.read_into(event.off_in + done, buffer[: min(_COPY_STEP, wanted - done)])
            written = target.file.sealed.write(event.off_out + done, buffer[:got])
            done += written
            if written < _COPY_STEP:  # the end of the file, or of the disk
                break
        source.bytes_read += done
        target.bytes_written += done
        target.file.modified_ns = time.time_ns()
        self._drive.tell_other_view(target.file.inode, PLAIN)
        return replies.copied(event.head, done)

    def _plain_handle(self, fh: int) -> Handle:
        handle = self._drive.handle(fh)
        if isinstance(handle, DropIn) or handle.view == CIPHER:
            raise NotSupported("not for sealed bytes")
        return handle

    # ---- closing -----------------------------------------------------------------------------------------------

    def flush(self, event: events.Flush) -> bytes:
        """close(2) of a descriptor returns after this: what was written is in the store, whatever becomes of us."""
        handle = self._drive.handle(event.fh)
        self._locking.closed(handle.file, event.lock_owner)
        if isinstance(handle, DropIn):
            self._dropins.flush(handle, event.head.pid)
        elif handle.writable:
            handle.file.commit()
            self._drive.tell_other_view(handle.file.inode, PLAIN)
        return replies.EMPTY

    def fsync(self, event: events.Fsync) -> bytes:
        handle = self._drive.handle(event.fh)
        handle.file.commit(durable=True)
        if isinstance(handle, DropIn):
            handle.synced = True
        return replies.EMPTY

    def release(self, event: events.Release) -> bytes:
        """The last descriptor of an open is gone. No caller is named: the handle remembers who it was."""
        drive = self._drive
        handle = drive.handle(event.fh)
        del drive.handles[event.fh]
        if event.release_flags & abi.RELEASE_FLOCK_UNLOCK:
            self._locking.released(handle.file, event.lock_owner)
        if isinstance(handle, DropIn):
            self._dropins.release(handle)
            return replies.EMPTY
        file = handle.file
        for locker in handle.lockers:
            self._locking.closed(file, locker)
        label = handle.label.qualified if handle.label is not None else "unknown"
        try:
            if handle.writable:
                file.commit()
        finally:
            file.handles.discard(handle)
            if file.refused:
                file.refused = any(other.revoked for other in list(file.handles))
            try:
                self._record_close(handle, label)
            finally:
                drive.files.release(file)
        return replies.EMPTY

    def _record_close(self, handle: Handle, label: str) -> None:
        drive, file = self._drive, handle.file
        sealed = file.sealed
        for source, target in drive.copies.closes(handle):
            self._record_copy(source, target)
        for outside in sorted(handle.outside):
            self._record_copy(handle, outside)
        drive.recorder.record(
            "close",
            handle.caller,
            file.inode,
            path=handle.path,
            label=label,
            generation=sealed.generation if sealed is not None else 0,
            view=VIEW_NAMES[handle.view],
            rule=handle.standing.rule,
            bytes_read=handle.bytes_read,
            bytes_written=handle.bytes_written,
        )

    def _record_copy(self, source: Handle, to: str) -> None:
        self._drive.recorder.record(
            "copy",
            source.caller,
            source.file.inode,
            path=source.path,
            label=source.label.qualified if source.label is not None else "unknown",
            view=VIEW_NAMES[source.view],
            rule=source.standing.rule,
            bytes_read=source.bytes_read,
            to=to,
        )
