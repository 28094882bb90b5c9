"""Sizes, holes, and bytes that move without a program seeing them."""

import errno
import os
from pathlib import Path

from tests.mounted.posix.support import (
    CHUNK,
    COLLAPSE,
    INSERT,
    KEEP_SIZE,
    PUNCH_HOLE,
    SEEK_SET_DATA,
    SEEK_SET_HOLE,
    ZERO_RANGE,
    fallocate,
    make,
    opened,
    pattern,
    refused,
)


def check_truncate_and_extend(top: Path) -> None:
    data = pattern(200_000)
    path = make(top / "f", data)
    for size in (199_999, CHUNK * 4, CHUNK * 2 + 1, 5000, 4096, 1, 0):
        os.truncate(path, size)
        assert path.stat().st_size == size
        assert path.read_bytes() == data[:size]
    make(path, data)
    with opened(path, os.O_RDWR) as fd:
        os.ftruncate(fd, 50_001)
        os.ftruncate(fd, 300_000)
        assert os.pread(fd, 400_000, 0) == data[:50_001] + bytes(249_999)
        os.pwrite(fd, b"far", 299_999)
        assert os.fstat(fd).st_size == 300_002
    assert path.read_bytes() == data[:50_001] + bytes(249_998) + b"far"
    with refused(errno.EINVAL):
        os.truncate(path, -1)
    with refused(errno.EISDIR):
        os.truncate(top, 0)
    with opened(path) as fd, refused(errno.EINVAL, errno.EBADF):
        os.ftruncate(fd, 0)
    assert path.stat().st_size == 300_002


def check_holes_read_as_zeros_and_are_found(top: Path) -> None:
    megabyte = 1 << 20
    with opened(top / "f", os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b"begin", 0)
        os.pwrite(fd, b"middle", 4 * megabyte)
        os.ftruncate(fd, 8 * megabyte)
        assert os.pread(fd, 100, megabyte) == bytes(100)
        assert os.lseek(fd, 0, SEEK_SET_DATA) == 0
        hole = os.lseek(fd, 0, SEEK_SET_HOLE)
        assert 5 <= hole <= megabyte
        data = os.lseek(fd, hole, SEEK_SET_DATA)
        assert 3 * megabyte < data <= 4 * megabyte
        hole = os.lseek(fd, data, SEEK_SET_HOLE)
        assert 4 * megabyte < hole <= 5 * megabyte
        with refused(errno.ENXIO):
            os.lseek(fd, hole, SEEK_SET_DATA)
        with refused(errno.ENXIO):
            os.lseek(fd, 8 * megabyte, SEEK_SET_HOLE)
        os.fsync(fd)
        assert os.fstat(fd).st_blocks * 512 < megabyte
    with opened(top / "f") as fd:
        assert os.lseek(fd, megabyte, SEEK_SET_DATA) >= 3 * megabyte
        whole = os.pread(fd, 9 * megabyte, 0)
        assert len(whole) == 8 * megabyte
        assert whole.strip(b"\0").replace(b"\0", b"") == b"beginmiddle"


def check_offsets_beyond_four_gigabytes(top: Path) -> None:
    far = (1 << 32) + 12_345
    with opened(top / "f", os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b"near", 0)
        os.pwrite(fd, b"far away", far)
        assert os.fstat(fd).st_size == far + 8
        assert os.pread(fd, 100, far) == b"far away"
        assert os.pread(fd, 10, far - 2) == b"\0\0far away"
        assert os.pread(fd, 16, 1 << 32) == bytes(16)
        assert os.lseek(fd, CHUNK, SEEK_SET_DATA) <= far
        os.ftruncate(fd, far + 3)
    with opened(top / "f") as fd:
        assert os.pread(fd, 100, far) == b"far"
        assert os.pread(fd, 4, 0) == b"near"
        assert os.fstat(fd).st_blocks < 4096
    os.truncate(top / "f", 2)
    assert (top / "f").read_bytes() == b"ne"


def check_fallocate(top: Path) -> None:
    data = pattern(300_000)
    with opened(top / "f", os.O_RDWR | os.O_CREAT) as fd:
        os.write(fd, data)
        os.posix_fallocate(fd, 0, 400_000)
        assert os.fstat(fd).st_size == 400_000
        assert os.pread(fd, 400_000, 0) == data + bytes(100_000)
        fallocate(fd, KEEP_SIZE, 400_000, 100_000)
        assert os.fstat(fd).st_size == 400_000
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 50_000, 150_000)
        data = data[:50_000] + bytes(150_000) + data[200_000:] + bytes(100_000)
        assert os.pread(fd, 400_001, 0) == data
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 399_999, 1_000_000)
        assert os.fstat(fd).st_size == 400_000
        moved = False
        for mode in (ZERO_RANGE, COLLAPSE, INSERT):
            try:
                fallocate(fd, mode, 4096, 4096)
            except OSError as exc:
                assert exc.errno == errno.EOPNOTSUPP
            else:
                moved = moved or mode != ZERO_RANGE
                data = data[:4096] + bytes(4096) + data[8192:]
        with refused(errno.EINVAL):
            fallocate(fd, 0, 0, 0)
    if not moved:
        assert (top / "f").read_bytes() == data
    with opened(top / "f") as fd, refused(errno.EBADF):
        fallocate(fd, 0, 0, 1)


def check_copy_file_range(top: Path) -> None:
    data = pattern(3_000_000)
    make(top / "a", data)
    with opened(top / "a") as source, opened(top / "b", os.O_RDWR | os.O_CREAT) as target:
        os.write(target, b"head")
        done = 0
        while done < 2_000_000:
            got = os.copy_file_range(source, target, 2_000_000 - done, offset_src=100 + done, offset_dst=2 + done)
            assert got
            done += got
        assert os.pread(target, 3_000_000, 0) == b"he" + data[100:2_000_100]
        assert os.copy_file_range(source, target, 10, offset_src=3_000_000) == 0
    with opened(top / "a", os.O_RDWR) as fd:
        with refused(errno.EINVAL):
            os.copy_file_range(fd, fd, 1000, offset_src=0, offset_dst=500)
        assert os.copy_file_range(fd, fd, 1000, offset_src=0, offset_dst=1_500_000) == 1000
    assert (top / "a").read_bytes() == data[:1_500_000] + data[:1000] + data[1_501_000:]
