"""One open sealed file, shared by its handles: locking, opening, and the order in which a commit reaches the disk.

INVARIANT: what the last commit covers is not touched before its new images are in the redo log, so a kill at any
instant leaves the old state or the new one (docs/format.md 8 and 9). What programs see meanwhile is the `Draft`.
"""

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Self

from fsdriver.content import range_locks, xattrs
from fsdriver.content.backing import deliver, reserve, write_all
from fsdriver.content.chunks import Buffer
from fsdriver.content.commit import Commit
from fsdriver.content.draft import Draft
from fsdriver.content.header import SUITE_AES_GCM, TEXT, Header
from fsdriver.content.keys import FileKey, FileKeys
from fsdriver.content.offsets import (
    CHUNK_SIZE,
    COMMIT_AT,
    COMMIT_SIZE,
    HEADER_SIZE,
    MAX_SIZE,
    OVERHEAD,
    SUM_CHECKED_CHUNKS,
    sealed_size,
)
from fsdriver.content.plan import Plan
from fsdriver.content.redo import Group, Redo
from fsdriver.content.search import Sought
from fsdriver.content.shared_lock import SharedLock
from fsdriver.content.space import is_short
from fsdriver.content.verified import Remember
from fsdriver.content.wraps import WrapSlot
from fsdriver.errors import FileDamaged, FormatUnknown

WAITING_MAX = 8 << 20
"""Plain bytes held in memory before they are settled."""
_FIRST_READ = HEADER_SIZE + SUM_CHECKED_CHUNKS * (CHUNK_SIZE + OVERHEAD)


def read_first(fd: int, size: int) -> bytes:
    """The head of a sealed file of `size` bytes, and all of it if `SealedFile.open` would need that: one pread."""
    return os.pread(fd, size if size <= _FIRST_READ else HEADER_SIZE, 0)


