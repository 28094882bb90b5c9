"""A sealed file's content as a program sees it now: the slots on disk, overlaid by what waits in memory.

What was written and is not in its place is held here as plaintext (`dirty`) and as hole runs (`Slots.holes`).
INVARIANT: what the last commit covers is not touched here. Two kinds of chunks go to their places at once, since no
commit covers those: whole chunks appended, and everything of a file never committed. No locks, no commits: `SealedFile`
does both.
"""

import os
from contextlib import suppress

from fsdriver.content import scratch
from fsdriver.content.backing import deliver, reserve, write_all
from fsdriver.content.chunks import Buffer
from fsdriver.content.commit import SUM_MASK, Commit
from fsdriver.content.header import Header
from fsdriver.content.keys import FileKeys
from fsdriver.content.offsets import OVERHEAD, chunk_count, sealed_size
from fsdriver.content.plan import Plan, check_seals, seal_plan
from fsdriver.content.slots import ZEROS, Slots
from fsdriver.content.space import TailSpace, is_short

WIPE_COST = 128 * 1024


class Draft:
    """Every method but `read_into`, `hole_at` and `next_hole` needs the file for itself. A change that raises OSError
    has left every byte that a reader can see old or new, and can be made again."""

    __slots__ = (
        "_chunk",
        "_fd",
        "_keys",
        "_sum",
        "_tail",
        "_wipes",
        "commit",
        "cut",
        "dirty",
        "garbage",
        "header",
        "promised",
        "seals",
        "size",
        "slots",
        "unsynced",
    )

    def __init__(self, fd: int, header: Header, keys: FileKeys, commit: Commit) -> None:
        self._fd = fd
        self.header = header
        self._keys = keys
        self._chunk = header.chunk_size
        self._tail = TailSpace(fd)
        self.slots = Slots(fd, header, keys, commit)
        self.commit = commit
        """The last commit on disk."""
        self.size = commit.size
        self.seals = commit.seals
        self._sum = commit.sum
        # INVARIANT: a dirty chunk has its whole logical length; none lies in a hole run.
        self.dirty: dict[int, bytearray] = {}
        self._wipes: list[tuple[int, int]] = []
        """Chunks whose slots become zeros at the next commit: first, after last."""
        self.cut = False
        """The file has to be cut after the next commit."""
        self.garbage = False
        """There may be bytes behind the placed slots; they go before anything is written there."""
        self.unsynced = False
        """Something was placed since the last sync that the next commit counts, or cut off where it may have holes."""
        self.promised = True
        """A sync may have promised the last commit: until the next one counts, it stays readable in a power cut."""

    @property
    def changed(self) -> bool:
        """Whether there is something to commit."""
        return bool(
            self.dirty
            or self._wipes
            or self.cut
            or self.slots.holes.fresh
            or self.size != self.commit.size
            or self._sum != self.commit.sum
        )

    @property
    def waiting(self) -> int:
        """How much waits for the next commit, in plain bytes held in memory; a range to be zeroed counts as some."""
        return len(self.dirty) * self._chunk + len(self._wipes) * WIPE_COST

    # ---- reading ---------------------------------------------------------------------------------------------------

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fills `out` from `offset`; all of it lies inside the file. Raises ChunkForged or FileDamaged."""
        if self.dirty or self.slots.holes:
            self._read_pieces(offset, out)
        else:
            self.slots.read_into(offset, out)

    def _read_pieces(self, offset: int, out: memoryview) -> None:
        chunk, holes, dirty = self._chunk, self.slots.holes, self.dirty
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
                self.slots.read_into(at, out[at - offset : upto - offset])
            at = upto

    def hole_at(self, index: int) -> tuple[int, int] | None:
        """The hole run that covers chunk `index`, None for data."""
        if index in self.dirty:
            return None
        return self.slots.hole_at(index) if index < self.slots.count else self.slots.holes.find(index)

    def next_hole(self, index: int) -> int:
        """The first chunk at or after `index` that lies in a hole, or the number of chunks."""
        slots = self.slots
        end = chunk_count(self.size, self._chunk)
        while index < end and self.hole_at(index) is None:
            # Known runs may stand where the disk still has data.
            known = slots.holes.next_start(index)
            sparse = slots.next_sparse(index) if index < slots.count else end
            index = min(sparse, known) if known is not None else sparse
            if index == slots.count and known is None:
                return end
        return index

    # ---- changing --------------------------------------------------------------------------------------------------

    def cut_garbage(self) -> None:
        """Before anything is placed: what lies behind the slots goes."""
        if self.garbage:
            os.ftruncate(self._fd, self.slots.end())
            self.garbage = False
            self.unsynced = True

    def append(self, data: memoryview) -> None:
        """Adds `data` at the end. When it raises, `size` says how much of it was taken."""
        chunk = self._chunk
        while data:
            index, have = divmod(self.size, chunk)
            if index == self.slots.count:
                self._append_placed(index, have, data)
                return
            part = data[: chunk - have]
            self._need_space(index, have + len(part))
            plain = self._own(index) if have else self.dirty.setdefault(index, bytearray())
            plain += part
            self.size += len(part)
            data = data[len(part) :]

    def _append_placed(self, index: int, have: int, data: memoryview) -> None:
        """Appends at the end of the placed chunks: what fills a chunk goes to its place, the rest stays in memory."""
        chunk, slots = self._chunk, self.slots
        tail = self.dirty.get(index)
        size = len(data)
        if have + size < chunk:
            self._need_space(index, have + size)
            if tail is None:
                self.dirty[index] = bytearray(data)
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
        check_seals(self.seals + whole)
        rest = have + size - whole * chunk
        if rest:
            self._need_space(index + whole, rest)
        stride = chunk + OVERHEAD
        per_write = scratch.SIZE // stride
        total = 0
        buffer = scratch.take()
        # From here on a failure leaves unknown bytes behind the placed slots.
        self.garbage = True
        try:
            for first in range(0, whole, per_write):
                part = pieces[first : first + per_write]
                total += slots.sealer.seal_into(buffer, 0, index + first, self.commit.generation + 1, part)
                write_all(self._fd, buffer[: len(part) * stride], slots.offset(index + first))
            if is_short(self._fd):
                deliver(self._fd)
        except OSError:
            with suppress(OSError):
                self.cut_garbage()
            raise
        finally:
            scratch.give(buffer)
        self.garbage = False
        self.unsynced = True
        self._sum = (self._sum + total) & SUM_MASK
        self.seals += whole
        slots.count += whole
        self.dirty.pop(index, None)
        self.size += size
        if rest:
            self.dirty[index + whole] = bytearray(data[size - rest :])

    def overwrite(self, offset: int, data: memoryview) -> int:
        """Replaces bytes inside the file; how many: fewer than all where a hole could not be filled."""
        chunk, dirty = self._chunk, self.dirty
        done = 0
        while done < len(data):
            index, skip = divmod(offset + done, chunk)
            part = data[done : done + chunk - skip]
            try:
                if len(part) == min(chunk, self.size - index * chunk) and index not in dirty:
                    if self.hole_at(index) is not None:
                        self._fill(index)
                    dirty[index] = bytearray(part)
                else:
                    self._own(index)[skip : skip + len(part)] = part
            except OSError:
                if not done:
                    raise
                break
            done += len(part)
        return done

    def _own(self, index: int) -> bytearray:
        """The content of a chunk inside the file, held in memory from now on."""
        plain = self.dirty.get(index)
        if plain is None:
            if self.slots.holes.find(index) is None:
                plain = self.slots.load(index)
            if plain is None:
                self._fill(index)
                plain = bytearray(self._chunk)
            self.dirty[index] = plain
        return plain

    def _fill(self, index: int) -> None:
        """Takes a chunk out of the hole it lies in; the caller makes it dirty."""
        if is_short(self._fd):
            reserve(self._fd, self.slots.offset(index), self._chunk + OVERHEAD)
        self.slots.holes.carve(index, index + 1)

    def _need_space(self, index: int, size: int) -> None:
        """Raises ENOSPC now rather than at flush if `size` bytes of the last chunk, `index`, will not fit."""
        start = self.slots.offset(index)
        self._tail.need(start, start + OVERHEAD + size, start + OVERHEAD + self._chunk)

    def _zero(self, start: int, end: int) -> None:
        while start < end:
            index, skip = divmod(start, self._chunk)
            size = min(self._chunk - skip, end - start)
            if self.hole_at(index) is None:
                self._own(index)[skip : skip + size] = ZEROS[:size]
            start += size

    def extend(self, size: int) -> None:
        """Makes the file longer, by zeros."""
        chunk = self._chunk
        index, have = divmod(self.size, chunk)
        last, rest = divmod(size, chunk)
        if rest:
            self._need_space(last, rest)
        tail = self._own(index) if have else bytearray()
        if last > index:
            # The backing says now what it cannot hold (EFBIG).
            os.ftruncate(self._fd, sealed_size(size, chunk))
        if have:
            tail += ZEROS[: min(chunk, size - index * chunk) - have]
            index += 1
        if index < last:
            self.slots.holes.add(index, last)
        if rest and index <= last:
            self.dirty[last] = bytearray(rest)
        self.size = size

    def shrink(self, size: int) -> None:
        """Makes the file shorter; it has to be committed before anything else is changed."""
        chunk, slots = self._chunk, self.slots
        last, rest = divmod(size, chunk)
        keep = last + (rest > 0)
        # A run that ends in the last chunk kept, or crosses the new end, has to be known before it is cut.
        for index in (keep - 1, keep):
            if index * chunk < self.size:
                self.hole_at(index)
        plain = self._own(last) if rest else bytearray()
        dropped = slots.added_by(keep, slots.count)
        # From here on nothing fails before the new state is complete.
        del plain[rest:]
        for index in [index for index in self.dirty if index >= keep]:
            del self.dirty[index]
        self._tail.forget()
        slots.holes.carve(keep, chunk_count(self.size, chunk))
        self._wipes = [(first, min(after, keep)) for first, after in self._wipes if first < keep]
        self._sum = (self._sum - dropped) & SUM_MASK
        slots.count = min(slots.count, keep)
        self.size = size
        self.cut = True

    def punch(self, start: int, end: int) -> None:
        """Makes the bytes from `start` to `end` zeros, and whole chunks a hole; `end` lies inside the file."""
        first, last = chunk_count(start, self._chunk), end // self._chunk
        if first >= last:
            self._zero(start, end)
            return
        self._zero(start, first * self._chunk)
        self._zero(last * self._chunk, end)
        for edge in (first, last):
            if edge * self._chunk < self.size:
                self.hole_at(edge)  # so that a run which crosses the edge is known and can be carved
        for index in [index for index in self.dirty if first <= index < last]:
            del self.dirty[index]
        self.slots.holes.carve(first, last)
        self.slots.holes.add(first, last)
        self._wipes.append((first, last))

    def clear(self) -> None:
        """Empties the file, in memory and without a look at what it held."""
        self.dirty.clear()
        self._wipes.clear()
        self._tail.forget()
        self.slots.holes.clear()
        self.slots.count = self._sum = self.size = 0
        self.slots.short = (-1, 0)

    # ---- committing ------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """What has to be placed to commit the content as it is."""
        self.cut_garbage()
        before = Commit(self.commit.generation, self.size, self.seals, self._sum)
        cut = self.cut or self._tail.taken
        return seal_plan(self.slots, self.header, self._keys, before, self.dirty, self._wipes, cut=cut)

    def adopt(self, commit: Commit) -> None:
        """Everything is in its place and counted by `commit`."""
        self.commit = commit
        self.promised = True
        self.seals = commit.seals
        self._sum = commit.sum
        self.slots.adopt(commit)
        self.slots.holes.fresh.clear()
        self.dirty.clear()
        self._wipes.clear()
        self._tail.forget()
        self.cut = False
