"""INIT: what the kernel offers, what the drive takes, and why.

Pure: `negotiate` turns the kernel's first message into the reply and what was settled. Sources of the reasons: protocol
header 7.45 and decisions D3, D4, D11, D12 of the design.
"""

from typing import NamedTuple

from fsdriver.protocol import abi
from fsdriver.protocol.abi import InitFlag
from fsdriver.protocol.events import Init

PAGE_SIZE = 4096
MAX_PAGES = 256
MAX_WRITE = MAX_PAGES * PAGE_SIZE
"""1 MiB: the largest READ and WRITE, which is the most that 256 pages hold."""
MAX_BACKGROUND = 64
"""Read-ahead and direct I/O that may wait at once; the kernel's 12 starves parallel readers of large files."""
CONGESTION_THRESHOLD = 48

TAKEN: dict[InitFlag, str] = {
    InitFlag.ASYNC_READ: "parallel reads of one file; a blocked reader can be killed",
    InitFlag.ASYNC_DIO: "parallel direct reads of the ciphertext view",
    InitFlag.BIG_WRITES: "WRITE of more than one page",
    InitFlag.MAX_PAGES: "requests of 1 MiB: two thirds more throughput than 128 KiB",
    InitFlag.PARALLEL_DIROPS: "lookups in one directory side by side; the node table is thread-safe",
    InitFlag.DO_READDIRPLUS: "ls -l without a LOOKUP per name",
    InitFlag.READDIRPLUS_AUTO: "and plain READDIR where nobody asks for attributes",
    InitFlag.ATOMIC_O_TRUNC: "truncation inside OPEN: one audited step, one SETATTR saved",
    InitFlag.HANDLE_KILLPRIV_V2: "suid, sgid and capabilities are cleared here, on the kernel's word, without SETATTRs",
    InitFlag.POSIX_LOCKS: "one lock table per file serves both views",
    InitFlag.FLOCK_LOCKS: "flock(2) goes through the same table",
    InitFlag.CACHE_SYMLINKS: "targets are not secret and change only with the inode",
    InitFlag.ABORT_ERROR: "tells an aborted connection (ECONNABORTED) from an unmount (ENODEV)",
    InitFlag.NO_EXPORT_SUPPORT: "no file handles: a handle would reach a node without the walk that chose its view",
    InitFlag.HAS_EXPIRE_ONLY: "names can expire without unhooking those who use them",
    InitFlag.INIT_EXT: "the second half of these flags",
}

REFUSED: dict[InitFlag, str] = {
    InitFlag.FILE_OPS: "never supported by any kernel",
    InitFlag.EXPORT_SUPPORT: "would have to serve forgotten nodes",
    InitFlag.DONT_MASK: "the kernel applies the umask; no default ACLs here",
    InitFlag.SPLICE_WRITE: "plaintext exists in user memory only, there is nothing to splice",
    InitFlag.SPLICE_MOVE: "as SPLICE_WRITE",
    InitFlag.SPLICE_READ: "as SPLICE_WRITE",
    InitFlag.HAS_IOCTL_DIR: "no ioctls on directories",
    InitFlag.AUTO_INVAL_DATA: "with attribute timeout 0 it costs thousands of GETATTRs; the notifier invalidates (D3)",
    InitFlag.WRITEBACK_CACHE: "pid 0 on WRITE, late errors, sizes owned by the kernel (D11)",
    InitFlag.NO_OPEN_SUPPORT: "an OPEN that is not asked is not recorded",
    InitFlag.HANDLE_KILLPRIV: "HANDLE_KILLPRIV_V2 says the same more exactly",
    InitFlag.POSIX_ACL: "needs modes and ACLs kept in step",
    InitFlag.NO_OPENDIR_SUPPORT: "directories are opened here",
    InitFlag.EXPLICIT_INVAL_DATA: "other machines change the store without telling",
    InitFlag.MAP_ALIGNMENT: "DAX only",
    InitFlag.SUBMOUNTS: "one filesystem",
    InitFlag.SETXATTR_EXT: "the longer SETXATTR is not parsed; it serves ACLs",
    InitFlag.SECURITY_CTX: "extensions of CREATE are not parsed",
    InitFlag.HAS_INODE_DAX: "DAX only",
    InitFlag.CREATE_SUPP_GROUP: "extensions of CREATE are not parsed",
    InitFlag.DIRECT_IO_ALLOW_MMAP: "would bring ciphertext pages into a cache (R1 finding 1)",
    InitFlag.PASSTHROUGH: "would show the sealed bytes",
    InitFlag.HAS_RESEND: "a new daemon takes no requests over from a dead one",
    InitFlag.ALLOW_IDMAP: "makes uid and gid of most requests invalid",
    InitFlag.REQUEST_TIMEOUT: "aborts the whole mount for one waiting lock; the watchdog knows which wait is meant",
}

_TAKEN_BITS = int(sum(TAKEN))


class VersionUnsupported(Exception):
    """The kernel speaks a FUSE protocol older than 7.31 (Linux 5.4)."""


class Agreement(NamedTuple):
    """What was settled. `io_uring` and the notifications say what may be used on this kernel."""

    reply: bytes
    settled: bool
    """False: the kernel's major version is newer; it asks again with ours."""
    minor: int
    flags: int
    max_write: int
    io_uring: bool
    expire_only: bool
    inc_epoch: bool
    prune: bool


def negotiate(init: Init, *, io_uring: bool) -> Agreement:
    """Answer INIT; `io_uring` says whether the drive would like that transport. Raises VersionUnsupported."""
    if init.major > abi.KERNEL_VERSION:
        reply = abi.INIT_OUT.pack(abi.KERNEL_VERSION, abi.KERNEL_MINOR_VERSION, *(0,) * 11)
        return Agreement(reply, False, 0, 0, 0, False, False, False, False)
    if init.major < abi.KERNEL_VERSION or init.minor < abi.OLDEST_MINOR_VERSION:
        raise VersionUnsupported(
            f"the kernel speaks FUSE {init.major}.{init.minor}; 7.31 (Linux 5.4) is the oldest used"
        )
    wanted = _TAKEN_BITS | (InitFlag.OVER_IO_URING if io_uring else 0)
    flags = init.flags & wanted
    if not flags & InitFlag.INIT_EXT:
        flags &= 0xFFFFFFFF
    minor = min(init.minor, abi.KERNEL_MINOR_VERSION)
    reply = abi.INIT_OUT.pack(
        abi.KERNEL_VERSION,
        minor,
        MAX_WRITE,
        flags & 0xFFFFFFFF,
        MAX_BACKGROUND,
        CONGESTION_THRESHOLD,
        MAX_WRITE,
        1,  # time_gran: the store keeps nanoseconds
        MAX_PAGES,
        0,
        flags >> 32,
        0,
        0,
    )
    return Agreement(
        reply,
        True,
        minor,
        flags,
        MAX_WRITE,
        bool(flags & InitFlag.OVER_IO_URING),
        bool(flags & InitFlag.HAS_EXPIRE_ONLY),
        minor >= 44,
        minor >= 45,
    )
