"""What is saved of a damaged file is exactly what was not damaged."""

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdriver.content.offsets import COMMIT_AT, HEADER_SIZE, MARKER_SIZE, OVERHEAD, SLOTS_AT, TEXT_AT
from fsdriver.content.salvaging import Salvage
from fsdriver.errors import FormatUnknown, HeaderDamaged
from tests.fsdriver.content.samples import CHUNK, memory, new_file, pattern, unlock

STRIDE = CHUNK + OVERHEAD
DATA = (0, 1, 5, 6, 9, 10)
HOLES = ((2, 5), (7, 9))
"""Chunk 10 is the last, and has 700 bytes."""
SIZE = 10 * CHUNK + 700


def sample() -> tuple[bytes, bytearray]:
    """The content and its sealed file."""
    fd = memory()
    file = new_file(fd)
    file.truncate(SIZE)
    content = bytearray(SIZE)
    for index in DATA:
        data = pattern(min(CHUNK, SIZE - index * CHUNK), index)
        content[index * CHUNK : index * CHUNK + len(data)] = data
        file.write(index * CHUNK, data)
    file.close()
    sealed = bytearray(os.pread(fd, 1 << 20, 0))
    os.close(fd)
    return bytes(content), sealed


CONTENT, SEALED = sample()


def salvaged(sealed: bytes | bytearray) -> tuple[Salvage, bytes]:
    fd = memory()
    os.write(fd, sealed)
    try:
        found = Salvage(fd, unlock)
        content = bytearray(found.size)
        at = 0
        for piece in found.pieces():
            assert piece.start == at < piece.end
            at = piece.end
            if piece.data is not None:
                content[piece.start : piece.end] = piece.data
        assert at == found.size
        return found, bytes(content)
    finally:
        os.close(fd)


def chunks(ranges: list[tuple[int, int]]) -> set[int]:
    return {index for start, end in ranges for index in range(start // CHUNK, -(-end // CHUNK))}


def slot(index: int) -> int:
    return HEADER_SIZE + index * STRIDE


def broken(index: int, at: int) -> set[int]:
    """The chunks that are gone when byte `at` of slot `index` is not what it was."""
    for start, end in HOLES:
        if index == start and at < MARKER_SIZE:
            return set(range(start, end))
    return {index}


def test_nothing_is_lost_of_a_whole_file():
    found, content = salvaged(SEALED)
    assert content == CONTENT
    assert (found.together, found.lost, found.notes, found.saved) == (True, [], [], SIZE)


@given(
    flips=st.lists(st.tuples(st.integers(0, 10), st.integers(0, STRIDE - 1), st.integers(1, 255)), max_size=6),
    commit_lost=st.booleans(),
    cut=st.one_of(st.none(), st.integers(HEADER_SIZE, len(SEALED) - 1)),
)
def test_exactly_the_undamaged_chunks_are_saved(flips, commit_lost, cut):
    sealed = bytearray(SEALED)
    damaged = set()
    for index, at, value in {(index, at): (index, at, value) for index, at, value in flips}.values():
        if slot(index) + at < len(sealed):
            sealed[slot(index) + at] ^= value
            damaged |= broken(index, at)
    if cut is not None:
        del sealed[cut:]
        damaged |= {index for index in range(11) if cut < min(slot(index + 1), len(SEALED))}
    if commit_lost:
        sealed[COMMIT_AT + 20] ^= 1
    found, content = salvaged(sealed)
    inside = -(-found.size // CHUNK)
    assert found.size == SIZE or commit_lost
    assert chunks(found.lost) == {index for index in damaged if index < inside}
    for index in range(inside):
        got = content[index * CHUNK : (index + 1) * CHUNK]
        expected = CONTENT[index * CHUNK : (index + 1) * CHUNK]
        assert got == (bytes(len(got)) if index in damaged else expected)
    assert found.together == (not damaged and not commit_lost)


def test_zeroed_chunks_are_lost_and_not_taken_for_holes():
    sealed = bytearray(SEALED)
    for index in (5, 6):
        sealed[slot(index) : slot(index + 1)] = bytes(STRIDE)
    found, _ = salvaged(sealed)
    assert found.lost == [(5 * CHUNK, 7 * CHUNK)]


def test_chunks_in_each_others_place_are_lost():
    sealed = bytearray(SEALED)
    sealed[slot(0) : slot(1)], sealed[slot(6) : slot(7)] = sealed[slot(6) : slot(7)], sealed[slot(0) : slot(1)]
    found, _ = salvaged(sealed)
    assert found.lost == [(0, CHUNK), (6 * CHUNK, 7 * CHUNK)]


def test_an_old_chunk_is_saved_and_the_whole_is_not_called_one():
    fd = memory()
    file = new_file(fd)
    file.write(0, pattern(3 * CHUNK))
    file.flush()
    older = os.pread(fd, 1 << 20, 0)
    file.write(CHUNK, bytes(range(256)) * 16)
    file.close()
    sealed = bytearray(os.pread(fd, 1 << 20, 0))
    os.close(fd)
    sealed[slot(1) : slot(2)] = older[slot(1) : slot(2)]
    found, content = salvaged(sealed)
    assert content == pattern(3 * CHUNK)
    assert (found.lost, found.together) == ([], False)


@pytest.mark.parametrize(
    "at", [TEXT_AT, 88, 120, 200, 4000, SLOTS_AT + 30, SLOTS_AT + 200, SLOTS_AT + 1232 + 99, 2976, 39]
)
def test_a_damaged_header_costs_no_chunk_that_does_not_need_it(at):
    sealed = bytearray(SEALED)
    sealed[at] ^= 0x81
    found, content = salvaged(sealed)
    assert content == CONTENT
    assert found.together
    assert any(note.startswith("header: ") for note in found.notes)


@pytest.mark.parametrize("at", [0, 12, 41, SLOTS_AT + 80])
def test_without_magic_sizes_or_key_there_is_nothing_to_save(at):
    sealed = bytearray(SEALED)
    sealed[at] ^= 1
    with pytest.raises(HeaderDamaged):
        salvaged(sealed)


def test_a_format_that_is_not_known_is_left_alone():
    with pytest.raises(FormatUnknown):
        salvaged(SEALED[:8] + struct.pack(">H", 2) + SEALED[10:])


@pytest.mark.parametrize("size", [0, 7, 512, HEADER_SIZE - 1])
def test_a_file_that_ends_in_its_header_has_nothing(size):
    with pytest.raises(HeaderDamaged):
        salvaged(SEALED[:size])


def test_a_hole_of_a_tebibyte_is_passed_in_a_few_steps():
    fd = memory()
    file = new_file(fd)
    file.truncate(1 << 40)
    file.write(1 << 39, b"in the middle")
    file.close()
    found = Salvage(fd, unlock)
    assert len(list(found.pieces())) < 20
    assert found.together
    os.pwrite(fd, b"?", slot(0))
    found = Salvage(fd, unlock)
    assert len(list(found.pieces())) < 20
    assert found.lost == [(0, 1 << 39)]
    os.close(fd)