class SealedFile:
    """An open sealed file, shared by all its handles. Thread-safe: reads run side by side, changes one at a time.

    `fd` is a descriptor open for reading and writing; it belongs to the SealedFile from when `create` or `open`
    returns until `close`. Every method may raise OSError from the backing file; what was written stays in memory then
    and the next change or flush tries again.
    """

    __slots__ = (
        "_chunk",
        "_draft",
        "_fd",
        "_inode",
        "_keys",
        "_lock",
        "_pending",
        "_record",
        "_redo",
        "_ticket",
        "header",
        "path",
        "verified",
    )

    def __init__(
        self, fd: int, header: Header, keys: FileKeys, commit: Commit, record: bytes, redo: Redo | None, path: bytes
    ) -> None:
        self.header = header
        self.path = path
        """Where the file lies in the store, as far as the owner knows; the redo log looks for it there first."""
        self.verified = True
        """Whether the sum has been checked since the file was opened (`verify` does it for large files)."""
        self._fd = fd
        self._inode = os.fstat(fd).st_ino if redo is not None else 0
        self._keys = keys
        self._redo = redo
        self._lock = SharedLock()
        self._chunk = header.chunk_size
        self._draft = Draft(fd, header, keys, commit)
        self._record = record
        """The last commit as it lies in the file: another one there was made by somebody else."""
        self._pending: Plan | None = None
        """A commit that is sealed and could not be placed yet; nothing changes before it is."""
        self._ticket: int | None = None
        """Redo group of `_pending`, once it is in the log."""

    # ---- opening ---------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        fd: int,
        *,
        file_id: bytes,
        company: bytes,
        label: bytes,
        file_key: FileKey,
        slots: Sequence[WrapSlot],
        chunk_size: int = CHUNK_SIZE,
        text: str = TEXT,
        redo: Redo | None = None,
        path: bytes = b"",
        made: Remember | None = None,
    ) -> Self:
        """Makes an empty sealed file in the empty file `fd`; its header is written when this returns.

        `made` is then told the header's bytes and the keys they were made with.
        """
        keys = FileKeys.draw(file_key, file_id, SUITE_AES_GCM)
        header, head = Header(
            file_id, company, label, keys.commitment, tuple(slots), chunk_size=chunk_size, text=text
        ).encode(keys)
        commit = Commit()
        record = commit.seal(header, keys)
        write_all(fd, b"".join((head, record, bytes(HEADER_SIZE - COMMIT_AT - COMMIT_SIZE))), 0)
        if is_short(fd):
            deliver(fd)
        if made is not None:
            made(head, keys)
        file = cls(fd, header, keys, commit, record, redo, path)
        file._draft.promised = False
        return file

    @classmethod
    def open(
        cls,
        fd: int,
        unlock: Callable[[Header], FileKey],
        *,
        size: int | None = None,
        first: bytes | None = None,
        redo: Redo | None = None,
        path: bytes = b"",
    ) -> Self:
        """Opens a sealed file. `unlock` finds the key for an (unverified) header, or raises.

        `size` is how long the sealed file is and `first` what `read_first` gave, if the caller has them already.
        Files of up to SUM_CHECKED_CHUNKS chunks are read whole and their sum is checked; for others `verified` is
        False until `verify` has run. Raises HeaderDamaged, FormatUnknown, ChunkForged, FileDamaged, and what `unlock`
        raises.
        """
        if size is None:
            size = os.fstat(fd).st_size
        if first is None:
            first = read_first(fd, size)
        header = Header.parse(first)
        keys = header.check(first, unlock(header))
        return cls.opened(fd, header, keys, size=size, first=first, redo=redo, path=path)

    @classmethod
    def opened(
        cls, fd: int, header: Header, keys: FileKeys, *, size: int, first: bytes, redo: Redo | None, path: bytes
    ) -> Self:
        """As `open`, with a header that was checked with `keys`."""
        record = first[COMMIT_AT : COMMIT_AT + COMMIT_SIZE]
        commit = Commit.open(record, header, keys)
        sealed = _require_size(size, commit, header)
        file = cls(fd, header, keys, commit, record, redo, path)
        file._draft.garbage = size > sealed
        if file._draft.slots.count <= SUM_CHECKED_CHUNKS:
            if len(first) < sealed:
                first = os.pread(fd, sealed, 0)
                if len(first) < sealed:
                    raise FileDamaged("the file was cut while it was opened")
            file._draft.slots.check_all(first, commit)
        else:
            file.verified = False
        return file

    @property
    def size(self) -> int:
        """Plain bytes, as a program sees them now."""
        return self._draft.size

    @property
    def generation(self) -> int:
        """Generation of the last commit."""
        return self._draft.commit.generation

    @property
    def sum(self) -> bytes:
        """Chunk sum of the last commit, 32 bytes: with the generation it names a state of the file."""
        return self._draft.commit.sum.to_bytes(32, "big")

    @property
    def state(self) -> bytes:
        """Generation and sum of the last commit in one, 40 bytes."""
        commit = self._draft.commit
        return commit.generation.to_bytes(8, "big") + commit.sum.to_bytes(32, "big")

    @property
    def seals(self) -> int:
        """Chunks sealed under this file key so far; at plan.SEALS_MAX the file takes no more writes."""
        return self._draft.seals

    @property
    def overlong(self) -> bool:
        """Whether bytes lie behind what the commit covers: left by a crash or put there. They are never served."""
        return self._draft.garbage

    def cut_garbage(self) -> None:
        """What `overlong` tells of goes."""
        with self._lock:
            self._prepare()

    @property
    def dirty(self) -> bool:
        """Whether a flush would write something."""
        return self._pending is not None or self._draft.changed

    # ---- reading ---------------------------------------------------------------------------------------------------

    def read_into(self, offset: int, out: memoryview) -> int:
        """Reads up to len(out) bytes from `offset` into `out` (format B, contiguous); fewer at the end of the file.

        Raises ChunkForged or FileDamaged; then no unverified byte is in `out`.
        """
        self._lock.enter_shared()
        try:
            size = min(len(out), self._draft.size - offset)
            if size <= 0:
                return 0
            if size < len(out):
                out = out[:size]
            self._draft.read_into(offset, out)
            if (kept := self._draft.slots.kept) is not None and offset + size == self._draft.size:
                kept.drop()  # the kernel has the pages now
            return size
        finally:
            self._lock.leave_shared()

    def read(self, offset: int, size: int) -> bytes:
        """Like `read_into`, as new bytes."""
        out = bytearray(max(0, min(size, self.size - offset)))
        done = self.read_into(offset, memoryview(out))
        return bytes(out[:done])

    def seek(self, offset: int, whence: int) -> int:
        """lseek with SEEK_DATA or SEEK_HOLE. Raises OSError ENXIO as lseek(2) does."""
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._lock.enter_shared()
        try:
            if not 0 <= offset < self.size:
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            index = offset // self._chunk
            if whence == os.SEEK_DATA:
                while index * self._chunk < self.size and (run := self._draft.hole_at(index)) is not None:
                    index = run[1]
            else:
                index = self._draft.next_hole(index)
            if whence == os.SEEK_DATA and index * self._chunk >= self.size:
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            return min(self.size, max(offset, index * self._chunk))
        finally:
            self._lock.leave_shared()

    def verify(self) -> None:
        """Reads and checks everything the last commit covers: every chunk, every hole, the sum.

        Lets changes in between its batches and starts over when one was committed. Raises ChunkForged or FileDamaged.
        """
        for patience in (True, True, True, False):
            if self._verify_pass(patience):
                self.verified = True
                return

    def recheck(self) -> None:
        """Somebody else has touched the backing file: nothing that was read from it before is believed any more. Small
        files are verified at once, as `open` does it. Raises ChunkForged or FileDamaged."""
        with self._lock:
            self._drop_kept()
            self.verified = False
        if self._draft.slots.base <= SUM_CHECKED_CHUNKS:
            self.verify()

    def is_newest(self) -> bool:
        """Whether header and commit record are those that were last read or written here, or are being written."""
        with self._lock:
            head = self._head()
            if self._pending is None:
                return self._is_newest(head)
            record = head[COMMIT_AT : COMMIT_AT + COMMIT_SIZE]
            return record in (self._record, *(image for at, image in self._pending.group.images if at == COMMIT_AT))

    def _head(self) -> bytes:
        range_locks.revalidate(self._fd)
        return os.pread(self._fd, HEADER_SIZE, 0)

    def _is_newest(self, head: bytes) -> bool:
        return head[COMMIT_AT : COMMIT_AT + COMMIT_SIZE] == self._record and self.header.stands_in(head)

    def refresh(self) -> bool:
        """Takes over what another machine has made of the file; True if it was anything. Nothing has been changed here
        since the last flush. Raises HeaderDamaged, FormatUnknown, FileDamaged: then all is as before."""
        with self._lock:
            head = self._head()
            if self._is_newest(head):
                return False
            record = head[COMMIT_AT : COMMIT_AT + COMMIT_SIZE]
            header = Header.parse(head)
            if header.file_id != self.header.file_id:
                raise FileDamaged("another file was written into this one")
            header.verify(head, self._keys)
            commit = Commit.open(record, header, self._keys)
            size = os.fstat(self._fd).st_size
            sealed = _require_size(size, commit, header)
            self._drop_kept()
            self._draft = Draft(self._fd, header, self._keys, commit)
            self._draft.garbage = size > sealed
            self.header, self._record, self.verified = header, record, False
            return True

    def assume_unsynced(self) -> None:
        """Another machine may have committed what it has not synced: the next commit that replaces another syncs it."""
        with self._lock:
            self._draft.unsynced = True

    def _verify_pass(self, let_changes_in: bool) -> bool:
        with self._lock:
            if self._pending is not None or self._draft.cut:
                self._settle()
        self._lock.enter_shared()
        try:
            commit = self._draft.commit
            total = 0
            for added in self._draft.slots.batches():
                total += added
                if let_changes_in:
                    self._lock.leave_shared()
                    self._lock.enter_shared()
                    if self._draft.commit is not commit or self._pending is not None:
                        return False
            self._draft.slots.check_sum(total, commit)
            return True
        finally:
            self._lock.leave_shared()

    # ---- changing --------------------------------------------------------------------------------------------------

    def write(self, offset: int, data: Buffer) -> int:
        """Writes `data` at `offset` and returns how many bytes of it are written (copied or placed): fewer than all
        when the disk fills up on the way.

        Bytes between the end of the file and `offset` become zeros. Raises OSError (ENOSPC, EFBIG ...).
        """
        data = memoryview(data)
        with self._lock:
            self._prepare()
            if offset + len(data) > MAX_SIZE:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            if not data:
                return 0
            if offset > self.size:
                self._draft.extend(offset)
            inside = min(len(data), self.size - offset)
            if inside and (done := self._draft.overwrite(offset, data[:inside])) < inside:
                return done
            if inside < len(data):
                if self.size % self._chunk + len(data) - inside >= self._chunk:
                    self._leave_log()
                try:
                    self._draft.append(data[inside:])
                except OSError:
                    if self.size == offset:
                        raise
            if self._draft.waiting > WAITING_MAX:
                # What fails here is kept, tried again by the next change or flush, and raised there.
                with suppress(OSError):
                    self._settle()
            return min(len(data), self.size - offset)

    def truncate(self, size: int) -> None:
        """Makes the file `size` bytes long. Shrinking commits at once."""
        with self._lock:
            if size == 0 and self.size:
                self._empty()
                return
            self._prepare()
            if size > MAX_SIZE:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            if size > self.size:
                self._draft.extend(size)
            elif size < self.size:
                self._draft.shrink(size)
                self._settle()

    def allocate(self, offset: int, length: int, *, keep_size: bool = False) -> None:
        """Reserves space for `length` bytes from `offset`, making the file longer unless `keep_size`."""
        with self._lock:
            self._prepare()
            end = offset + length
            if end > MAX_SIZE:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            first = self._draft.slots.offset(offset // self._chunk)
            reserve(self._fd, first, sealed_size(end, self._chunk) - first)
            if end > self.size and not keep_size:
                self._draft.extend(end)

    def punch(self, offset: int, length: int) -> None:
        """Makes `length` bytes from `offset` zeros, and whole chunks a hole. Never changes the size."""
        with self._lock:
            self._prepare()
            self._draft.punch(offset, max(offset, min(offset + length, self.size)))
            if self._draft.waiting > WAITING_MAX:
                self._settle()

    def flush(self) -> None:
        """Everything written is in the file and committed when this returns; a kill loses nothing of it."""
        with self._lock:
            if self.dirty:
                self._settle()
                deliver(self._fd)

    def sync(self) -> None:
        """`flush`, and on the disk itself when this returns; a power cut loses nothing of it."""
        with self._lock:
            self._settle(durable=True)

    def retire(self) -> None:
        """`flush`, and nothing of the file counts in the redo log any more: another machine may change it then."""
        with self._lock:
            self._settle()
            if self._redo is not None:
                self._redo.retire(Sought(self.header.file_id, self._inode), self._fd)

    def rewrap(self, label: bytes, slots: Sequence[WrapSlot]) -> None:
        """Gives the file a label and wrap slots; the content is not touched. Flushes."""
        with self._lock:
            self._check_writable()
            self._settle()
            header, head = self.header._replace(label=label, slots=tuple(slots)).encode(self._keys)
            group = Group(header.file_id, [(0, head)])
            self._pending = Plan(self._draft.commit, [], group, logged=True)
            self.header = self._draft.header = header
            self._settle()

    def seal_xattr(self, name: bytes, value: bytes) -> bytes:
        """The value of an extended attribute as it lies in the store."""
        return xattrs.seal(self._keys, self.header.file_id, name, value)

    def open_xattr(self, name: bytes, sealed: bytes) -> bytes:
        """The value in a sealed extended attribute. Raises FileDamaged."""
        return xattrs.open_sealed(self._keys, self.header.file_id, name, sealed)

    def close(self) -> None:
        """Flushes and closes the descriptor. Raises what the flush raises, the descriptor is closed all the same."""
        try:
            self.flush()
        finally:
            self._drop_kept()
            os.close(self._fd)

    def detach(self) -> None:
        """Flushes and gives the descriptor back to the caller; the object is of no use after it, and its keys go with
        it. Raises what the flush raises, the descriptor is given back all the same."""
        try:
            self.flush()
        finally:
            self.give_up()

    def give_up(self) -> None:
        """`detach` after a flush that failed: what of that is in the redo log is placed before the file is opened again
        (`RedoLog.finish`), the rest is lost."""
        self._drop_kept()

    def _prepare(self) -> None:
        """Brings disk and memory to where a change may begin, after an earlier failure or crash."""
        self._check_writable()
        if self._pending is not None or self._draft.cut:
            self._settle()
        self._draft.cut_garbage()
        self._drop_kept()

    def _drop_kept(self) -> None:
        slots = self._draft.slots
        if slots.kept is not None:
            slots.kept.drop()
            slots.kept = None

    def _empty(self) -> None:
        """Truncation to nothing needs nothing of the old state, so it works on a damaged file and on a full disk."""
        self._check_writable()
        if self._pending is not None and self._pending.commit is self._draft.commit:
            self._settle()  # a new header, which is needed still
        self._drop_kept()
        self._draft.clear()
        self._pending = None
        if self._draft.changed or self._ticket is not None:
            self._draft.cut = True
            self._draft.garbage = False
            self._settle()
        else:
            # Never committed with content: what was placed is only behind the end.
            self._draft.garbage = True
            self._prepare()

    def _check_writable(self) -> None:
        if self.header.read_only_compatible:
            raise FormatUnknown("the file has features with which this program may only read it")

    # ---- committing ------------------------------------------------------------------------------------------------

    def _settle(self, durable: bool = False) -> None:
        """Seals, places and commits what changed. On failure everything is kept, and the next call carries on."""
        if self._pending is None and self._draft.changed:
            self._pending = self._draft.plan()
        if self._pending is not None:
            self._place(self._pending)
        if durable:
            self._sync_file()

    def _place(self, plan: Plan) -> None:
        """Places and adopts a commit.

        INVARIANT: a power cut may leave any part of what was not synced. So what a commit newly counts is on the disk
        before the commit that replaces another one, and what changes below that one is in the log, on the disk, first.
        """
        draft, fresh, group = self._draft, plan.fresh, plan.group
        replaces = draft.promised
        held = self._held()
        if held:
            # Replaying the groups before this one would take what is placed beside the log away.
            group, fresh = replace(group, images=[*fresh, *group.images]), []
        for offset, image in fresh:
            draft.unsynced = True
            write_all(self._fd, image, offset)
        if draft.unsynced and replaces:
            self._sync_file()
        elif draft.unsynced:
            deliver(self._fd)
        if self._redo is not None and (held or plan.logged):
            group.path, group.inode = self.path, self._inode
            before, self._ticket = self._ticket, self._redo.begin(group)
            if before is not None:
                self._redo.end(before)  # left by an earlier try; this group comes after it and has all of it
            self._redo.sync()
            self._redo.with_room(lambda: group.place(self._fd), self._ticket)
        else:
            # The commit is one sector: on the disk it is the old one or the new one, and the new one needs no more.
            before_cut = self._sync_file if draft.cut and replaces else None
            if self._redo is not None and draft.cut:  # a full disk can be emptied
                self._redo.with_room(lambda: group.place(self._fd, before_cut))
            else:
                group.place(self._fd, before_cut)
            draft.unsynced |= group.cut_to >= 0
        self._pending = None
        draft.adopt(plan.commit)
        at, last = group.images[-1]
        if at == COMMIT_AT:
            self._record = bytes(last)
        if self._redo is not None and self._ticket is not None:
            self._redo.end(self._ticket)
            self._ticket = None

    def _leave_log(self) -> None:
        """Before something goes to its place at once."""
        if self._redo is not None and self._held():
            self._redo.checkpoint()

    def _held(self) -> bool:
        return self._redo is not None and self._redo.holds(self.header.file_id)

    def _sync_file(self) -> None:
        os.fdatasync(self._fd)
        self._draft.unsynced = False
        self._draft.promised = True


def _require_size(size: int, commit: Commit, header: Header) -> int:
    """How long a sealed file is under `commit`. Raises FileDamaged where it has only `size` bytes, which are fewer."""
    sealed = sealed_size(commit.size, header.chunk_size)
    if size < sealed:
        raise FileDamaged(f"the file was cut: {size} bytes of {sealed} are left")
    return sealed
