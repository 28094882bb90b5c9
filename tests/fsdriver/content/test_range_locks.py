"""Range locks: as two machines see them, which are two open file descriptions here."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.content import range_locks as locks


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[int, int]]:
    path = tmp_path / "file"
    path.touch()
    fds = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    yield fds
    for fd in fds:
        os.close(fd)


def test_one_alone_or_many_together(two: tuple[int, int]) -> None:
    one, other = two
    assert locks.take(one, locks.EXCLUSIVE, locks.COMMIT_AT)
    assert not locks.take(other, locks.SHARED, locks.COMMIT_AT)
    assert locks.held_by_others(other, locks.SHARED, locks.COMMIT_AT) == (locks.EXCLUSIVE, locks.COMMIT_AT, 1)
    assert locks.held_by_others(one, locks.EXCLUSIVE, locks.COMMIT_AT) is None
    assert locks.take(one, locks.SHARED, locks.COMMIT_AT)
    assert locks.take(other, locks.SHARED, locks.COMMIT_AT)
    assert not locks.take(one, locks.EXCLUSIVE, locks.COMMIT_AT)
    locks.release(other, locks.COMMIT_AT)
    assert locks.take(one, locks.EXCLUSIVE, locks.COMMIT_AT)


def test_the_bytes_are_apart(two: tuple[int, int]) -> None:
    one, other = two
    assert locks.take(one, locks.EXCLUSIVE, 0, locks.PROGRAMS_END)
    for byte in (locks.FLOCK_AT, locks.COMMIT_AT, locks.TURN_AT):
        assert locks.take(other, locks.EXCLUSIVE, byte)
    assert not locks.take(other, locks.SHARED, locks.PROGRAMS_END - 1)


def test_a_lock_ends_with_its_description(two: tuple[int, int]) -> None:
    one, other = two
    again = os.dup(one)
    assert locks.take(one, locks.EXCLUSIVE, 0, locks.TO_THE_END)
    os.close(again)  # unlike a record lock of fcntl(2), which any close of the file would end
    assert not locks.take(other, locks.SHARED, 7)
    fresh = os.open(f"/proc/self/fd/{one}", os.O_RDWR)
    os.dup2(fresh, one)
    os.close(fresh)
    assert locks.take(other, locks.EXCLUSIVE, 7)
