"""The executable mappings of a process: which files its code comes from, and whether some of it comes from none.

Read with the PROCMAP_QUERY ioctl (Linux 6.11+, <linux/fs.h>), else from the text of /proc/PID/maps. Both take the
process's mmap lock where the kernel has no lock per mapping, so a caller must be able to give up waiting.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Container, Iterator
from typing import NamedTuple

FileId = tuple[int, int]  # device and inode as /proc/PID/maps shows them; on btrfs not the device that stat shows

_PROCMAP_QUERY = 0xC0686611
# struct procmap_query, 104 bytes: size, flags, address | start, end, flags, page size, offset, inode, major, minor |
# length of the name, of the build id | address of the name, of the build id
_ASK = struct.Struct("=QQQ 56x II QQ")
_ANSWER = struct.Struct("=24x QQ 24x QII I 20x")
_EXECUTABLE_OR_NEXT = 0x04 | 0x10  # PROCMAP_QUERY_VMA_EXECUTABLE, PROCMAP_QUERY_COVERING_OR_NEXT_VMA
_NAME_LENGTH = 4096
_KERNELS_OWN = {b"[vdso]", b"[vsyscall]", b"[vectors]", b"[sigpage]"}
_DELETED = b" (deleted)"


class Mapped(NamedTuple):
    """`files`: each file with executable mappings and its path, b"" where the path was not asked for.

    `anonymous`: there are executable pages that belong to no file (a just-in-time compiler, or injected code).
    """

    files: dict[FileId, bytes]
    anonymous: bool


def scan(maps: int, known: Container[FileId] = ()) -> Mapped:
    """Read the mappings behind a descriptor of /proc/PID/maps; the paths of `known` files may be left out.

    Raises ProcessLookupError once the memory it was opened for is gone (exec, exit).
    """
    try:
        return _collect(_queried(maps, known))
    except OSError as exc:
        if exc.errno != errno.ENOTTY:
            raise
    return _collect(_parsed(maps))


def without_deleted(path: bytes) -> tuple[bytes, bool]:
    """A path as /proc shows it, and whether the file under it was removed since."""
    return (path.removesuffix(_DELETED), True) if path.endswith(_DELETED) else (path, False)


def device_in_maps(fd: int) -> int:
    """The device that /proc/PID/maps shows for the file `fd`, which must not be empty."""
    with mmap.mmap(fd, 1, access=mmap.ACCESS_COPY) as page:
        byte = ctypes.c_char.from_buffer(page)
        start = b"%08x-" % ctypes.addressof(byte)
        del byte  # else the mapping cannot be closed
        with open("/proc/self/maps", "rb") as lines:
            line = next(line for line in lines if line.startswith(start))
    return _device(line.split()[3])


def _collect(found: Iterator[tuple[FileId, bytes]]) -> Mapped:
    files: dict[FileId, bytes] = {}
    anonymous = False
    for file, path in found:
        if file[1]:
            files.setdefault(file, path)
        elif path not in _KERNELS_OWN:
            anonymous = True
    return Mapped(files, anonymous)


def _queried(maps: int, known: Container[FileId]) -> Iterator[tuple[FileId, bytes]]:
    size, ask, answer, ioctl, makedev = _ASK.size, _ASK.pack_into, _ANSWER.unpack, fcntl.ioctl, os.makedev
    name = ctypes.create_string_buffer(_NAME_LENGTH)
    name_at = ctypes.addressof(name)
    query = bytearray(size)
    end = 0
    while True:
        ask(query, 0, size, _EXECUTABLE_OR_NEXT, end, 0, 0, 0, 0)
        try:
            ioctl(maps, _PROCMAP_QUERY, query)
        except FileNotFoundError:
            return
        start, end, inode, major, minor, _ = answer(query)
        file = makedev(major, minor), inode
        if file in known:
            yield file, b""
            continue
        ask(query, 0, size, 0, start, _NAME_LENGTH, 0, name_at, 0)
        ioctl(maps, _PROCMAP_QUERY, query)
        _, end, inode, major, minor, length = answer(query)
        yield (makedev(major, minor), inode), name.value if length else b""


def _parsed(maps: int) -> Iterator[tuple[FileId, bytes]]:
    with open(os.dup(maps), "rb") as lines:
        lines.seek(0)
        text = lines.read()
    if not text:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    for line in text.splitlines():
        _, permissions, _, device, inode, *path = line.split(maxsplit=5)
        if permissions[2] == ord("x"):
            yield (_device(device), int(inode)), path[0].replace(rb"\012", b"\n") if path else b""


def _device(text: bytes) -> int:
    major, _, minor = text.partition(b":")
    return os.makedev(int(major, 16), int(minor, 16))
