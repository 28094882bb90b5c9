"""One process as /proc shows it, through descriptors that a reused pid or an exec cannot move to another program.

Nothing here opens or waits for a file that the process maps or runs: a link is read as text, and its inode is asked for
with AT_STATX_DONT_SYNC, so a program that lies on this drive, or on a disk that no longer answers, cannot stop us.
Nothing here but `open_maps` leads to the process's mmap lock, which a page fault may hold while it waits for our READ.
"""

import contextlib
import ctypes
import errno
import os
import re
import signal
import struct
from typing import NamedTuple

_STATUS = re.compile(
    rb"\nTgid:\t(\d+)\n.*?\nPPid:\t(\d+)\nTracerPid:\t(\d+)\nUid:\t(\d+)\t(\d+)\t(\d+)\t(\d+)\n"
    rb"Gid:\t\d+\t\d+\t\d+\t(\d+)\n(?:.*?\nVmExe:\s+(\d+) kB\nVmLib:\s+(\d+) kB)?",
    re.DOTALL,
)
_PF_FORKNOEXEC = 0x40  # <linux/sched.h>: forked, and has not called exec since
_PF_KTHREAD = 0x200000
_NAMESPACES = ("user", "pid", "mnt")
_AT_STATX_DONT_SYNC = 0x4000
_STATX_BASIC_STATS = 0x7FF
_STATX_INO_AT, _STATX_CTIME_AT, _STATX_DEV_AT = 32, 96, 136  # struct statx, <linux/stat.h>

_libc = ctypes.CDLL(None, use_errno=True)
_libc.statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]


class Signature(NamedTuple):
    """A file at one moment: any change of its bytes, owner, mode or links changes it."""

    device: int
    inode: int
    ctime_ns: int
    size: int


class Status(NamedTuple):
    """One thread, from /proc/TID/status. `code_kb`: kB of file-backed executable mappings of its process."""

    pid: int
    ppid: int
    tracer: int
    uids: tuple[int, int, int, int]
    gid: int
    code_kb: int


class Stat(NamedTuple):
    """A process, from /proc/PID/stat. `start_time` in clock ticks since boot."""

    forked: bool
    kernel: bool
    start_time: int


Namespaces = tuple[str, str, str]


def process_of(tid: int) -> int:
    """The process (thread group) that thread `tid` belongs to. OSError if there is no such thread."""
    return _parse_status(_read(f"/proc/{tid}/status")).pid


def own_namespaces() -> Namespaces:
    """The user, pid and mount namespaces of this daemon."""
    return _namespaces("/proc/thread-self/ns", None)


class Process:
    """An open /proc/PID. Every method raises OSError (ESRCH, ENOENT) once that very process is gone.

    The descriptors close with the last reference, so a thread that still uses an evicted process never finds its
    numbers given to another file.
    """

    __slots__ = ("_pagemap", "directory", "pid")

    def __init__(self, pid: int, tid: int) -> None:
        self._pagemap = self.directory = -1
        self.pid = pid
        self.directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Where the kernel hides it, same_memory() is never true, so nothing is remembered about the process.
        with contextlib.suppress(PermissionError):
            # Through the thread that asks: the first thread of a process may have ended before the others.
            self._pagemap = os.open(f"task/{tid}/pagemap", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory)

    def __del__(self) -> None:
        for fd in (self.directory, self._pagemap):
            if fd >= 0:
                os.close(fd)

    def same_memory(self) -> bool:
        """Whether the memory this process had when it was opened is still in use: false after exec and exit.

        fs/proc/task_mmu.c looks whether the memory has users before it looks at the offset, and takes no lock for it.
        INVARIANT: true proves that no exec happened only while no other process shares the memory (vfork); see
        `Stat.forked`.
        """
        try:
            os.pread(self._pagemap, 8, 1)
        except OSError as exc:
            return exc.errno == errno.EINVAL
        return False

    def exists(self) -> bool:
        """Whether the process is there (ended but not waited for counts), so that its number is nobody else's.

        pidfd_send_signal(2) takes a descriptor of /proc/PID and, for signal 0, only looks.
        """
        try:
            signal.pidfd_send_signal(self.directory, 0)
        except PermissionError:
            return True
        except OSError:
            return False
        return True

    def exe_link(self, tid: int) -> bytes:
        """The path of the program, as text; it may be forged, and may end in " (deleted)"."""
        return os.readlink(b"task/%d/exe" % tid, dir_fd=self.directory)

    def exe(self, tid: int) -> Signature:
        """The program's file, without asking the filesystem that it lies on."""
        buffer = ctypes.create_string_buffer(256)
        path = b"task/%d/exe" % tid
        if _libc.statx(self.directory, path, _AT_STATX_DONT_SYNC, _STATX_BASIC_STATS, buffer):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        inode, size = struct.unpack_from("=QQ", buffer, _STATX_INO_AT)
        seconds, nanoseconds = struct.unpack_from("=qI", buffer, _STATX_CTIME_AT)
        major, minor = struct.unpack_from("=II", buffer, _STATX_DEV_AT)
        return Signature(os.makedev(major, minor), inode, seconds * 1_000_000_000 + nanoseconds, size)

    def status(self, tid: int) -> Status:
        """Its thread `tid`; OSError if it has no such thread."""
        return _parse_status(_read(f"task/{tid}/status", self.directory))

    def stat(self) -> Stat:
        """The process itself."""
        fields = _read("stat", self.directory).rpartition(b")")[2].split()
        flags = int(fields[6])
        return Stat(bool(flags & _PF_FORKNOEXEC), bool(flags & _PF_KTHREAD), int(fields[19]))

    def namespaces(self, tid: int) -> Namespaces:
        """The namespaces of its thread `tid`. PermissionError where the kernel hides them."""
        return _namespaces(f"task/{tid}/ns", self.directory)

    def hold_namespaces(self, tid: int) -> list[int]:
        """New descriptors that keep these namespaces; the caller closes them."""
        return [
            os.open(f"task/{tid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory) for kind in _NAMESPACES
        ]

    def arguments(self, tid: int) -> list[str]:
        """Its argument vector, which the process itself can have rewritten."""
        text = _read(f"task/{tid}/cmdline", self.directory, 65536)
        return [os.fsdecode(argument) for argument in text.split(b"\0")[:-1]]

    def open_maps(self, tid: int) -> int:
        """A new descriptor of /proc/PID/maps for `mappings.scan`; the caller closes it."""
        return os.open(f"task/{tid}/maps", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory)


def exe_path(pid: int) -> str:
    """The program of some process as /proc names it, "" where that cannot be read. For records only."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def _read(path: str, directory: int | None = None, length: int = 8192) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(fd, length)
    finally:
        os.close(fd)


def _parse_status(text: bytes) -> Status:
    found = _STATUS.search(text)
    if found is None:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    pid, ppid, tracer, real, effective, saved, fs, gid, code, libraries = found.groups(b"0")
    uids = (int(real), int(effective), int(saved), int(fs))
    return Status(int(pid), int(ppid), int(tracer), uids, int(gid), int(code) + int(libraries))


def _namespaces(folder: str, directory: int | None) -> Namespaces:
    user, pid, mount = (os.readlink(f"{folder}/{kind}", dir_fd=directory) for kind in _NAMESPACES)
    return user, pid, mount
