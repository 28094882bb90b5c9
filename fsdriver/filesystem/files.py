"""READ, WRITE and what else goes through a handle on a regular file, until its RELEASE.

READ and WRITE check the caller again: a descriptor that was inherited or passed on serves only who may see plaintext.
"""

import errno
import os
import time
from collections.abc import Callable
from functools import partial

from fsdriver.content import Header, SealedFile
from fsdriver.errors import (
    DAMAGE,
    FileDamaged,
    NotSupported,
    Revoked,
)
from fsdriver.filesystem.asker import Asker, MustWait
from fsdriver.filesystem.drive import VIEW_NAMES, Drive
from fsdriver.filesystem.dropins import DropIns
from fsdriver.filesystem.filekeys import GivenKey
from fsdriver.filesystem.locking import Locking
from fsdriver.nodes.inode import CIPHER, PLAIN, Inode
from fsdriver.nodes.openfile import DropIn, Handle, OpenFile
from fsdriver.protocol import InHeader, abi, events, replies
from policy import Action, View

_DRAIN_SECONDS = 5.0
_COPY_STEP = 1 << 20
_COPY_MAX = 64 << 20
"""Bytes one COPY_FILE_RANGE moves at most: the caller asks again for the rest, and can be interrupted between."""


class Files:
    """What is done with open handles, and with files by name that need their content (truncate, attributes)."""

    def __init__(self, drive: Drive, dropins: DropIns, locking: Locking) -> None:
        self._drive = drive
        self._dropins = dropins
        self._locking = locking

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
                done = self._steadily(handle.file, asker, lambda: sealed.read_into(event.offset, out[: event.size]))
            except (*DAMAGE, OSError) as exc:
                self._drive.damaged(asker.caller, handle.file.inode, exc)
                raise
            if handle.file.refused:
                handle.file.inode.commit_cached = None
                self._drive.kernel.inval_inode(handle.file.inode.nodeid(PLAIN))
        if not handle.bytes_read and done:
            self._drive.copies.reads(handle)
        handle.bytes_read += done
        return done

    def _steadily(self, file: OpenFile, asker: Asker, read: Callable[[], int]) -> int:
        """What `read` gives; once more, while nobody changes the file, if what it found does not verify."""
        try:
            return read()
        except DAMAGE:
            if not self._drive.claims.active or file.claimed:
                raise
        with self._drive.claims.steady(file, may_wait=asker.may_wait):
            return read()

    def write(self, event: events.Write, asker: Asker | None, *, may_wait: bool) -> bytes:
        """`asker` is None for dirty pages of a mapping, which belong to the handle's opener."""
        handle = self._drive.handle(event.fh)
        if isinstance(handle, DropIn):
            return replies.written(self._dropins.write(handle, event, asker, may_wait=may_wait))
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
        claims = self._drive.claims
        try:
            with claims.changing(file, may_wait=may_wait):
                appending = claims.active and event.flags & os.O_APPEND
                offset = sealed.size if appending else event.offset
                if offset != event.offset and not may_wait:
                    raise MustWait
                done = sealed.write(offset, event.data)
                file.modified_ns = time.time_ns()
        except DAMAGE as exc:
            self._drive.damaged(handle.caller, file.inode, exc)
            raise
        if offset != event.offset:
            # Another machine has made the file longer: the page at the end that the kernel believes in goes first.
            self._drive.kernel.inval_inode(file.inode.nodeid(PLAIN))
            self._drive.kernel.drain_pages(_DRAIN_SECONDS)
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

    # ---- size and places ---------------------------------------------------------------------------------------

    def truncate(self, inode: Inode, fh: int | None, size: int, asker: Asker) -> None:
        """SETATTR with a size: through a handle that may write, or by name for who may."""
        drive = self._drive
        if fh is not None:
            handle = drive.handle(fh)
            if isinstance(handle, DropIn):
                self._drive.truncate(handle.file, size, asker)
                return
            if handle.view == PLAIN:
                self._check(handle, asker, Action.WRITE)
                self._drive.truncate(handle.file, size, asker)
                return
        drive.claims.require_patience(asker)
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
            try:
                self._drive.truncate(file, size, asker)
            except OSError as exc:
                drive.undone("write", asker.caller, inode, drive.directories.path(inode), exc)
                raise

    def unlocked(self, inode: Inode, file: OpenFile, asker: Asker, action: Action) -> SealedFile:
        """The content of a file that is used without a handle: truncate(2), xattrs. Errors: as those of OPEN."""
        drive = self._drive
        path = drive.directories.path(inode)
        label = drive.files.label(inode)
        standing = drive.views.standing(asker.caller, label)
        if standing.view is not View.PLAINTEXT or action not in standing.allow:
            drive.refuse(asker.caller, label, standing.rule, action, inode, path)

        def key_of(header: Header) -> GivenKey:
            header_label, _ = drive.plaintext(asker.caller, inode, header)
            return drive.keys.of(header, header_label, asker, action, path)

        return drive.files.unlock(file, path, key_of, asker)

    def fallocate(self, event: events.Fallocate, asker: Asker) -> bytes:
        """Modes 0, KEEP_SIZE and PUNCH_HOLE|KEEP_SIZE; the others: EOPNOTSUPP."""
        handle = self._plain_handle(event.fh)
        self._check(handle, asker, Action.WRITE)
        sealed = handle.file.sealed
        assert sealed is not None
        keep_size, punch_hole = 1, 2
        with self._drive.claims.changing(handle.file, may_wait=asker.may_wait):
            if event.mode == keep_size | punch_hole:
                sealed.punch(event.offset, event.length)
            elif event.mode == 0:
                sealed.allocate(event.offset, event.length)
            elif event.mode != keep_size:
                raise NotSupported("this kind of fallocate is not known here")
        self._moved(handle, event.head)
        return replies.EMPTY

    def lseek(self, event: events.Lseek, asker: Asker) -> bytes:
        handle = self._drive.handle(event.fh)
        if isinstance(handle, Handle) and handle.view == PLAIN and (sealed := handle.file.sealed) is not None:
            self._check(handle, asker, Action.READ)
            found = self._steadily(handle.file, asker, lambda: sealed.seek(event.offset, event.whence))
            return replies.lseek(found)
        return replies.lseek(os.lseek(handle.file.fd, event.offset, event.whence))

    def copy_file_range(self, event: events.CopyFileRange, asker: Asker) -> bytes:
        """A copy inside the drive. Both handles must show the caller plaintext: sealed bytes are never content."""
        source, target = self._plain_handle(event.fh_in), self._plain_handle(event.fh_out)
        self._check(source, asker, Action.READ)
        self._check(target, asker, Action.WRITE)
        content, place = source.file.sealed, target.file.sealed
        assert content is not None
        assert place is not None
        if not source.bytes_read:
            self._drive.copies.reads(source)
        if not target.bytes_written:
            self._drive.copies.writes(target)
            target.file.by_listed = True
        buffer = memoryview(bytearray(_COPY_STEP))
        done, wanted = 0, min(event.length, _COPY_MAX)
        while done < wanted:
            part = buffer[: min(_COPY_STEP, wanted - done)]
            got = self._steadily(source.file, asker, partial(content.read_into, event.off_in + done, part))
            with self._drive.claims.changing(target.file, may_wait=asker.may_wait):
                written = place.write(event.off_out + done, part[:got])
            done += written
            if written < _COPY_STEP:  # the end of the file, or of the disk
                break
        source.bytes_read += done
        target.bytes_written += done
        self._moved(target, event.head)
        return replies.copied(event.head, done)

    def _moved(self, handle: Handle, head: InHeader) -> None:
        """Content changed by FALLOCATE or COPY_FILE_RANGE, which do not say, as WRITE does, who keeps set-user-id."""
        handle.file.modified_ns = time.time_ns()
        if head.uid != 0:
            self._drive.drop_setid(handle.file)
        self._drive.tell_other_view(handle.file.inode, PLAIN)

    def _plain_handle(self, fh: int) -> Handle:
        handle = self._drive.handle(fh)
        if isinstance(handle, DropIn) or handle.view == CIPHER:
            raise NotSupported("not for sealed bytes")
        return handle

    # ---- closing -----------------------------------------------------------------------------------------------

    def flush(self, event: events.Flush) -> bytes:
        """close(2) of a descriptor returns after this: what was written is in the store, whatever becomes of us."""
        handle = self._drive.handle(event.fh)
        try:
            if isinstance(handle, DropIn):
                self._dropins.flush(handle, event.head.pid)
            elif handle.writable:
                handle.file.commit()
                self._drive.tell_other_view(handle.file.inode, PLAIN)
        finally:  # whoever gets the lock next finds what was written under it
            self._locking.closed(handle.file, event.lock_owner)
            if isinstance(handle, Handle):
                handle.lockers.discard(event.lock_owner)
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
        lost = ""
        try:
            if handle.writable:
                file.commit()
        except OSError as exc:
            lost = f"what was written last is not in the store: {exc.strerror}"
            file.inode.commit_cached = None
            raise
        finally:
            file.handles.discard(handle)
            if file.refused:
                file.refused = any(other.revoked for other in list(file.handles))
            try:
                self._record_close(handle, label, lost)
            finally:
                try:
                    drive.files.release(file)
                finally:
                    if lost:  # the kernel has what programs wrote
                        drive.kernel.inval_inode(file.inode.nodeid(PLAIN))
        return replies.EMPTY

    def _record_close(self, handle: Handle, label: str, lost: str) -> None:
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
            detail=lost,
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
