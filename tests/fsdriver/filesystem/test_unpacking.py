"""When what is dropped in is taken for incomplete, before anything is copied."""

import os

import pytest

from fsdriver.content import CHUNK_SIZE, HEADER_SIZE, OVERHEAD, Header, SealedFile
from fsdriver.filesystem.unpacking import _has_gap
from tests.fsdriver.content.samples import KEY, memory, new_file

SIZE = 40 * CHUNK_SIZE + 100
DATA = (0, 1, 5, 20, 21, 22, 39, 40)
"""Chunks of the inner file that are no hole."""


def inner_file() -> bytes:
    fd = memory()
    file = new_file(fd, chunk_size=CHUNK_SIZE)
    file.truncate(SIZE)
    for index in DATA:
        file.write(index * CHUNK_SIZE, os.urandom(min(CHUNK_SIZE, SIZE - index * CHUNK_SIZE)))
    file.close()
    sealed = os.pread(fd, 1 << 24, 0)
    os.close(fd)
    return sealed


INNER = inner_file()


def outer_file(step: int, *, without: range = range(0), zeros: bool = False) -> SealedFile:
    """The inner file put into the drive in pieces, but for bytes `without`; pieces of zeros only with `zeros`."""
    fd = memory()
    outer = new_file(fd, chunk_size=CHUNK_SIZE)
    os.close(fd)
    outer.truncate(len(INNER))
    for at in range(0, len(INNER), step):
        piece = INNER[at : at + step]
        if (zeros or any(piece)) and not (at < without.stop and without.start < at + step):
            outer.write(at, piece)
    outer.flush()
    return outer


def gap(outer: SealedFile) -> tuple[bool, bool]:
    """With the key of the inner file and without."""
    header = Header.parse(INNER[:HEADER_SIZE])
    try:
        return _has_gap(outer, header, KEY), _has_gap(outer, header, None)
    finally:
        outer.close()


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("step", [4096, 16_384, CHUNK_SIZE, 100_000, 1 << 20, len(INNER)])
def test_a_whole_file_has_no_gap_however_it_came(step, zeros):
    assert gap(outer_file(step, zeros=zeros)) == (False, False)


def slots(first: int, last: int) -> range:
    stride = CHUNK_SIZE + OVERHEAD
    return range(HEADER_SIZE + first * stride, HEADER_SIZE + last * stride)


@pytest.mark.parametrize("step", [4096, CHUNK_SIZE])
@pytest.mark.parametrize("missing", [slots(0, 6), slots(19, 23), slots(20, 41)])
def test_a_piece_that_is_not_there_yet_is_a_gap(step, missing):
    with_key, _ = gap(outer_file(step, without=missing))
    assert with_key


def test_what_follows_data_is_a_gap_without_the_key_too():
    assert gap(outer_file(4096, without=slots(21, 23))) == (True, True)
