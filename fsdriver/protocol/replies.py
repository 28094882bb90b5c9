"""Answers to the kernel: functions that return the body of a reply, without its header.

Timeouts are seconds (float); an entry reply with `nodeid` 0 is a cached "no such name". An empty body (`EMPTY`) answers
everything that only succeeds or fails.
"""

import os
from typing import NamedTuple

from fsdriver.protocol import abi
from fsdriver.protocol.events import InHeader

EMPTY = b""
_NANO = 1_000_000_000


class Attr(NamedTuple):
    """struct fuse_attr. `blocks` are 512 bytes; `rdev` as st_rdev has it."""

    ino: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    atimensec: int
    mtimensec: int
    ctimensec: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int = 0
    blksize: int = 4096
    flags: int = 0


def attr_from_stat(stat: os.stat_result, ino: int, size: int | None = None) -> Attr:
    """What stat(2) said, under another inode number and, where given, with another size."""
    if size is None:
        size = stat.st_size
    atime, mtime, ctime = stat.st_atime_ns, stat.st_mtime_ns, stat.st_ctime_ns
    return Attr(
        ino,
        size,
        stat.st_blocks,
        atime // _NANO,
        mtime // _NANO,
        ctime // _NANO,
        atime % _NANO,
        mtime % _NANO,
        ctime % _NANO,
        stat.st_mode,
        stat.st_nlink,
        stat.st_uid,
        stat.st_gid,
        # The low half of glibc's dev_t is the kernel's new_encode_dev(), which the protocol carries.
        stat.st_rdev & 0xFFFFFFFF,
    )


def entry(nodeid: int, attr: Attr, entry_timeout: float, attr_timeout: float, generation: int = 0) -> bytes:
    """LOOKUP, MKNOD, MKDIR, SYMLINK, LINK: counts one lookup of `nodeid`."""
    entry_valid, attr_valid = int(entry_timeout), int(attr_timeout)
    return abi.ENTRY_OUT.pack(
        nodeid,
        generation,
        entry_valid,
        attr_valid,
        int((entry_timeout - entry_valid) * _NANO),
        int((attr_timeout - attr_valid) * _NANO),
        *attr,
    )


def attr(attr: Attr, attr_timeout: float) -> bytes:
    """GETATTR, SETATTR."""
    valid = int(attr_timeout)
    return abi.ATTR_OUT.pack(valid, int((attr_timeout - valid) * _NANO), *attr)


def opened(fh: int, open_flags: int = 0) -> bytes:
    """OPEN, OPENDIR; `open_flags` are FOPEN_*."""
    return abi.OPEN_OUT.pack(fh, open_flags)


def created(entry_body: bytes, fh: int, open_flags: int = 0) -> bytes:
    """CREATE, TMPFILE: an entry (counts one lookup) and an open handle."""
    return entry_body + abi.OPEN_OUT.pack(fh, open_flags)


def written(size: int) -> bytes:
    """WRITE."""
    return abi.WRITE_OUT.pack(size)


def copied(head: InHeader, size: int) -> bytes:
    """COPY_FILE_RANGE in both its forms."""
    if head.opcode == abi.Opcode.COPY_FILE_RANGE:
        return abi.WRITE_OUT.pack(size)
    return abi.COPY_FILE_RANGE_OUT.pack(size)


def statfs(stat: os.statvfs_result, namelen: int | None = None) -> bytes:
    """STATFS."""
    return abi.STATFS_OUT.pack(
        stat.f_blocks,
        stat.f_bfree,
        stat.f_bavail,
        stat.f_files,
        stat.f_ffree,
        stat.f_bsize,
        stat.f_namemax if namelen is None else namelen,
        stat.f_frsize,
    )


def xattr_size(size: int) -> bytes:
    """GETXATTR, LISTXATTR that asked with size 0."""
    return abi.GETXATTR_OUT.pack(size)


def lock(start: int, end: int, type: int, pid: int) -> bytes:
    """GETLK: the lock in the way, or type F_UNLCK."""
    return abi.LK_OUT.pack(start, end, type, pid)


def lseek(offset: int) -> bytes:
    return abi.LSEEK_OUT.pack(offset)


class DirectoryEntries:
    """The body of READDIR or READDIRPLUS, filled until the next entry would be longer than `size`.

    `offset` of an entry is where a later READDIR goes on behind it; never 0.
    """

    __slots__ = ("_parts", "_room")

    NO_NODE = bytes(abi.ENTRY_OUT.size)
    """READDIRPLUS: the name alone; the kernel looks it up when somebody asks. Counts no lookup."""

    def __init__(self, size: int) -> None:
        self._parts: list[bytes] = []
        self._room = size

    def add(self, name: bytes, ino: int, offset: int, mode: int, entry_body: bytes = b"") -> bool:
        """False, and nothing added, when it does not fit: the caller then counts no lookup for it.

        `entry_body` (READDIRPLUS only) is `entry(...)`, which counts one lookup, or NO_NODE; always NO_NODE for "."
        and "..".
        """
        length = abi.DIRENT.size + len(name)
        padding = -length % 8
        self._room -= len(entry_body) + length + padding
        if self._room < 0:
            self._room = 0
            return False
        dirent = abi.DIRENT.pack(ino, offset, len(name), mode >> 12 & 15)
        self._parts += (entry_body, dirent, name, b"\0" * padding)
        return True

    def body(self) -> bytes:
        return b"".join(self._parts)
