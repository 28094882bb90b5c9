"""What the checks share: programs of one line, children, and what the `os` module lacks."""

import contextlib
import ctypes
import errno
import os
import struct
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


def append(path: Path) -> None:
    with opened(path, os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b"more")
