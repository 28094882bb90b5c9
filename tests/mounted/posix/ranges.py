"""Record locks in detail: of open file descriptions, split and merged, made stronger and weaker."""

import errno
import fcntl
import os
import struct
from pathlib import Path

from tests.mounted.posix.support import child, ended, make, opened, refused

_FLOCK = "hhqqi4x"


def ofd(fd: int, kind: int, start: int = 0, length: int = 0) -> None:
    """F_OFD_SETLK: a lock of the open file description."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0))


def held(path: Path, start: int, length: int) -> tuple[int, int, int] | None:
    """What another process finds in the way of a write lock: kind, start and length."""
    reading, writing = os.pipe()

    def asks() -> None:
        with opened(path, os.O_RDWR) as fd:
            question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
            os.write(writing, fcntl.fcntl(fd, fcntl.F_GETLK, question))

    try:
        assert ended(child(asks)) == 0
        kind, _, start, length, _ = struct.unpack(_FLOCK, os.read(reading, 100))
    finally:
        os.close(reading)
        os.close(writing)
    return None if kind == fcntl.F_UNLCK else (kind, start, length)


def check_locks_of_a_description_end_with_it(top: Path) -> None:
    path = make(top / "f", b"x" * 100)
    with opened(path, os.O_RDWR) as stays:
        fd = os.open(path, os.O_RDWR)
        ofd(fd, fcntl.F_WRLCK, 10, 20)
        with refused(errno.EAGAIN):  # two descriptions of one process stand in each other's way
            ofd(stays, fcntl.F_RDLCK, 15, 1)
        os.close(os.open(path, os.O_RDWR))  # and another's close ends nothing
        assert held(path, 0, 0) == (fcntl.F_WRLCK, 10, 20)
        copy = os.dup(fd)
        os.close(fd)
        assert held(path, 0, 0) == (fcntl.F_WRLCK, 10, 20)
        os.close(copy)
        ofd(stays, fcntl.F_WRLCK)


def check_a_description_keeps_its_locks_when_the_process_that_took_them_ends(top: Path) -> None:
    path = make(top / "f", b"x" * 100)
    with opened(path, os.O_RDWR) as fd:
        assert ended(child(lambda: ofd(fd, fcntl.F_WRLCK, 10, 20))) == 0
        assert held(path, 0, 0) == (fcntl.F_WRLCK, 10, 20)
        ofd(fd, fcntl.F_UNLCK)
        assert held(path, 0, 0) is None


def check_a_lock_taken_again_outlives_the_descriptor_of_the_first(top: Path) -> None:
    path = make(top / "f", b"x" * 100)
    for flags in (os.O_RDWR, os.O_RDONLY):
        kind = fcntl.LOCK_EX if flags == os.O_RDWR else fcntl.LOCK_SH
        for _ in range(50):
            with opened(path, flags) as first:
                fcntl.lockf(first, kind)
            with opened(path, flags) as second:
                fcntl.lockf(second, kind)
                assert held(path, 0, 0) is not None
    first = os.open(path, os.O_RDWR)
    ready, done = os.pipe(), os.pipe()

    def inherits() -> None:
        os.close(done[1])
        os.write(ready[1], b"x")
        os.read(done[0], 1)

    fcntl.lockf(first, fcntl.LOCK_EX)
    pid = child(inherits)
    os.read(ready[0], 1)
    os.close(first)
    with opened(path, os.O_RDWR) as second:
        fcntl.lockf(second, fcntl.LOCK_EX)
        os.close(done[1])
        assert ended(pid) == 0
        assert held(path, 0, 0) == (fcntl.F_WRLCK, 0, 0)


def check_ranges_split_merge_and_change_their_kind(top: Path) -> None:
    path = make(top / "f", b"x" * 100)
    with opened(path, os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX, 0, 0)
        fcntl.lockf(fd, fcntl.LOCK_UN, 10, 40)
        assert held(path, 40, 10) is None
        assert held(path, 30, 15) == (fcntl.F_WRLCK, 0, 40)
        assert held(path, 45, 0) == (fcntl.F_WRLCK, 50, 0)
        fcntl.lockf(fd, fcntl.LOCK_SH, 20, 10)
        assert held(path, 0, 10) == (fcntl.F_WRLCK, 0, 10)
        assert held(path, 10, 20) == (fcntl.F_RDLCK, 10, 20)
        assert held(path, 30, 10) == (fcntl.F_WRLCK, 30, 10)
        fcntl.lockf(fd, fcntl.LOCK_EX, 60, 0)
        assert held(path, 10, 5) == (fcntl.F_WRLCK, 0, 0)  # what touches becomes one
        fcntl.lockf(fd, fcntl.LOCK_UN, 1000, 100)
        os.truncate(path, 0)
        assert held(path, 50, 0) == (fcntl.F_WRLCK, 0, 100)
        assert held(path, 100, 0) == (fcntl.F_WRLCK, 1100, 0)
    assert held(path, 0, 0) is None


def check_a_stronger_lock_waits_for_the_other_readers(top: Path) -> None:
    path = make(top / "f", b"x" * 100)
    ready, done = os.pipe(), os.pipe()

    def reads() -> None:
        with opened(path) as fd:
            fcntl.lockf(fd, fcntl.LOCK_SH)
            os.write(ready[1], b"x")
            os.read(done[0], 1)

    with opened(path, os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_SH)
        pid = child(reads)
        os.read(ready[0], 1)
        with refused(errno.EAGAIN, errno.EACCES):
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert held(path, 0, 0) is not None  # a refused wish takes nothing away
        os.write(done[1], b"x")
        assert ended(pid) == 0
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(fd, fcntl.LOCK_SH)
        assert held(path, 0, 0) == (fcntl.F_RDLCK, 0, 0)


def check_locks_need_the_right_mode(top: Path) -> None:
    path = make(top / "f", b"x")
    with opened(path) as fd, refused(errno.EBADF):
        fcntl.lockf(fd, fcntl.LOCK_EX)
    with opened(path, os.O_WRONLY) as fd, refused(errno.EBADF):
        fcntl.lockf(fd, fcntl.LOCK_SH)
