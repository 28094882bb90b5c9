"""Opening, reading and writing."""

import errno
import functools
import os
import stat
from pathlib import Path

from tests.mounted.posix.support import (
    CHUNK,
    DANA,
    as_uid,
    child,
    ended,
    make,
    opened,
    pattern,
    refused,
)


def check_open_creates_excludes_truncates_and_appends(top: Path) -> None:
    path = top / "file"
    with refused(errno.ENOENT):
        os.open(path, os.O_RDWR)
    with opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640) as fd:
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o640
        assert os.write(fd, b"0123456789") == 10
    with refused(errno.EEXIST):
        os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    with opened(path, os.O_RDWR | os.O_CREAT) as fd:
        assert os.read(fd, 100) == b"0123456789"
    with opened(path, os.O_WRONLY) as fd:
        with refused(errno.EBADF):
            os.read(fd, 1)
        os.write(fd, b"ab")
    assert path.read_bytes() == b"ab23456789"
    with opened(path, os.O_WRONLY | os.O_APPEND) as fd:
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b"end")
    assert path.read_bytes() == b"ab23456789end"
    with opened(path, os.O_RDWR | os.O_TRUNC) as fd:
        assert os.fstat(fd).st_size == 0
        assert os.read(fd, 10) == b""
    assert path.stat().st_size == 0
    with refused(errno.ENOTDIR):
        os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    with refused(errno.EISDIR):
        os.open(top, os.O_RDWR)
    with opened(path, os.O_RDONLY) as fd, refused(errno.EBADF):
        os.write(fd, b"x")


def check_a_file_read_only_for_its_owner_can_be_created_and_written(top: Path) -> None:
    def inside() -> None:
        with opened(top / "f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444) as fd:
            os.write(fd, b"content")
            os.fchmod(fd, 0o000)
            os.write(fd, b" more")
        with refused(errno.EACCES):
            os.open(top / "f", os.O_RDONLY)

    os.chmod(top, 0o777)
    as_uid(DANA, inside)
    assert (top / "f").read_bytes() == b"content more"


def check_reads_and_writes_at_any_offset(top: Path) -> None:
    model = bytearray()
    with opened(top / "f", os.O_RDWR | os.O_CREAT) as fd:
        for step, (offset, size) in enumerate(
            [
                (0, 1),
                (1, 4095),
                (CHUNK - 1, 2),
                (CHUNK * 3 + 5, 100_000),
                (10, 70_000),
                (CHUNK, CHUNK),
                (200_001, 0),
                (CHUNK * 2 - 7, 14),
                (4096 * 7, 4096),
                (250_000, 1),
                (0, 250_001),
                (131_072, 131_072),
                (99, 1_500_000),
            ]
        ):
            data = pattern(size, step + 1)
            assert os.pwrite(fd, data, offset) == size
            if size:
                model.extend(bytes(max(0, offset + size - len(model))))
                model[offset : offset + size] = data
            assert os.fstat(fd).st_size == len(model)
            assert os.pread(fd, len(model) + 10, 0) == model
        for offset in (0, 1, CHUNK - 1, CHUNK, 4095, len(model) - 1, len(model), len(model) + 5):
            assert os.pread(fd, 5000, offset) == model[offset : offset + 5000]
    assert (top / "f").read_bytes() == model


def check_append_goes_to_the_end_whoever_else_writes(top: Path) -> None:
    path = make(top / "f")

    def appends(letter: bytes) -> None:
        with opened(path, os.O_WRONLY | os.O_APPEND) as fd:
            for number in range(200):
                os.write(fd, letter * 99 + (b"%d" % (number % 10)))

    pids = [child(functools.partial(appends, letter)) for letter in (b"a", b"b", b"c")]
    assert [ended(pid) for pid in pids] == [0, 0, 0]
    content = path.read_bytes()
    records = [content[at : at + 100] for at in range(0, len(content), 100)]
    assert len(records) == 600
    for letter in (b"a", b"b", b"c"):
        mine = [record[-1:] for record in records if record.startswith(letter * 99)]
        assert mine == [b"%d" % (number % 10) for number in range(200)]


def check_two_descriptors_see_each_others_writes(top: Path) -> None:
    path = make(top / "f", b"x" * 100_000)
    with opened(path) as reading, opened(path, os.O_RDWR) as writing:
        for offset in (0, 50_000, 99_999, 150_000):
            os.pwrite(writing, b"new", offset)
            assert os.pread(reading, 3, offset) == b"new"
            assert os.fstat(reading).st_size == os.fstat(writing).st_size
        os.ftruncate(writing, 10)
        assert os.fstat(reading).st_size == 10
        assert os.pread(reading, 100, 0) == b"new" + b"x" * 7
        os.ftruncate(writing, 100)
        assert os.pread(reading, 100, 0) == b"new" + b"x" * 7 + bytes(90)


def check_readv_writev_and_sendfile(top: Path) -> None:
    with opened(top / "f", os.O_RDWR | os.O_CREAT) as fd, opened(top / "g", os.O_RDWR | os.O_CREAT) as other:
        data = pattern(300_000)
        assert os.writev(fd, [data[:3], data[3:100_000], data[100_000:]]) == 300_000
        parts = [bytearray(7), bytearray(CHUNK), bytearray(5)]
        assert os.preadv(fd, parts, 11) == CHUNK + 12
        assert b"".join(parts) == data[11 : 11 + CHUNK + 12]
        done = 0
        while done < len(data):
            done += os.sendfile(other, fd, done, len(data) - done)
        assert os.pread(other, 400_000, 0) == data
