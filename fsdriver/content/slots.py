"""The slots of one sealed file as they stand on disk: reading, checking, finding holes. Never writes.

`SealedFile` keeps the counters up to date; what it has not placed yet is not known here.
"""

import os
from collections.abc import Iterator

from fsdriver.content import scratch
from fsdriver.content.backing import data_from, hole_from, read_up_to
from fsdriver.content.chunks import GENERATION_MASK, HOLE, ChunkSealer, word_at
from fsdriver.content.commit import SUM_MASK, Commit
from fsdriver.content.header import Header
from fsdriver.content.holes import Holes
from fsdriver.content.kept import Kept
from fsdriver.content.keys import FileKeys
from fsdriver.content.offsets import HEADER_SIZE, MARKER_SIZE, OVERHEAD, PREFIX_SIZE, TAG_SIZE
from fsdriver.errors import ChunkForged, FileDamaged

ZEROS = bytes(1 << 20)


class Slots:
    """Precondition of every method: the chunks it is asked for have been placed (`index < count`)."""

    __slots__ = ("_chunk", "_fd", "_stride", "base", "count", "generation", "holes", "kept", "sealer", "short", "whole")

    def __init__(self, fd: int, header: Header, keys: FileKeys, commit: Commit) -> None:
        self._fd = fd
        self._chunk = header.chunk_size
        self._stride = header.chunk_size + OVERHEAD
        self.sealer = ChunkSealer(header, keys)
        self.holes = Holes()
        self.kept: Kept | None = None
        """The whole file's sealed bytes, while they are known from opening it and nothing changed."""
        self.adopt(commit)

    def adopt(self, commit: Commit) -> None:
        """The disk now holds exactly what `commit` covers."""
        self.generation = commit.generation
        self.whole, rest = divmod(commit.size, self._chunk)
        self.base = self.count = self.whole + (rest > 0)
        """Chunks the commit covers, and chunks placed: those above `base` carry the next generation."""
        self.short = (self.whole, rest) if rest else (-1, 0)
        """The one chunk on disk that is not full, and its length."""

    def offset(self, index: int) -> int:
        return HEADER_SIZE + index * self._stride

    def length(self, index: int) -> int:
        """Plain bytes in the slot on disk."""
        return self.short[1] if index == self.short[0] else self._chunk

    def end(self) -> int:
        """Where the last placed slot ends."""
        last = self.count - 1
        return self.offset(last) + OVERHEAD + self.length(last) if self.count else HEADER_SIZE

    # ---- reading ---------------------------------------------------------------------------------------------------

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fills `out` with the content from plain `offset`. Raises ChunkForged or FileDamaged; then `out` may hold
        verified bytes of chunks before the bad one."""
        limit = scratch.SIZE // self._stride * self._chunk
        while len(out) > (part := limit - offset % self._chunk):
            self._read_batch(offset, out[:part])
            offset += part
            out = out[part:]
        self._read_batch(offset, out)

    def _read_batch(self, offset: int, out: memoryview) -> None:
        chunk, stride, sealer = self._chunk, self._stride, self.sealer
        first, skip = divmod(offset, chunk)
        last = (offset + len(out) - 1) // chunk
        size = (last - first) * stride + OVERHEAD + self.length(last)
        short, generation, base = self.short[0], self.generation, self.base
        buffer = None
        if self.kept is not None and (kept := self.kept.data) is not None:
            slots = kept[self.offset(first) :]
        else:
            buffer = scratch.take()
            slots = buffer[:size]
        try:
            if buffer is not None and read_up_to(self._fd, slots, self.offset(first)) < size:
                raise FileDamaged("the file is shorter than its commit says")
            at = done = 0
            for index in range(first, last + 1):
                length = chunk if index != short else self.short[1]
                take = min(length - skip, len(out) - done)
                slot = slots[at : at + OVERHEAD + length]
                if not 0 < word_at(slot, 0)[0] <= generation + (index >= base):
                    self._check_hole(index, slot)
                    out[done : done + take] = ZEROS[:take]
                elif take == length:
                    sealer.open_into(slot, index, out[done : done + take])
                else:
                    out[done : done + take] = sealer.open(slot, index)[skip : skip + take]
                at += stride
                done += take
                skip = 0
        finally:
            if buffer is not None:
                scratch.give(buffer)

    def load(self, index: int) -> bytearray | None:
        """The whole content of a chunk, None inside a hole."""
        slot = self._read(self.offset(index), OVERHEAD + self.length(index))
        if not 0 < word_at(slot, 0)[0] <= self.generation + (index >= self.base):
            self._check_hole(index, slot)
            return None
        plain = bytearray(len(slot) - OVERHEAD)
        self.sealer.open_into(slot, index, memoryview(plain))
        return plain

    def _read(self, offset: int, size: int) -> memoryview:
        if self.kept is not None and (kept := self.kept.data) is not None:
            return kept[offset : offset + size]
        data = os.pread(self._fd, size, offset)
        if len(data) < size:
            raise FileDamaged("the file is shorter than its commit says")
        return memoryview(data)

    # ---- holes -----------------------------------------------------------------------------------------------------

    def hole_at(self, index: int) -> tuple[int, int] | None:
        """The hole run that covers chunk `index`, None for data."""
        run = self.holes.find(index)
        if run is None:
            word = word_at(self._read(self.offset(index), 8), 0)[0]
            if word == 0:
                run = self._locate(index)
            elif word & HOLE:
                run = self._open_marker(index)
                self.holes.found(*run)
        return run

    def _check_hole(self, index: int, slot: memoryview) -> None:
        """Raises unless a slot that is not data, whole in `slot`, is rightly part of a hole."""
        word = word_at(slot, 0)[0]
        if word & HOLE:
            self.holes.found(*self._open_marker(index))
            slot = slot[MARKER_SIZE:]
        elif word:
            raise ChunkForged(f"chunk {index} is newer than the commit")
        elif self.holes.find(index) is None:
            self._locate(index)
        if slot != ZEROS[: len(slot)]:
            raise FileDamaged(f"the hole at chunk {index} is not empty")

    def _open_marker(self, index: int) -> tuple[int, int]:
        slot = self._read(self.offset(index), MARKER_SIZE)
        if not 0 < word_at(slot, 0)[0] & GENERATION_MASK <= self.generation:
            raise ChunkForged(f"the hole at chunk {index} is newer than the commit")
        end = index + self.sealer.open_marker(slot, index)
        if end > self.whole:
            raise FileDamaged(f"the hole at chunk {index} is longer than the file")
        return index, end

    def _locate(self, index: int) -> tuple[int, int]:
        """The run whose marker lies before the zero slot `index`: the nearest slot before it that is not zero.

        Asks the backing file where its data ends, so a hole of 1 TiB costs some 30 system calls; where the backing has
        no holes it looks at every slot on the way.
        """
        at = index
        while at > 0:
            at = self._last_with_data(at)
            word = word_at(self._read(self.offset(at), 8), 0)[0] if at >= 0 else 0
            if word & HOLE:
                run = self._open_marker(at)
                if index < run[1]:
                    self.holes.found(*run)
                    return run
                break
            if word:
                break
        raise FileDamaged(f"chunk {index} was zeroed")

    def _last_with_data(self, before: int) -> int:
        """The last slot below `before` in which the backing file has data, -1 if none has."""
        end = self.offset(before)

        def has_data(first: int) -> bool:
            found = data_from(self._fd, self.offset(first))
            return found is not None and found < end

        if has_data(before - 1):
            return before - 1
        low, high = -1, before - 1
        # Gallop back from `before`, then bisect: low has data at or after it, high has none.
        step = 1
        while high > 0:
            probe = max(0, high - step)
            if has_data(probe):
                low = probe
                break
            high, step = probe, step * 2
        if low < 0:
            return -1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if has_data(middle) else (low, middle)
        return low

    def next_sparse(self, index: int) -> int:
        """The next slot after `index` in which the backing file has a hole, `count` if none has. Holes of ours whose
        backing is written zeros are passed over: they count as data."""
        found = hole_from(self._fd, self.offset(index) + MARKER_SIZE)
        return self.count if found is None else min(self.count, max(index + 1, (found - HEADER_SIZE) // self._stride))

    # ---- the sum ---------------------------------------------------------------------------------------------------

    def added_at(self, index: int) -> int:
        """What the slot at `index` adds to the sum, 0 for a zero slot."""
        at = self.offset(index)
        prefix = self._read(at, PREFIX_SIZE)
        word = word_at(prefix, 0)[0]
        if word == 0:
            return 0
        length = MARKER_SIZE - OVERHEAD if word & HOLE else self.length(index)
        return self.sealer.added(index, prefix, self._read(at + PREFIX_SIZE + length, TAG_SIZE))

    def added_by(self, first: int, last: int) -> int:
        """What the slots `first <= index < last` add to the sum together, holes skipped."""
        total, index = 0, first
        while index < last:
            word = word_at(self._read(self.offset(index), 8), 0)[0]
            if word:
                total += self.added_at(index)
                index += (
                    self.sealer.open_marker(self._read(self.offset(index), MARKER_SIZE), index) if word & HOLE else 1
                )
            else:
                found = data_from(self._fd, self.offset(index))
                if found is None:
                    break
                index = max(index + 1, (found - HEADER_SIZE) // self._stride)
        return total

    def check_all(self, sealed: bytes, commit: Commit) -> None:
        """Checks the sum of a whole small file, whose bytes are `sealed`, without opening its chunks, and keeps it for
        the first read. Raises ChunkForged or FileDamaged."""
        self.kept = Kept(sealed)
        total, index = 0, 0
        whole = memoryview(sealed)
        try:
            while index < self.count:
                at = self.offset(index)
                if 0 < word_at(whole, at)[0] <= self.generation:
                    end = at + OVERHEAD + self.length(index)
                    total += self.sealer.added(index, whole[at : at + PREFIX_SIZE], whole[end - TAG_SIZE : end])
                    index += 1
                else:
                    total += self.added_at(index)
                    index = self._step(index)
            self.check_sum(total, commit)
        except BaseException:
            self.kept.drop()
            raise

    def _step(self, index: int) -> int:
        """The index after the chunk or the hole that begins at `index`, which is checked to be one."""
        word = word_at(self._read(self.offset(index), 8), 0)[0]
        if 0 < word <= self.generation:
            return index + 1
        if word == 0:
            raise FileDamaged(f"chunk {index} was zeroed")
        if not word & HOLE:
            raise ChunkForged(f"chunk {index} is newer than the commit")
        return self._open_marker(index)[1]

    def check_sum(self, total: int, commit: Commit) -> None:
        if total & SUM_MASK != commit.sum:
            raise FileDamaged(
                "the chunks are not the ones the commit counts: an old chunk was put back, or one is lost"
            )

    def batches(self) -> Iterator[int]:
        """Opens every chunk that the commit covers, yielding what each batch adds to the sum."""
        per_batch = max(1, scratch.SIZE // self._stride)
        plain = memoryview(bytearray(self._chunk))
        index = 0
        while index < self.base:
            last = min(self.base, index + per_batch)
            slots = self._read(
                self.offset(index), self.offset(last - 1) + OVERHEAD + self.length(last - 1) - self.offset(index)
            )
            total = at = 0
            while index < last:
                slot = slots[at : at + OVERHEAD + self.length(index)]
                after = self._step(index)
                if word_at(slot, 0)[0] & HOLE:
                    self._check_empty(self.offset(index) + MARKER_SIZE, self.offset(after))
                    length = MARKER_SIZE - OVERHEAD
                else:
                    length = len(slot) - OVERHEAD
                    self.sealer.open_into(slot, index, plain[:length])
                total += self.sealer.added(index, slot[:PREFIX_SIZE], slot[PREFIX_SIZE + length : OVERHEAD + length])
                at += (after - index) * self._stride
                index = after
            yield total

    def _check_empty(self, start: int, end: int) -> None:
        """Raises FileDamaged unless the backing reads as zeros from `start` to `end`."""
        while (found := data_from(self._fd, start)) is not None and found < end:
            start = found
            upto = min(end, hole_from(self._fd, start) or end)
            while start < upto:
                part = self._read(start, min(upto - start, len(ZEROS)))
                if part != ZEROS[: len(part)]:
                    raise FileDamaged("a hole is not empty")
                start += len(part)
