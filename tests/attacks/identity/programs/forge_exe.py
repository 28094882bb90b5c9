"""Pretend to be another program: make /proc/PID/exe point to the file argv[1].

The kernel lets whoever has CAP_CHECKPOINT_RESTORE in its own user namespace do so (PR_SET_MM_MAP), once no mapping of
the old executable is left; so the rest runs from a page of machine code. argv[2] says how:

    namespace   enter a new user namespace, forge, stay there
    shared      stay in the first namespace, and let a child that shares this process's memory enter one and forge

The forged program is mapped as well, as an exec would have done. x86-64 only.
"""

import ctypes
import mmap
import os
import re
import struct
import sys
from pathlib import Path

CLONE_VM, CLONE_NEWUSER, SIGCHLD = 0x100, 0x10000000, 17
READ, WRITE, MUNMAP, EXIT, PRCTL = 0, 1, 11, 60, 157
PR_SET_MM, PR_SET_MM_MAP = 35, 14

# Makes the system calls of a table: number, six arguments, room for the result; 64 bytes each.
CODE = bytes.fromhex("4889fb488b03488b7b08488b7310488b53184c8b53204c8b43284c8b4b300f05488943384883c340ebd9")

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]


def memory(content: bytes, *, executable: bool = False) -> int:
    protection = mmap.PROT_READ | mmap.PROT_WRITE | (mmap.PROT_EXEC if executable else 0)
    address = libc.mmap(None, max(len(content), 65536), protection, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    ctypes.memmove(address, content, len(content))
    return int(address)


def table(*calls: tuple[int, ...]) -> int:
    return memory(b"".join(struct.pack("=8Q", *call, *(0,) * (8 - len(call))) for call in calls))


def own_executable() -> list[tuple[int, int]]:
    """The mappings of the running interpreter's file."""
    exe = os.readlink("/proc/self/exe")
    lines = Path("/proc/self/maps").read_text().splitlines()
    places = [re.match(r"(\w+)-(\w+)", line) for line in lines if line.endswith(exe)]
    return [(int(place[1], 16), int(place[2], 16)) for place in places if place]


def mm_map(exe: int) -> int:
    """struct prctl_mm_map, <linux/prctl.h>: as it is, but another executable."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start_code, end_code, start_stack = (int(fields[at]) for at in (23, 24, 25))
    start_data, end_data, start_brk, arg_start, arg_end, env_start, env_end = (int(text) for text in fields[42:49])
    brk = libc.sbrk(0) & (1 << 64) - 1 or start_brk
    numbers = (start_code, end_code, start_data, end_data, start_brk, max(brk, start_brk), start_stack)
    return memory(struct.pack("=11QQIi", *numbers, arg_start, arg_end, env_start, env_end, 0, 0, exe))


def main() -> None:
    program, how = sys.argv[1:]
    libc.sbrk.restype = ctypes.c_void_p
    exe = os.open(program, os.O_RDONLY)
    libc.mmap(None, 4096, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, exe, 0)
    pipe_in, pipe_out = os.pipe()
    byte = memory(b"x")
    code = memory(CODE, executable=True)
    leave = [(MUNMAP, start, end - start) for start, end in own_executable()]
    forge = (PRCTL, PR_SET_MM, PR_SET_MM_MAP, mm_map(exe), 104, 0)
    wait = [(READ, 0, byte, 1), (EXIT, 0)]
    if how == "namespace":
        if libc.unshare(CLONE_NEWUSER):
            raise OSError(ctypes.get_errno(), "unshare")
        calls = table(*leave, forge, *wait)
    else:
        child = table((READ, pipe_in, byte, 1), forge, (EXIT, 0))
        if libc.clone(code, memory(b"") + 65536, CLONE_VM | CLONE_NEWUSER | SIGCHLD, child) < 0:
            raise OSError(ctypes.get_errno(), "clone")
        calls = table(*leave, (WRITE, pipe_out, byte, 1), *wait)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(code)(calls)


main()
