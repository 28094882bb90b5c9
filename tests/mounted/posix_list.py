"""What any directory on Linux does: one list, run by `test_posix` on a plain directory and on a drive.

    /usr/bin/python3.11 -I posix_list.py DIRECTORY

Needs root and nothing but the standard library. Every `check_*` gets a directory of its own; one line of JSON each.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import signal
import socket
import stat
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

DANA = 1000
GROUP = 2000
CHUNK = 32768
SEEK_SET_DATA, SEEK_SET_HOLE = os.SEEK_DATA, os.SEEK_HOLE
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO_RANGE, INSERT = 1, 2, 8, 16, 32

libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def refused(*numbers: int) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        assert exc.errno in numbers, f"{exc!r}, not {[errno.errorcode[n] for n in numbers]}"
    else:
        raise AssertionError(f"it was allowed, and should be {[errno.errorcode[n] for n in numbers]}")


def pattern(size: int, seed: int = 1) -> bytes:
    """Bytes that say where they are."""
    words = struct.pack("<64I", *((seed << 24 | at * 2654435761) & 0xFFFFFFFF for at in range(64)))
    return b"".join(struct.pack("<I", at) + words[4:] for at in range(-(-size // 256)))[:size]


def make(path: Path, content: bytes = b"", mode: int = 0o644) -> Path:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
    return path


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDONLY, mode: int = 0o644) -> Iterator[int]:
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def child(function: Callable[[], object]) -> int:
    """A child process that runs `function` and ends with 0, or 1 after an exception."""
    pid = os.fork()
    if pid:
        return pid
    try:
        function()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def as_uid(uid: int, function: Callable[[], object], groups: tuple[int, ...] = ()) -> None:
    def inside() -> None:
        os.setgroups(groups)
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        function()

    assert ended(child(inside)) == 0


def renameat2(old: Path, new: Path, flags: int) -> None:
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    if libc.fallocate64(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# ---- opening and content ---------------------------------------------------------------------------------------------


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

    pids = [child(lambda letter=letter: appends(letter)) for letter in (b"a", b"b", b"c")]
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


# ---- sizes and holes -------------------------------------------------------------------------------------------------


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
        for mode in (ZERO_RANGE, COLLAPSE, INSERT):
            try:
                fallocate(fd, mode, 4096, 4096)
            except OSError as exc:
                assert exc.errno == errno.EOPNOTSUPP
            else:
                data = None if data is None or mode != ZERO_RANGE else data[:4096] + bytes(4096) + data[8192:]
        with refused(errno.EINVAL):
            fallocate(fd, 0, 0, 0)
    if data is not None:
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


# ---- names -----------------------------------------------------------------------------------------------------------


def check_mkdir_rmdir_unlink(top: Path) -> None:
    os.mkdir(top / "d", 0o750)
    assert stat.S_IMODE((top / "d").stat().st_mode) == 0o750
    with refused(errno.EEXIST):
        os.mkdir(top / "d")
    make(top / "d" / "f")
    with refused(errno.ENOTEMPTY):
        os.rmdir(top / "d")
    with refused(errno.EISDIR, errno.EPERM):
        os.unlink(top / "d")
    with refused(errno.ENOTDIR):
        os.rmdir(top / "d" / "f")
    with refused(errno.ENOTDIR):
        os.stat(top / "d" / "f" / "x")
    os.unlink(top / "d" / "f")
    with refused(errno.ENOENT):
        os.unlink(top / "d" / "f")
    os.rmdir(top / "d")
    with refused(errno.ENOENT):
        os.stat(top / "d")
    make(top / "d", b"a file where a directory was")
    assert (top / "d").is_file()
    assert os.listdir(top) == ["d"]


def check_a_removed_directory_stays_usable_to_who_is_in_it(top: Path) -> None:
    os.mkdir(top / "d")
    with opened(top / "d", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir(top / "d")
        assert os.listdir(fd) == []
        with refused(errno.ENOENT):
            os.open("new", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
        with refused(errno.ENOENT):
            os.mkdir("new", dir_fd=fd)
        assert stat.S_ISDIR(os.fstat(fd).st_mode)
    os.mkdir(top / "d")
    make(top / "d" / "f")


def check_directory_link_counts(top: Path) -> None:
    before = top.stat().st_nlink
    os.mkdir(top / "a")
    os.mkdir(top / "b")
    assert top.stat().st_nlink == before + 2
    os.rename(top / "a", top / "b" / "a")
    assert top.stat().st_nlink == before + 1
    assert (top / "b").stat().st_nlink == 3
    os.rmdir(top / "b" / "a")
    assert (top / "b").stat().st_nlink == 2


def check_rename_files(top: Path) -> None:
    make(top / "a", b"A")
    make(top / "b", b"B")
    inode = (top / "a").stat().st_ino
    os.rename(top / "a", top / "c")
    assert (top / "c").stat().st_ino == inode
    with refused(errno.ENOENT):
        os.stat(top / "a")
    with opened(top / "b") as victim, opened(top / "c", os.O_RDWR) as mover:
        os.pwrite(mover, b"CC", 0)
        os.rename(top / "c", top / "b")
        assert os.pread(victim, 10, 0) == b"B"
        assert os.fstat(victim).st_nlink == 0
        os.pwrite(mover, b"!", 2)
        assert os.fstat(mover).st_nlink == 1
        assert (top / "b").read_bytes() == b"CC!"
    assert (top / "b").read_bytes() == b"CC!"
    assert os.listdir(top) == ["b"]
    os.mkdir(top / "d")
    with refused(errno.EISDIR):
        os.rename(top / "b", top / "d")
    with refused(errno.ENOTDIR):
        os.rename(top / "d", top / "b")
    os.rename(top / "b", top / "b")
    with refused(errno.ENOENT):
        os.rename(top / "nothing", top / "x")


def check_rename_noreplace_and_exchange(top: Path) -> None:
    make(top / "a", b"A")
    make(top / "b", b"B" * 50_000)
    with refused(errno.EEXIST):
        renameat2(top / "a", top / "b", NOREPLACE)
    renameat2(top / "a", top / "c", NOREPLACE)
    with opened(top / "b") as fd:
        renameat2(top / "b", top / "c", EXCHANGE)
        assert os.pread(fd, 1, 0) == b"B"
    assert (top / "b").read_bytes() == b"A"
    assert (top / "c").read_bytes() == b"B" * 50_000
    os.mkdir(top / "d")
    make(top / "d" / "x", b"X")
    renameat2(top / "d", top / "b", EXCHANGE)
    assert (top / "b" / "x").read_bytes() == b"X"
    assert (top / "d").read_bytes() == b"A"
    renameat2(top / "b" / "x", top / "d", EXCHANGE)
    assert (top / "b" / "x").read_bytes() == b"A"
    assert (top / "d").read_bytes() == b"X"
    with refused(errno.ENOENT):
        renameat2(top / "b", top / "nothing", EXCHANGE)
    with refused(errno.EINVAL):
        renameat2(top / "b", top / "d", EXCHANGE | NOREPLACE)


def check_rename_directories(top: Path) -> None:
    for name in ("a", "a/in", "b", "empty", "full"):
        os.mkdir(top / name)
    make(top / "a" / "in" / "f", b"deep")
    make(top / "full" / "f")
    with refused(errno.EINVAL):
        os.rename(top / "a", top / "a" / "in" / "a")
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        os.rename(top / "b", top / "full")
    with refused(errno.ENOTEMPTY):
        os.rename(top / "a" / "in", top / "a")
    os.rename(top / "b", top / "empty")
    assert sorted(os.listdir(top)) == ["a", "empty", "full"]
    with opened(top / "a" / "in" / "f", os.O_RDWR) as fd:
        os.rename(top / "a", top / "empty" / "moved")
        os.pwrite(fd, b"DEEP", 0)
        os.fsync(fd)
        assert (top / "empty" / "moved" / "in" / "f").read_bytes() == b"DEEP"
    os.rename(top / "empty" / "moved" / "in", top / "in")
    assert (top / "in" / "f").read_bytes() == b"DEEP"
    assert os.listdir(top / "empty" / "moved") == []
    assert (top / "in" / "..").stat().st_ino == top.stat().st_ino


def check_hard_links(top: Path) -> None:
    path = make(top / "a", b"one")
    os.mkdir(top / "d")
    os.link(path, top / "d" / "b")
    assert path.stat().st_nlink == 2
    assert path.stat().st_ino == (top / "d" / "b").stat().st_ino
    with opened(top / "d" / "b", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b" two")
        assert path.read_bytes() == b"one two"
        assert path.stat().st_size == 7
    os.link(top / "d" / "b", top / "c")
    os.rename(top / "a", top / "c")  # two names of one file: nothing happens
    assert path.stat().st_nlink == 3
    with refused(errno.EEXIST):
        os.link(path, top / "c")
    with refused(errno.EPERM):
        os.link(top / "d", top / "e")
    os.unlink(path)
    assert (top / "c").stat().st_nlink == 2
    assert (top / "c").read_bytes() == b"one two"
    make(path, b"another")
    os.rename(path, top / "c")
    assert (top / "d" / "b").stat().st_nlink == 1
    assert (top / "d" / "b").read_bytes() == b"one two"
    os.chmod(top / "d" / "b", 0o600)
    os.rename(top / "d", top / "e")
    assert stat.S_IMODE((top / "e" / "b").stat().st_mode) == 0o600
    assert (top / "e" / "b").read_bytes() == b"one two"


def check_symlinks(top: Path) -> None:
    make(top / "f", b"target")
    os.symlink("f", top / "s")
    assert os.readlink(top / "s") == "f"
    assert (top / "s").read_bytes() == b"target"
    assert (top / "s").lstat().st_size == 1
    os.symlink("x" * 4095, top / "long")
    assert os.readlink(top / "long") == "x" * 4095
    os.symlink("nowhere", top / "dangling")
    with refused(errno.ENOENT):
        os.stat(top / "dangling")
    with refused(errno.EEXIST):
        os.symlink("f", top / "s")
    with refused(errno.EINVAL):
        os.readlink(top / "f")
    with refused(errno.ELOOP):
        os.open(top / "s", os.O_RDONLY | os.O_NOFOLLOW)
    os.link(top / "s", top / "hard", follow_symlinks=False)
    assert os.readlink(top / "hard") == "f"
    os.chown(top / "s", DANA, GROUP, follow_symlinks=False)
    assert ((top / "s").lstat().st_uid, (top / "f").stat().st_uid) == (DANA, 0)
    os.utime(top / "s", ns=(5, 6), follow_symlinks=False)
    assert (top / "s").lstat().st_mtime_ns == 6
    os.symlink("loop", top / "loop")
    with refused(errno.ELOOP):
        os.stat(top / "loop")
    os.rename(top / "s", top / "t")
    assert (top / "t").read_bytes() == b"target"
    with opened(top / "dangling", os.O_WRONLY | os.O_CREAT) as fd:
        os.write(fd, b"made")
    assert (top / "nowhere").read_bytes() == b"made"


def check_fifos_sockets_and_mknod(top: Path) -> None:
    os.mkfifo(top / "fifo", 0o600)
    assert stat.S_ISFIFO((top / "fifo").stat().st_mode)

    def writes() -> None:
        with opened(top / "fifo", os.O_WRONLY) as fd:
            os.write(fd, b"through")

    pid = child(writes)
    with opened(top / "fifo") as fd:
        assert os.read(fd, 100) == b"through"
    assert ended(pid) == 0
    os.chdir(top)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("sock")
        server.listen()
        client.connect("sock")
    assert stat.S_ISSOCK((top / "sock").stat().st_mode)
    os.mknod(top / "regular", stat.S_IFREG | 0o640)
    assert stat.S_IMODE((top / "regular").stat().st_mode) == 0o640
    assert make(top / "regular", b"x").read_bytes() == b"x"
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert (top / "null").stat().st_rdev == os.makedev(1, 3)
    for name in ("fifo", "sock", "regular", "null"):
        os.unlink(top / name)


def check_unlinked_but_open(top: Path) -> None:
    path = make(top / "f", b"content" * 10_000)
    with opened(path, os.O_RDWR) as fd, opened(path) as second:
        os.unlink(path)
        make(path, b"another file")
        assert os.fstat(fd).st_nlink == 0
        assert os.pread(second, 7, 7) == b"content"
        os.pwrite(fd, b"CHANGED", 0)
        assert os.pread(second, 7, 0) == b"CHANGED"
        os.ftruncate(fd, 3)
        os.fchmod(fd, 0o600)
        os.utime(fd, ns=(1, 2))
        os.fsync(fd)
        found = os.fstat(second)
        assert (found.st_size, stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (3, 0o600, 2)
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        assert os.read(again, 100) == b"CHA"
        os.close(again)
    assert path.read_bytes() == b"another file"


def check_created_and_unlinked_at_once(top: Path) -> None:
    for _ in range(20):
        with opened(top / "tmp", os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
            os.unlink(top / "tmp")
            os.write(fd, pattern(70_000))
            assert os.pread(fd, 80_000, 0) == pattern(70_000)
    assert os.listdir(top) == []


def check_long_and_odd_names(top: Path) -> None:
    names = [
        b"n" * 255,
        "名".encode() * 85,
        b"\xff\xfe invalid \x80",
        b"new\nline",
        b" ",
        b"-rf",
        b"tab\t\\\"'",
        b"a" * 254,
    ]
    for name in names:
        path = Path(os.fsdecode(os.fsencode(top) + b"/" + name))
        make(path, name)
        assert path.read_bytes() == name
        assert path.stat().st_size == len(name)
    assert sorted(os.listdir(os.fsencode(top))) == sorted(names)
    with refused(errno.ENAMETOOLONG):
        os.stat(top / ("n" * 256))
    with refused(errno.ENAMETOOLONG):
        os.open(top / ("n" * 256), os.O_WRONLY | os.O_CREAT)
    with refused(errno.ENAMETOOLONG):
        os.mkdir(top / ("n" * 256))
    folder = Path(os.fsdecode(os.fsencode(top) + b"/\xff folder"))
    os.mkdir(folder)
    make(folder / "f", b"in")
    os.rename(folder, top / "folder")
    assert (top / "folder" / "f").read_bytes() == b"in"


def check_listing_of_five_thousand_names_that_change_meanwhile(top: Path) -> None:
    stays = {f"stays-{number}" for number in range(4000)}
    goes = {f"goes-{number}" for number in range(1000)}
    for name in stays | goes:
        os.mknod(top / name, stat.S_IFREG | 0o644)
    with os.scandir(top) as listing:
        seen = [next(listing).name for _ in range(100)]
        for name in goes:
            os.unlink(top / name)
        for number in range(200):
            make(top / f"comes-{number}")
        seen += [entry.name for entry in listing]
    assert len(seen) == len(set(seen))
    assert stays <= set(seen)
    assert set(os.listdir(top)) == stays | {f"comes-{number}" for number in range(200)}
    with opened(top, os.O_RDONLY | os.O_DIRECTORY) as fd:
        before = len(os.listdir(fd))
        make(top / "late")
        os.lseek(fd, 0, os.SEEK_SET)
        assert len(os.listdir(fd)) == before + 1
    for name in os.listdir(top):
        os.unlink(top / name)
    assert os.listdir(top) == []


def check_listing_tells_types_and_inodes(top: Path) -> None:
    make(top / "f")
    os.mkdir(top / "d")
    os.symlink("f", top / "s")
    os.mkfifo(top / "p")
    kinds = {
        entry.name: (entry.is_file(follow_symlinks=False), entry.is_dir(follow_symlinks=False), entry.is_symlink())
        for entry in os.scandir(top)
    }
    assert kinds == {
        "f": (True, False, False),
        "d": (False, True, False),
        "s": (False, False, True),
        "p": (False, False, False),
    }
    for entry in os.scandir(top):
        assert entry.inode() == os.lstat(entry.path).st_ino


# ---- attributes ------------------------------------------------------------------------------------------------------


def check_chmod_chown_and_times(top: Path) -> None:
    path = make(top / "f", b"x")
    os.mkdir(top / "d")
    for target in (path, top / "d"):
        for mode in (0o777, 0o000, 0o4755 if target == path else 0o1777, 0o640):
            os.chmod(target, mode)
            assert stat.S_IMODE(target.stat().st_mode) == mode
        os.chown(target, DANA, GROUP)
        assert (target.stat().st_uid, target.stat().st_gid) == (DANA, GROUP)
        os.chown(target, -1, 0)
        assert (target.stat().st_uid, target.stat().st_gid) == (DANA, 0)
        for atime, mtime in ((1, 2), (1_700_000_000_123_456_789, 1_600_000_000_987_654_321), (-1, -1_000_000_001)):
            os.utime(target, ns=(atime, mtime))
            assert (target.stat().st_atime_ns, target.stat().st_mtime_ns) == (atime, mtime), (atime, mtime)
    before = time.time_ns()
    os.utime(path)
    assert before - 50_000_000 <= path.stat().st_mtime_ns <= time.time_ns() + 50_000_000


def check_times_move_when_content_does(top: Path) -> None:
    path = make(top / "f", b"x")
    for change in (
        lambda: make(path, b"y"),
        lambda: os.truncate(path, 100),
        lambda: os.truncate(path, 0),
        lambda: append(path),
    ):
        os.utime(path, ns=(1, 1))
        before = time.time_ns() - 20_000_000
        change()
        found = path.stat()
        assert before <= found.st_mtime_ns <= time.time_ns() + 20_000_000
        assert before <= found.st_ctime_ns
        assert found.st_atime_ns == 1
    os.utime(top, ns=(1, 1))
    make(top / "g")
    assert top.stat().st_mtime_ns > 1
    os.utime(top, ns=(1, 1))
    os.unlink(top / "g")
    assert top.stat().st_mtime_ns > 1


def append(path: Path) -> None:
    with opened(path, os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"more")


def check_times_set_while_open_for_writing_stay(top: Path) -> None:
    with opened(top / "f", os.O_RDWR | os.O_CREAT) as fd:
        os.write(fd, b"content")
        os.utime(fd, ns=(1_000, 2_000))
        assert os.fstat(fd).st_mtime_ns == 2_000
    assert (top / "f").stat().st_mtime_ns == 2_000
    with opened(top / "f", os.O_RDWR) as fd:
        os.read(fd, 1)
        os.fsync(fd)
    assert (top / "f").stat().st_mtime_ns == 2_000


def check_statfs(top: Path) -> None:
    make(top / "f")
    found = os.statvfs(top)
    assert found.f_blocks > found.f_bfree > 0
    assert found.f_namemax == 255
    with opened(top / "f") as fd:
        assert os.fstatvfs(fd).f_blocks == found.f_blocks


def check_user_xattrs(top: Path) -> None:
    path = make(top / "f", b"x")
    assert os.listxattr(path) == []
    os.setxattr(path, "user.a", b"value")
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "user.binary", bytes(range(256)))
    assert sorted(os.listxattr(path)) == ["user.a", "user.binary", "user.empty"]
    assert os.getxattr(path, "user.a") == b"value"
    assert os.getxattr(path, "user.empty") == b""
    assert os.getxattr(path, "user.binary") == bytes(range(256))
    with refused(errno.EEXIST):
        os.setxattr(path, "user.a", b"x", os.XATTR_CREATE)
    with refused(errno.ENODATA):
        os.setxattr(path, "user.none", b"x", os.XATTR_REPLACE)
    os.setxattr(path, "user.a", b"longer value", os.XATTR_REPLACE)
    with opened(path, os.O_RDWR) as fd:
        assert os.getxattr(fd, "user.a") == b"longer value"
        os.removexattr(fd, "user.a")
    with refused(errno.ENODATA):
        os.getxattr(path, "user.a")
    with refused(errno.ENODATA):
        os.removexattr(path, "user.a")
    os.rename(path, top / "g")
    os.link(top / "g", top / "h")
    assert os.getxattr(top / "h", "user.binary") == bytes(range(256))
    assert (top / "g").read_bytes() == b"x"


def check_permissions_hold_for_another_uid(top: Path) -> None:
    os.chmod(top, 0o755)
    make(top / "open", b"all may read", 0o644)
    make(top / "closed", b"secret", 0o600)
    make(top / "group", b"group", 0o640)
    os.chown(top / "group", 0, GROUP)
    os.mkdir(top / "shut", 0o700)
    os.mkdir(top / "shared", 0o1777)
    os.chmod(top / "shared", 0o1777)
    make(top / "shared" / "root's", b"")

    def dana() -> None:
        assert (top / "open").read_bytes() == b"all may read"
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            with refused(errno.EACCES):
                os.open(top / "open", flags)
        with refused(errno.EACCES):
            os.open(top / "closed", os.O_RDONLY)
        assert not os.access(top / "closed", os.R_OK)
        assert (top / "group").read_bytes() == b"group"
        with refused(errno.EACCES):
            os.listdir(top / "shut")
        with refused(errno.EACCES):
            os.stat(top / "shut" / "x")
        with refused(errno.EACCES):
            os.open(top / "new", os.O_WRONLY | os.O_CREAT)
        with refused(errno.EACCES):
            os.unlink(top / "open")
        with refused(errno.EACCES):
            os.rename(top / "open", top / "mine")
        with refused(errno.EPERM):
            os.chmod(top / "open", 0o777)
        with refused(errno.EPERM):
            os.utime(top / "open", ns=(1, 1))
        with refused(errno.EACCES):
            os.truncate(top / "open", 0)
        with refused(errno.EPERM):
            os.unlink(top / "shared" / "root's")
        mine = make(top / "shared" / "mine", b"my own")
        assert (mine.stat().st_uid, mine.stat().st_gid) == (DANA, DANA)
        os.mkdir(top / "shared" / "folder")
        os.symlink("x", top / "shared" / "link")
        os.mkfifo(top / "shared" / "fifo")
        for name in ("folder", "link", "fifo"):
            assert (top / "shared" / name).lstat().st_uid == DANA
        with refused(errno.EPERM):
            os.chown(mine, 0, 0)
        os.chmod(mine, 0o400)
        with refused(errno.EACCES):
            os.open(mine, os.O_RDWR)
        os.unlink(mine)

    as_uid(DANA, dana, groups=(GROUP,))
    assert (top / "open").read_bytes() == b"all may read"


def check_set_group_id_directories(top: Path) -> None:
    shared = top / "shared"
    os.mkdir(shared)
    os.chown(shared, 0, GROUP)
    os.chmod(shared, 0o2777)

    def dana() -> None:
        make(shared / "f", b"x")
        os.mkdir(shared / "d")
        os.symlink("x", shared / "s")
        for name in ("f", "d", "s"):
            found = (shared / name).lstat()
            assert (found.st_uid, found.st_gid) == (DANA, GROUP), name
        assert (shared / "d").stat().st_mode & stat.S_ISGID

    as_uid(DANA, dana)


def check_set_user_id_goes_when_another_writes(top: Path) -> None:
    changes: dict[str, Callable[[Path], object]] = {
        "write": append,
        "truncate": lambda path: os.truncate(path, 1),
        "O_TRUNC": lambda path: make(path, b"new"),
    }
    for name, change in changes.items():
        path = make(top / name, b"program")
        os.chown(path, 0, GROUP)
        os.chmod(path, 0o6777)
        assert stat.S_IMODE(path.stat().st_mode) == 0o6777
        as_uid(DANA, lambda change=change, path=path: change(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o777, (name, oct(path.stat().st_mode))
    path = make(top / "chown", b"program")
    os.chmod(path, 0o6755)
    os.chown(path, DANA, DANA)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def check_umask_applies(top: Path) -> None:
    before = os.umask(0o027)
    try:
        make(top / "f", mode=0o666)
        os.mkdir(top / "d", 0o777)
        os.mkfifo(top / "p", 0o666)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((top / name).stat().st_mode) for name in ("f", "d", "p")]
    assert modes == [0o640, 0o750, 0o640]


def check_o_tmpfile_works_or_is_not_supported(top: Path) -> None:
    try:
        fd = os.open(top, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as exc:
        assert exc.errno == errno.EOPNOTSUPP
        return
    os.close(fd)
    assert os.listdir(top) == []


# ---- locks -----------------------------------------------------------------------------------------------------------


def check_fcntl_locks_between_processes(top: Path) -> None:
    path = make(top / "f", b"x" * 100)

    def tries(start: int, length: int, kind: int = fcntl.LOCK_EX) -> Callable[[], None]:
        def inside() -> None:
            with opened(path, os.O_RDWR) as other:
                fcntl.lockf(other, kind | fcntl.LOCK_NB, length, start)

        return inside

    def free(start: int, length: int, kind: int = fcntl.LOCK_EX) -> bool:
        def inside() -> None:
            with opened(path, os.O_RDWR) as other:
                try:
                    fcntl.lockf(other, kind | fcntl.LOCK_NB, length, start)
                except BlockingIOError:
                    os._exit(3)

        return ended(child(inside)) == 0

    fd = os.open(path, os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX, 10, 20)
    assert free(0, 20)
    assert free(30, 0)
    assert not free(29, 1)
    assert not free(0, 0)
    question = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)

    def asks() -> None:
        with opened(path, os.O_RDWR) as other:
            kind, _, start, length, pid = struct.unpack("hhqqi4x", fcntl.fcntl(other, fcntl.F_GETLK, question))
            assert (kind, start, length, pid) == (fcntl.F_WRLCK, 20, 10, os.getppid())

    assert ended(child(asks)) == 0
    fcntl.lockf(fd, fcntl.LOCK_SH, 5, 20)
    assert free(20, 5, fcntl.LOCK_SH)
    assert not free(20, 6, fcntl.LOCK_SH)
    fcntl.lockf(fd, fcntl.LOCK_UN, 2, 22)
    assert free(22, 2)
    assert not free(24, 1)
    os.close(os.open(path, os.O_RDWR))  # any close of this process ends its locks
    assert free(0, 0)
    os.close(fd)


def check_a_read_lock_ends_with_its_descriptor(top: Path) -> None:
    path = make(top / "f", b"x")
    with opened(path, os.O_RDWR) as stays:
        fd = os.open(path, os.O_RDONLY)
        fcntl.lockf(fd, fcntl.LOCK_SH)

        def wants() -> None:
            with opened(path, os.O_RDWR) as other:
                fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

        assert ended(child(lambda: expect_busy(wants))) == 0
        os.close(fd)
        assert ended(child(wants)) == 0
        assert os.fstat(stays).st_size == 1


def check_a_read_lock_ends_with_its_process_though_a_child_has_the_descriptor(top: Path) -> None:
    path = make(top / "f", b"x")
    ready, done = os.pipe(), os.pipe()

    def parent() -> None:
        fd = os.open(path, os.O_RDONLY)
        fcntl.lockf(fd, fcntl.LOCK_SH)
        if os.fork() == 0:
            os.close(done[1])
            os.read(done[0], 1)
            os._exit(0)
        os.write(ready[1], b"x")

    assert ended(child(parent)) == 0
    os.read(ready[0], 1)
    try:
        with opened(path, os.O_RDWR) as fd:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        for number in (*ready, *done):
            os.close(number)


def expect_busy(function: Callable[[], None]) -> None:
    with refused(errno.EAGAIN, errno.EACCES):
        function()


def check_a_waiting_fcntl_lock_gets_its_turn(top: Path) -> None:
    path = make(top / "f", b"x")
    with opened(path, os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX)

        def waits() -> None:
            with opened(path, os.O_RDWR) as other:
                fcntl.lockf(other, fcntl.LOCK_EX)
                os.write(other, b"y")

        pids = [child(waits) for _ in range(4)]
        time.sleep(0.2)
        assert os.pread(fd, 1, 0) == b"x"
        fcntl.lockf(fd, fcntl.LOCK_UN)
        assert [ended(pid) for pid in pids] == [0] * 4
        assert os.pread(fd, 1, 0) == b"y"


def check_a_waiting_lock_can_be_interrupted(top: Path) -> None:
    path = make(top / "f", b"x")
    for lock in (fcntl.lockf, fcntl.flock):
        with opened(path, os.O_RDWR) as fd:
            lock(fd, fcntl.LOCK_EX)

            def waits(lock: Callable[[int, int], None] = lock) -> None:
                class Alarm(Exception):
                    pass

                def rings(*_: object) -> None:
                    raise Alarm

                signal.signal(signal.SIGALRM, rings)
                with opened(path, os.O_RDWR) as other:
                    signal.setitimer(signal.ITIMER_REAL, 0.2)
                    try:
                        lock(other, fcntl.LOCK_EX)
                    except Alarm:
                        return
                raise AssertionError("got a lock that another process holds")

            def is_killed(lock: Callable[[int, int], None] = lock) -> None:
                with opened(path, os.O_RDWR) as other:
                    lock(other, fcntl.LOCK_EX)

            assert ended(child(waits)) == 0
            pid = child(is_killed)
            time.sleep(0.1)
            os.kill(pid, signal.SIGKILL)
            assert ended(pid) == -signal.SIGKILL
            lock(fd, fcntl.LOCK_UN)
            assert ended(child(is_killed)) == 0


def check_flock_belongs_to_the_open_file(top: Path) -> None:
    path = make(top / "f", b"x")
    first, second = os.open(path, os.O_RDONLY), os.open(path, os.O_RDWR)
    fcntl.flock(first, fcntl.LOCK_SH)
    fcntl.flock(second, fcntl.LOCK_SH)
    with refused(errno.EAGAIN):
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    copy = os.dup(first)
    os.close(first)
    with refused(errno.EAGAIN):
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.lockf(second, fcntl.LOCK_EX)  # the other kind of lock does not mind
    os.close(copy)
    fcntl.flock(second, fcntl.LOCK_EX)

    def waits() -> None:
        with opened(path) as fd:
            fcntl.flock(fd, fcntl.LOCK_SH)

    pid = child(waits)
    time.sleep(0.1)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    fcntl.flock(second, fcntl.LOCK_UN)
    os.close(second)
    assert ended(pid) == 0


def check_many_waiting_locks_stop_nobody_else(top: Path) -> None:
    path = make(top / "f", b"x")
    with opened(path, os.O_RDWR) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)

        def waits() -> None:
            with opened(path) as other:
                fcntl.flock(other, fcntl.LOCK_EX)

        threads = [threading.Thread(target=waits) for _ in range(200)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        make(top / "g", pattern(100_000))
        with opened(top / "g", os.O_RDWR) as other:
            os.fsync(other)
        assert ended(child(lambda: make(top / "h", b"by a new process"))) == 0
        fcntl.flock(fd, fcntl.LOCK_UN)
        for thread in threads:
            thread.join()


# ---- mappings and syncing --------------------------------------------------------------------------------------------


def check_shared_mappings(top: Path) -> None:
    data = pattern(200_000)
    path = make(top / "f", data)
    with opened(path, os.O_RDWR) as fd, mmap.mmap(fd, 200_000) as mapped:
        assert mapped[:] == data
        mapped[5:10] = b"HELLO"
        mapped[100_000:100_003] = b"far"
        mapped.flush()
        assert os.pread(fd, 5, 5) == b"HELLO"
        assert path.read_bytes()[100_000:100_003] == b"far"
        os.pwrite(fd, b"written", 150_000)
        assert mapped[150_000:150_007] == b"written"

        def other() -> None:
            with opened(path, os.O_RDWR) as mine, mmap.mmap(mine, 0) as view:
                assert view[5:10] == b"HELLO"
                view[0:3] = b"two"
                view.flush()

        assert ended(child(other)) == 0
        assert mapped[0:3] == b"two"
    model = bytearray(data)
    model[0:3], model[5:10], model[100_000:100_003], model[150_000:150_007] = b"two", b"HELLO", b"far", b"written"
    assert path.read_bytes() == model


def check_a_mapping_outlives_its_descriptor(top: Path) -> None:
    path = make(top / "f", bytes(100_000))
    fd = os.open(path, os.O_RDWR)
    mapped = mmap.mmap(fd, 100_000)
    os.close(fd)
    mapped[50_000:50_004] = b"late"
    os.rename(path, top / "g")
    mapped[0:4] = b"more"
    mapped.flush()
    mapped.close()
    content = (top / "g").read_bytes()
    assert (content[:4], content[50_000:50_004], len(content)) == (b"more", b"late", 100_000)


def check_private_mappings(top: Path) -> None:
    data = pattern(100_000)
    path = make(top / "f", data)
    with opened(path) as fd, mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
        mapped[0:5] = b"mine!"
        assert mapped[5:100_000] == data[5:]
    assert path.read_bytes() == data


def check_a_mapping_beyond_the_end_after_truncation_is_sigbus(top: Path) -> None:
    path = make(top / "f", bytes(100_000))

    def touches() -> None:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        with opened(path, os.O_RDWR) as fd:
            mapped = mmap.mmap(fd, 100_000)
            os.ftruncate(fd, 10)
            mapped[90_000:90_001]

    assert ended(child(touches)) == -signal.SIGBUS


def check_fsync_and_fdatasync(top: Path) -> None:
    with opened(top / "f", os.O_RDWR | os.O_CREAT) as fd:
        for step in range(3):
            os.pwrite(fd, pattern(50_000, step + 1), step * 40_000)
            (os.fsync, os.fdatasync)[step % 2](fd)
        assert os.fstat(fd).st_size == 130_000
    with opened(top, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)
    with opened(top / "f", os.O_RDWR | os.O_SYNC) as fd:
        os.pwrite(fd, b"synced", 7)
    with opened(top / "f") as fd:
        os.fsync(fd)
        assert os.pread(fd, 6, 7) == b"synced"


def check_direct_reads_and_writes(top: Path) -> None:
    with opened(top / "f", os.O_RDWR | os.O_CREAT | os.O_DIRECT) as fd, mmap.mmap(-1, 8192) as page:
        page[:] = pattern(8192)
        assert os.pwrite(fd, page, 0) == 8192
        back = mmap.mmap(-1, 8192)
        assert os.preadv(fd, [back], 0) == 8192
        assert back[:] == page[:]


def check_many_threads_in_one_tree(top: Path) -> None:
    failures: list[BaseException] = []

    def works(number: int) -> None:
        try:
            for step in range(15):
                folder = top / f"{number}-{step}"
                os.mkdir(folder)
                make(folder / "a", pattern(40_000, number + 1))
                os.rename(folder / "a", folder / "b")
                assert (folder / "b").read_bytes() == pattern(40_000, number + 1)
                assert len(os.listdir(top)) >= 1
                os.link(folder / "b", folder / "c")
                shutil.rmtree(folder)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=works, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    assert os.listdir(top) == []


CHECKS = {name.removeprefix("check_"): function for name, function in globals().items() if name.startswith("check_")}
CHECK_SECONDS = 40


def _too_long(*_: object) -> None:
    raise TimeoutError(f"took more than {CHECK_SECONDS} seconds")


def main() -> None:
    top = Path(sys.argv[1])
    for name in sys.argv[2:] or CHECKS:
        folder = top / name
        folder.mkdir()
        # A child for each, so that nothing one of them leaves (locks, handlers, a hang) reaches the next.
        reading, writing = os.pipe()
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGALRM, _too_long)
            signal.alarm(CHECK_SECONDS)
            os.dup2(writing, 2)
            os.close(reading)
            try:
                CHECKS[name](folder)
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as pipe:
            trouble = pipe.read().decode()
        code = ended(pid)
        if code:
            trouble += f"ended with {code}"
        print(json.dumps({"check": name, "trouble": trouble, "seconds": time.monotonic() - started}), flush=True)


if __name__ == "__main__":
    main()
