"""One open sealed file: the bytes a program sees, over the slots that lie in the backing file.

What was written and is not yet in its place is held here as plaintext (`_dirty`) and as hole runs (`Slots.holes`);
`_settle` seals it, places it and commits it. INVARIANT: until then the backing file holds what the last commit covers,
untouched, so a kill at any instant leaves the old state or the new one. Two kinds of bytes need no such care and go
straight to their places: whole chunks appended above what any commit covers, and those of a file never committed.
"""

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

from fsdriver.content import scratch, xattrs
from fsdriver.content.backing import reserve, write_all
from fsdriver.content.chunks import Buffer
from fsdriver.content.commit import SUM_MASK, Commit
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
    chunk_count,
    sealed_size,
)
from fsdriver.content.plan import Plan, check_seals, plan
from fsdriver.content.redo import Group, Redo
from fsdriver.content.shared_lock import SharedLock
from fsdriver.content.slots import ZEROS, Slots
from fsdriver.content.space import TailSpace, is_short
from fsdriver.content.wraps import WrapSlot
from fsdriver.errors import FileDamaged, FormatUnknown

DIRTY_MAX = 8 << 20
"""Plain bytes held in memory before they are settled."""
_FIRST_READ = HEADER_SIZE + SUM_CHECKED_CHUNKS * (CHUNK_SIZE + OVERHEAD)
_WIPES_MAX = 64


def read_first(fd: int, size: int) -> bytes:
    """The head of a sealed file of `size` bytes, and all of it if `SealedFile.open` would need that: one pread."""
    return os.pread(fd, size if size <= _FIRST_READ else HEADER_SIZE, 0)


