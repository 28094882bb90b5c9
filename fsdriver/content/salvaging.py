"""Everything of a damaged sealed file that still verifies: each chunk for itself, whatever became of the others.

What one commit made of all of them together is known only if nothing is missing and the sum is the commit's.
"""

import os
from collections.abc import Callable, Generator
from typing import NamedTuple

from fsdriver.content.backing import data_from
from fsdriver.content.chunks import GENERATION_MASK, HOLE, ChunkSealer, word_at
from fsdriver.content.commit import SUM_MASK, Commit
from fsdriver.content.header import Header
from fsdriver.content.keys import FileKey, FileKeys
from fsdriver.content.offsets import (
    COMMIT_AT,
    COMMIT_SIZE,
    HEADER_SIZE,
    MARKER_SIZE,
    OVERHEAD,
    PREFIX_SIZE,
    TAG_SIZE,
    chunk_count,
    plain_size,
    sealed_size,
)
from fsdriver.errors import ChunkForged, FileDamaged, HeaderDamaged


class Piece(NamedTuple):
    """Plain bytes `start` to `end` of the content: `data` of one chunk, None for zeros, whether proven or lost."""

    start: int
    end: int
    data: memoryview | None = None


class Salvage:
    """One damaged file, open for reading as `fd`, which stays the caller's. `pieces` is run through once; what was
    found is in the attributes then."""

    def __init__(self, fd: int, unlock: Callable[[Header], FileKey]) -> None:
        """Raises HeaderDamaged and FormatUnknown where no chunk can be opened for lack of the header, OSError, and what
        `unlock` raises."""
        self.notes: list[str] = []
        """What is wrong with the file as a whole."""
        self.lost: list[tuple[int, int]] = []
        """Plain ranges (start, end) that do not verify, in order; none touches the next."""
        self.newer: list[tuple[int, int]] = []
        """Ranges that verify and are saved, and are newer than the commit: it does not count what is there."""
        self.together = False
        """Whether all pieces are from one commit, the last: the sum says so."""
        self._fd = fd
        self._disk_failed = False
        self._sealed = os.fstat(fd).st_size
        head = os.pread(fd, HEADER_SIZE, 0)
        header = Header.mend(head)
        key = unlock(header)
        try:
            Header.parse(head).check(head, key)
        except HeaderDamaged as exc:
            self.notes.append(f"header: {exc}")
        keys = FileKeys.draw(key, header.file_id, header.suite)
        self._sealer = ChunkSealer(header, keys)
        self._chunk = header.chunk_size
        self._stride = header.chunk_size + OVERHEAD
        self.commit = self._open_commit(head, header, keys)
        self.size = self.commit.size if self.commit else plain_size(self._sealed, self._chunk)
        """Of the content, lost bytes included; without a commit, as much as can be in a file of this length."""
        self._count = chunk_count(self.size, self._chunk)

    @property
    def saved(self) -> int:
        """Plain bytes that verify."""
        return self.size - sum(end - start for start, end in self.lost)

    def _open_commit(self, head: bytes, header: Header, keys: FileKeys) -> Commit | None:
        try:
            commit = Commit.open(head[COMMIT_AT : COMMIT_AT + COMMIT_SIZE], header, keys)
        except FileDamaged as exc:
            self.notes.append(f"{exc}: where the content ends is taken from the length of the file")
            return None
        expected = sealed_size(commit.size, self._chunk)
        if self._sealed < expected:
            self.notes.append(f"the file was cut: {self._sealed} bytes of {expected} are left")
        elif self._sealed > expected:
            self.notes.append(f"{self._sealed - expected} bytes behind the end of the content are left out")
        return commit

    def pieces(self) -> Generator[Piece, None, None]:
        """The content from start to end without a gap. A piece's data is good until the next one is asked for."""
        plain = memoryview(bytearray(self._chunk))
        index = hole_end = total = 0
        while index < self._count:
            start = index * self._chunk
            length = min(self._chunk, self.size - start)
            slot = self._slot(index, length)
            after = index + 1
            lost, newer, data = True, False, None
            if slot is None:
                # Nothing is behind the end of the file; a disk that fails may give the next slot again.
                after = self._count if self._offset(index) >= self._sealed else after
            elif not any(slot):
                lost = index >= hole_end
                after = self._zeros_end(index, self._count if lost else hole_end)
            elif word_at(slot, 0)[0] & HOLE:
                if (run := self._open_marker(slot, index)) is not None:
                    hole_end = min(index + run, self.size // self._chunk)
                    total += self._sealer.added(index, slot[:PREFIX_SIZE], slot[MARKER_SIZE - TAG_SIZE : MARKER_SIZE])
                    lost = index >= hole_end or any(slot[MARKER_SIZE:])
                    newer = self._is_newer(slot)
            elif word_at(slot, 0)[0] and self._open(slot, index, plain[:length]):
                total += self._sealer.added(index, slot[:PREFIX_SIZE], slot[-TAG_SIZE:])
                lost, newer, data = False, self._is_newer(slot), plain[:length]
            end = min(self.size, after * self._chunk)
            if lost or newer:
                _add(self.lost if lost else self.newer, start, end)
            yield Piece(start, end, data)
            index = after
        self.together = not self.lost and self.commit is not None and total & SUM_MASK == self.commit.sum

    def _is_newer(self, slot: memoryview) -> bool:
        return self.commit is not None and word_at(slot, 0)[0] & GENERATION_MASK > self.commit.generation

    def _offset(self, index: int) -> int:
        return HEADER_SIZE + index * self._stride

    def _slot(self, index: int, length: int) -> memoryview | None:
        """The whole slot of a chunk of `length` bytes, None if the file ends in it or the disk does not give it."""
        try:
            slot = os.pread(self._fd, OVERHEAD + length, self._offset(index))
        except OSError as exc:
            if not self._disk_failed:
                self.notes.append(f"chunk {index}, and perhaps others, cannot be read: {exc.strerror}")
                self._disk_failed = True
            return None
        return memoryview(slot) if len(slot) == OVERHEAD + length else None

    def _zeros_end(self, index: int, limit: int) -> int:
        """The first slot after the zero slot `index` that is not in the same hole of the backing file, at most `limit`.
        A hole of 1 TiB is one step."""
        data = data_from(self._fd, self._offset(index))
        return max(index + 1, min(limit, ((self._sealed if data is None else data) - HEADER_SIZE) // self._stride))

    def _open_marker(self, slot: memoryview, index: int) -> int | None:
        try:
            return self._sealer.open_marker(slot, index)
        except ChunkForged:
            return None

    def _open(self, slot: memoryview, index: int, out: memoryview) -> bool:
        try:
            self._sealer.open_into(slot, index, out)
        except ChunkForged:
            return False
        return True


def _add(ranges: list[tuple[int, int]], start: int, end: int) -> None:
    """One more at the end, joined to the last if they touch."""
    if ranges and ranges[-1][1] == start:
        start = ranges.pop()[0]
    ranges.append((start, end))