class SealedFile:
    """An open sealed file, shared by all its handles. Thread-safe: reads run side by side, changes one at a time.

    `fd` is a descriptor open for reading and writing; it belongs to the SealedFile from when `create` or `open`
    returns until `close`. Every method may raise OSError from the backing file; what was written stays in memory then
    and the next change or flush tries again.
    """

    def __init__(self, fd: int, header: Header, keys: FileKeys, commit: Commit, redo: Redo | None, path: bytes) -> None:
        self.header = header
        self.path = path
        """Where the file lies in the store, for the redo log; kept up to date by the owner when it is renamed."""
        self.size = commit.size
        """Plain bytes, as a program sees them now."""
        self.verified = True
        """Whether the sum has been checked since the file was opened (`verify` does it for large files)."""
        self._fd = fd
        self._keys = keys
        self._redo = redo
        self._lock = SharedLock()
        self._chunk = header.chunk_size
        self._slots = Slots(fd, header, keys, commit)
        self._commit = commit
        self._sum = commit.sum
        self._seals = commit.seals
        # INVARIANT: a dirty chunk has its whole logical length; none lies in a hole run.
        self._dirty: dict[int, bytearray] = {}
        self._wipes: list[tuple[int, int]] = []
        """Chunks whose slots become zeros at the next commit: first, after last."""
        self._pending: Plan | None = None
        self._ticket: int | None = None
        """Redo group of `_pending`, once it is in the log."""
        self._cut = False
        """The file has to be cut after the next commit."""
        self._garbage = False
        """There may be bytes behind the placed slots; they go before anything is written there."""
        self._tail = TailSpace(fd)

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
    ) -> Self:
        """Makes an empty sealed file in the empty file `fd`; its header is written when this returns."""
        keys = FileKeys(file_key, file_id, SUITE_AES_GCM)
        header, head = Header(
            file_id, company, label, keys.commitment, tuple(slots), chunk_size=chunk_size, text=text
        ).encode(keys)
        commit = Commit()
        write_all(fd, b"".join((head, commit.seal(header, keys), bytes(HEADER_SIZE - COMMIT_AT - COMMIT_SIZE))), 0)
        return cls(fd, header, keys, commit, redo, path)

    @classmethod
    def open(
        cls,
        fd: int,
        unlock: Callable[[Header], FileKey],
        *,
        first: bytes | None = None,
        redo: Redo | None = None,
        path: bytes = b"",
    ) -> Self:
        """Opens a sealed file. `unlock` finds the key for an (unverified) header, or raises.

        `first` is what `read_first` gave, if the caller has it already. Files of up to SUM_CHECKED_CHUNKS chunks are
        read whole and their sum is checked; for others `verified` is False until `verify` has run. Raises
        HeaderDamaged, FormatUnknown, ChunkForged, FileDamaged, and what `unlock` raises.
        """
        size = os.fstat(fd).st_size
        if first is None:
            first = read_first(fd, size)
        header = Header.parse(first)
        keys = header.check(first, unlock(header))
        commit = Commit.open(first[COMMIT_AT : COMMIT_AT + COMMIT_SIZE], header, keys)
        sealed = sealed_size(commit.size, header.chunk_size)
        if size < sealed:
            raise FileDamaged(f"the file was cut: {size} bytes of {sealed} are left")
        file = cls(fd, header, keys, commit, redo, path)
        file._garbage = size > sealed
        if file._slots.count <= SUM_CHECKED_CHUNKS:
            if len(first) < sealed:
                first = os.pread(fd, sealed, 0)
            file._slots.check_all(first, commit)
        else:
            file.verified = False
        return file

    @property
    def generation(self) -> int:
        """Generation of the last commit."""
        return self._commit.generation

    @property
    def sum(self) -> bytes:
        """Chunk sum of the last commit, 32 bytes: with the generation it names a state of the file."""
        return self._commit.sum.to_bytes(32, "big")

    @property
    def seals(self) -> int:
        """Chunks sealed under this file key so far; at plan.SEALS_MAX the file takes no more writes."""
        return self._seals

    @property
    def overlong(self) -> bool:
        """Whether bytes lie behind what the commit covers: left by a crash or put there. They are never served."""
        return self._garbage

    @property
    def dirty(self) -> bool:
        """Whether a flush would write something."""
        return bool(
            self._pending
            or self._dirty
            or self._wipes
            or self._cut
            or self._slots.holes.fresh
            or self.size != self._commit.size
            or self._sum != self._commit.sum
        )

    # ---- reading ---------------------------------------------------------------------------------------------------

    def read_into(self, offset: int, out: memoryview) -> int:
        """Reads up to len(out) bytes from `offset` into `out` (format B, contiguous); fewer at the end of the file.

        Raises ChunkForged or FileDamaged; then no unverified byte is in `out`.
        """
        self._lock.enter_shared()
        try:
            size = min(len(out), self.size - offset)
            if size <= 0:
                return 0
            if size < len(out):
                out = out[:size]
            if not self._dirty and not self._slots.holes:
                self._slots.read_into(offset, out)
            else:
                self._read_pieces(offset, out)
            if self._slots.kept is not None and offset + size == self.size:
                # The kernel has the pages now.
                self._slots.kept.drop()
            return size
        finally:
            self._lock.leave_shared()

    def read(self, offset: int, size: int) -> bytes:
        """Like `read_into`, as new bytes."""
        out = bytearray(max(0, min(size, self.size - offset)))
        done = self.read_into(offset, memoryview(out))
        return bytes(out[:done])

    def _read_pieces(self, offset: int, out: memoryview) -> None:
        chunk, holes, dirty = self._chunk, self._slots.holes, self._dirty
        end = offset + len(out)
        at = offset
        while at < end:
            index, skip = divmod(at, chunk)
            if (plain := dirty.get(index)) is not None:
                upto = min(end, at + len(plain) - skip)
                out[at - offset : upto - offset] = memoryview(plain)[skip : skip + upto - at]
            elif (run := holes.find(index)) is not None:
                upto = min(end, run[1] * chunk)
                for zero in range(at, upto, len(ZEROS)):
                    stop = min(upto, zero + len(ZEROS))
                    out[zero - offset : stop - offset] = ZEROS[: stop - zero]
            else:
                after = index + 1
                hole = holes.next_start(after)
                while after * chunk < end and after not in dirty and after != hole:
                    after += 1
                upto = min(end, after * chunk)
                self._slots.read_into(at, out[at - offset : upto - offset])
            at = upto

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
                while index * self._chunk < self.size and (run := self._run_at(index)) is not None:
                    index = run[1]
            else:
                index = self._next_hole(index)
            if whence == os.SEEK_DATA and index * self._chunk >= self.size:
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            return min(self.size, max(offset, index * self._chunk))
        finally:
            self._lock.leave_shared()

    def _run_at(self, index: int) -> tuple[int, int] | None:
        if index in self._dirty:
            return None
        return self._slots.hole_at(index) if index < self._slots.count else self._slots.holes.find(index)

    def _next_hole(self, index: int) -> int:
        slots = self._slots
        end = chunk_count(self.size, self._chunk)
        while index < end and self._run_at(index) is None:
            # Known runs may stand where the disk still has data.
            known = slots.holes.next_start(index)
            sparse = slots.next_sparse(index) if index < slots.count else end
            index = min(sparse, known) if known is not None else sparse
            if index == slots.count and known is None:
                return end
        return index

    def verify(self) -> None:
        """Reads and checks everything the last commit covers: every chunk, every hole, the sum.

        Lets changes in between its batches and starts over when one was committed. Raises ChunkForged or FileDamaged.
        """
        for patience in (True, True, True, False):
            if self._verify_pass(patience):
                self.verified = True
                return

    def _verify_pass(self, let_changes_in: bool) -> bool:
        with self._lock:
            if self._pending is not None or self._cut:
                self._settle()
        self._lock.enter_shared()
        try:
            commit = self._commit
            total = 0
            for added in self._slots.batches():
                total += added
                if let_changes_in:
                    self._lock.leave_shared()
                    self._lock.enter_shared()
                    if self._commit is not commit or self._pending is not None:
                        return False
            self._slots.check_sum(total, commit)
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
                self._extend(offset)
            inside = min(len(data), self.size - offset)
            if inside:
                self._overwrite(offset, data[:inside])
            if inside < len(data):
                try:
                    self._append(data[inside:])
                except OSError:
                    if self.size == offset:
                        raise
            if len(self._dirty) * self._chunk > DIRTY_MAX:
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
                self._extend(size)
            elif size < self.size:
                self._shrink(size)

    def allocate(self, offset: int, length: int, *, keep_size: bool = False) -> None:
        """Reserves space for `length` bytes from `offset`, making the file longer unless `keep_size`."""
        with self._lock:
            self._prepare()
            end = offset + length
            if end > MAX_SIZE:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            first = self._slots.offset(offset // self._chunk)
            reserve(self._fd, first, sealed_size(end, self._chunk) - first)
            if end > self.size and not keep_size:
                self._extend(end)

    def punch(self, offset: int, length: int) -> None:
        """Makes `length` bytes from `offset` zeros, and whole chunks a hole. Never changes the size."""
        with self._lock:
            self._prepare()
            end = min(offset + length, self.size)
            first, last = chunk_count(offset, self._chunk), end // self._chunk
            if first >= last:
                self._zero(offset, end)
                return
            self._zero(offset, first * self._chunk)
            self._zero(last * self._chunk, end)
            for edge in (first, last):
                if edge * self._chunk < self.size:
                    self._run_at(edge)  # so that a run which crosses the edge is known and can be carved
            for index in [index for index in self._dirty if first <= index < last]:
                del self._dirty[index]
            self._slots.holes.carve(first, last)
            self._slots.holes.add(first, last)
            self._wipes.append((first, last))
            if len(self._wipes) >= _WIPES_MAX:
                self._settle()

    def flush(self) -> None:
        """Everything written is in the file and committed when this returns; a kill loses nothing of it."""
        with self._lock:
            self._settle()

    def sync(self) -> None:
        """`flush`, and on the disk itself when this returns; a power cut loses nothing of it."""
        with self._lock:
            self._settle(durable=True)

    def rewrap(self, label: bytes, slots: Sequence[WrapSlot]) -> None:
        """Gives the file a label and wrap slots; the content is not touched. Flushes."""
        with self._lock:
            self._settle()
            header, head = self.header._replace(label=label, slots=tuple(slots)).encode(self._keys)
            group = Group(header.file_id, self.path, [(0, head)])
            ticket = self._redo.begin(group, durable=False) if self._redo else None
            group.place(self._fd)
            self.header = header
            if self._redo and ticket is not None:
                self._redo.end(ticket)

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
            self._drop_kept()

    def _prepare(self) -> None:
        """Brings disk and memory to where a change may begin, after an earlier failure or crash."""
        self._check_writable()
        if self._pending is not None or self._cut:
            self._settle()
        if self._garbage:
            os.ftruncate(self._fd, self._slots.end())
            self._garbage = False
        self._drop_kept()

    def _drop_kept(self) -> None:
        if self._slots.kept is not None:
            self._slots.kept.drop()
            self._slots.kept = None

    def _append(self, data: memoryview) -> None:
        chunk = self._chunk
        while data:
            index, have = divmod(self.size, chunk)
            if index == self._slots.count:
                self._append_placed(index, have, data)
                return
            part = data[: chunk - have]
            self._need_space(index, have + len(part))
            plain = self._own(index) if have else self._dirty.setdefault(index, bytearray())
            plain += part
            self.size += len(part)
            data = data[len(part) :]

    def _append_placed(self, index: int, have: int, data: memoryview) -> None:
        """Appends at the end of the placed chunks: what fills a chunk goes to its place, the rest stays in memory."""
        chunk, slots = self._chunk, self._slots
        tail = self._dirty.get(index)
        size = len(data)
        if have + size < chunk:
            self._need_space(index, have + size)
            if tail is None:
                self._dirty[index] = bytearray(data)
            else:
                tail += data
            self.size += size
            return
        pieces: list[Buffer] = []
        at = 0
        if tail is not None:
            at = chunk - have
            pieces.append(b"".join((tail, data[:at])))
        pieces += [data[start : start + chunk] for start in range(at, size - chunk + 1, chunk)]
        whole = len(pieces)
        check_seals(self._seals + whole)
        rest = have + size - whole * chunk
        if rest:
            self._need_space(index + whole, rest)
        stride = chunk + OVERHEAD
        per_write = scratch.SIZE // stride
        total = 0
        buffer = scratch.take()
        # From here on a failure leaves unknown bytes behind the placed slots.
        self._garbage = True
        try:
            for first in range(0, whole, per_write):
                part = pieces[first : first + per_write]
                total += slots.sealer.seal_into(buffer, 0, index + first, self._commit.generation + 1, part)
                write_all(self._fd, buffer[: len(part) * stride], slots.offset(index + first))
        finally:
            scratch.give(buffer)
        self._garbage = False
        self._sum = (self._sum + total) & SUM_MASK
        self._seals += whole
        slots.count += whole
        self._dirty.pop(index, None)
        self.size += size
        if rest:
            self._dirty[index + whole] = bytearray(data[size - rest :])

    def _overwrite(self, offset: int, data: memoryview) -> None:
        chunk, dirty = self._chunk, self._dirty
        while data:
            index, skip = divmod(offset, chunk)
            part = data[: chunk - skip]
            if len(part) == min(chunk, self.size - index * chunk) and index not in dirty:
                if self._run_at(index) is not None:
                    self._fill(index)
                dirty[index] = bytearray(part)
            else:
                self._own(index)[skip : skip + len(part)] = part
            offset += len(part)
            data = data[len(part) :]

    def _own(self, index: int) -> bytearray:
        """The content of a chunk inside the file, held in memory from now on."""
        plain = self._dirty.get(index)
        if plain is None:
            holes = self._slots.holes
            content = None
            if holes.find(index) is None:
                content = self._slots.load(index)
            if content is None:
                self._fill(index)
                content = ZEROS[: self._chunk]
            plain = self._dirty[index] = bytearray(content)
        return plain

    def _fill(self, index: int) -> None:
        """Takes a chunk out of the hole it lies in; the caller makes it dirty."""
        if is_short(self._fd):
            reserve(self._fd, self._slots.offset(index), self._chunk + OVERHEAD)
        self._slots.holes.carve(index, index + 1)

    def _need_space(self, index: int, size: int) -> None:
        """Raises ENOSPC now rather than at flush if `size` bytes of the last chunk, `index`, will not fit."""
        start = self._slots.offset(index)
        self._tail.need(start, start + OVERHEAD + size, start + OVERHEAD + self._chunk)

    def _zero(self, start: int, end: int) -> None:
        while start < end:
            index, skip = divmod(start, self._chunk)
            size = min(self._chunk - skip, end - start)
            if self._run_at(index) is None:
                self._own(index)[skip : skip + size] = ZEROS[:size]
            start += size

    def _extend(self, size: int) -> None:
        chunk = self._chunk
        index, have = divmod(self.size, chunk)
        last, rest = divmod(size, chunk)
        if last > index:
            # The backing says now what it cannot hold (EFBIG).
            os.ftruncate(self._fd, sealed_size(size, chunk))
        if rest:
            self._need_space(last, rest)
        if have:
            plain = self._own(index)
            plain += ZEROS[: min(chunk, size - index * chunk) - have]
            index += 1
        if index < last:
            self._slots.holes.add(index, last)
        if rest and index <= last:
            self._dirty[last] = bytearray(rest)
        self.size = size

    def _shrink(self, size: int) -> None:
        chunk, slots = self._chunk, self._slots
        last, rest = divmod(size, chunk)
        keep = last + (rest > 0)
        # A run that ends in the last chunk kept, or crosses the new end, has to be known before it is cut.
        for index in (keep - 1, keep):
            if index * chunk < self.size:
                self._run_at(index)
        plain = self._own(last) if rest else bytearray()
        dropped = slots.added_by(keep, slots.count)
        # From here on nothing fails before the new state is complete.
        del plain[rest:]
        for index in [index for index in self._dirty if index >= keep]:
            del self._dirty[index]
        self._tail.forget()
        slots.holes.carve(keep, chunk_count(self.size, chunk))
        self._wipes = [(first, min(after, keep)) for first, after in self._wipes if first < keep]
        self._sum = (self._sum - dropped) & SUM_MASK
        slots.count = min(slots.count, keep)
        self.size = size
        self._cut = True
        self._settle()

    def _empty(self) -> None:
        """Truncation to nothing needs nothing of the old state, so it works on a damaged file and on a full disk."""
        self._check_writable()
        self._drop_kept()
        self._dirty.clear()
        self._wipes.clear()
        self._slots.holes.clear()
        self._pending = None
        self._tail.forget()
        self._slots.count = self._sum = self.size = 0
        self._slots.short = (-1, 0)
        if self.dirty or self._ticket is not None:
            self._garbage, self._cut = False, True
            self._settle()
        else:
            # Never committed with content: what was placed is only behind the end.
            self._garbage = True
            self._prepare()

    def _check_writable(self) -> None:
        if self.header.read_only_compatible:
            raise FormatUnknown("the file has features with which this program may only read it")

    # ---- committing ------------------------------------------------------------------------------------------------

    def _settle(self, durable: bool = False) -> None:
        """Seals, places and commits what changed. On failure everything is kept, and the next call carries on."""
        if self._pending is None:
            if self.dirty:
                self._pending = self._plan()
            elif durable:
                os.fdatasync(self._fd)
                return
        if self._pending is not None:
            self._place(self._pending, durable)

    def _plan(self) -> Plan:
        if self._garbage:
            os.ftruncate(self._fd, self._slots.end())
            self._garbage = False
        return plan(
            self._slots,
            self.header,
            self._keys,
            self.path,
            Commit(self._commit.generation, self.size, self._seals, self._sum),
            self._dirty,
            self._wipes,
            cut=self._cut or self._tail.taken,
        )

    def _place(self, plan: Plan, durable: bool) -> None:
        for offset, image in plan.fresh:
            write_all(self._fd, image, offset)
        logged = self._redo is not None and (plan.logged or self._ticket is not None)
        if durable and self._commit.generation:
            # INVARIANT: what a commit newly counts is on the disk before a commit that replaces a durable one.
            os.fdatasync(self._fd)
        ticket = self._redo.begin(plan.group, durable=durable) if self._redo is not None and logged else None
        if self._redo is not None and self._ticket is not None:
            self._redo.end(self._ticket)
        self._ticket = ticket
        plan.group.place(self._fd)
        if durable:
            os.fdatasync(self._fd)
        self._pending = None
        self._commit = plan.commit
        self._sum = plan.commit.sum
        self._seals = plan.commit.seals
        self._slots.adopt(plan.commit)
        self._slots.holes.fresh.clear()
        self._dirty.clear()
        self._wipes.clear()
        self._cut = False
        self._tail.forget()
        if self._redo is not None and ticket is not None:
            self._ticket = None
            self._redo.end(ticket)
