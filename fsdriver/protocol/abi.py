"""Layouts, numbers and flags of <linux/fuse.h> 7.45, under the kernel's own names.

Layouts that only pad are packed with `x`; times are signed although the header says uint64_t (the kernel casts them to
time64_t). `LAYOUTS` is what the tests compare with the kernel's header.
"""

from enum import IntEnum, IntFlag
from struct import Struct

KERNEL_VERSION = 7
KERNEL_MINOR_VERSION = 45
OLDEST_MINOR_VERSION = 31
ROOT_ID = 1
MIN_READ_BUFFER = 8192
DEV_IOC_CLONE = 0x8004E500
"""_IOR(229, 0, uint32_t)"""

LAYOUTS: dict[str, Struct] = {}


def _layout(name: str, members: str) -> Struct:
    LAYOUTS[name] = Struct("<" + members)
    return LAYOUTS[name]


_ATTR = "QQQqqqIIIIIIIIII"

IN_HEADER = _layout("fuse_in_header", "IIQQIII4x")
OUT_HEADER = _layout("fuse_out_header", "IiQ")

FORGET_IN = _layout("fuse_forget_in", "Q")
FORGET_ONE = _layout("fuse_forget_one", "QQ")
BATCH_FORGET_IN = _layout("fuse_batch_forget_in", "I4x")
GETATTR_IN = _layout("fuse_getattr_in", "I4xQ")
STATX_IN = _layout("fuse_statx_in", "I4xQII")
SETATTR_IN = _layout("fuse_setattr_in", "I4xQQQqqqIIII4xII4x")
MKNOD_IN = _layout("fuse_mknod_in", "III4x")
MKDIR_IN = _layout("fuse_mkdir_in", "II")
RENAME_IN = _layout("fuse_rename_in", "Q")
RENAME2_IN = _layout("fuse_rename2_in", "QI4x")
LINK_IN = _layout("fuse_link_in", "Q")
OPEN_IN = _layout("fuse_open_in", "II")
CREATE_IN = _layout("fuse_create_in", "IIII")
RELEASE_IN = _layout("fuse_release_in", "QIIQ")
FLUSH_IN = _layout("fuse_flush_in", "Q8xQ")
READ_IN = _layout("fuse_read_in", "QQIIQI4x")
WRITE_IN = _layout("fuse_write_in", "QQIIQI4x")
FSYNC_IN = _layout("fuse_fsync_in", "QI4x")
COMPAT_SETXATTR_IN = Struct("<II")
"""fuse_setxattr_in as it comes without FUSE_SETXATTR_EXT (FUSE_COMPAT_SETXATTR_IN_SIZE)."""
GETXATTR_IN = _layout("fuse_getxattr_in", "I4x")
LK_IN = _layout("fuse_lk_in", "QQQQIII4x")
ACCESS_IN = _layout("fuse_access_in", "I4x")
INIT_IN = _layout("fuse_init_in", "IIIII44x")
COMPAT_INIT_IN = Struct("<IIII")
"""fuse_init_in before 7.36."""
INTERRUPT_IN = _layout("fuse_interrupt_in", "Q")
BMAP_IN = _layout("fuse_bmap_in", "QI4x")
IOCTL_IN = _layout("fuse_ioctl_in", "QIIQII")
POLL_IN = _layout("fuse_poll_in", "QQII")
FALLOCATE_IN = _layout("fuse_fallocate_in", "QQQI4x")
LSEEK_IN = _layout("fuse_lseek_in", "QQI4x")
COPY_FILE_RANGE_IN = _layout("fuse_copy_file_range_in", "QQQQQQQ")
SYNCFS_IN = _layout("fuse_syncfs_in", "8x")

ATTR = _layout("fuse_attr", _ATTR)
ENTRY_OUT = _layout("fuse_entry_out", "QQQQII" + _ATTR)
ATTR_OUT = _layout("fuse_attr_out", "QI4x" + _ATTR)
OPEN_OUT = _layout("fuse_open_out", "QI4x")
WRITE_OUT = _layout("fuse_write_out", "I4x")
STATFS_OUT = _layout("fuse_statfs_out", "QQQQQIII28x")
GETXATTR_OUT = _layout("fuse_getxattr_out", "I4x")
LK_OUT = _layout("fuse_lk_out", "QQII")
INIT_OUT = _layout("fuse_init_out", "IIIIHHIIHHIIH22x")
BMAP_OUT = _layout("fuse_bmap_out", "Q")
IOCTL_OUT = _layout("fuse_ioctl_out", "iIII")
POLL_OUT = _layout("fuse_poll_out", "I4x")
LSEEK_OUT = _layout("fuse_lseek_out", "Q")
COPY_FILE_RANGE_OUT = _layout("fuse_copy_file_range_out", "Q")
DIRENT = _layout("fuse_dirent", "QQII")

NOTIFY_INVAL_INODE_OUT = _layout("fuse_notify_inval_inode_out", "Qqq")
NOTIFY_INVAL_ENTRY_OUT = _layout("fuse_notify_inval_entry_out", "QII")
NOTIFY_DELETE_OUT = _layout("fuse_notify_delete_out", "QQI4x")
NOTIFY_PRUNE_OUT = _layout("fuse_notify_prune_out", "I12x")

# struct fuse_uring_req_header: 128 bytes fuse_in_header or fuse_out_header, 128 bytes the op's own header, then this.
URING_IN_OUT_HEADER_SZ = 128
URING_OP_IN_OUT_SZ = 128
URING_ENT_IN_OUT = _layout("fuse_uring_ent_in_out", "8xQI12x")
URING_CMD_REQ = Struct("<QQH6x")
"""fuse_uring_cmd_req, which ends in padding that the kernel does not look at: flags, commit_id, qid."""
IO_URING_CMD_REGISTER = 1
IO_URING_CMD_COMMIT_AND_FETCH = 2


class Opcode(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


class NotifyCode(IntEnum):
    INVAL_INODE = 2
    INVAL_ENTRY = 3
    DELETE = 6
    INC_EPOCH = 8
    PRUNE = 9


class InitFlag(IntFlag):
    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    FILE_OPS = 1 << 2
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    SPLICE_WRITE = 1 << 7
    SPLICE_MOVE = 1 << 8
    SPLICE_READ = 1 << 9
    FLOCK_LOCKS = 1 << 10
    HAS_IOCTL_DIR = 1 << 11
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    MAP_ALIGNMENT = 1 << 26
    SUBMOUNTS = 1 << 27
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    SECURITY_CTX = 1 << 32
    HAS_INODE_DAX = 1 << 33
    CREATE_SUPP_GROUP = 1 << 34
    HAS_EXPIRE_ONLY = 1 << 35
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    PASSTHROUGH = 1 << 37
    NO_EXPORT_SUPPORT = 1 << 38
    HAS_RESEND = 1 << 39
    ALLOW_IDMAP = 1 << 40
    OVER_IO_URING = 1 << 41
    REQUEST_TIMEOUT = 1 << 42


class SetattrValid(IntFlag):
    """fuse_setattr_in.valid: FATTR_*."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    LOCKOWNER = 1 << 9
    CTIME = 1 << 10
    KILL_SUIDGID = 1 << 11


# Plain ints: they are tested on every request, and `int & IntFlag` makes an IntFlag, which costs a microsecond.
FOPEN_DIRECT_IO = 1 << 0
FOPEN_KEEP_CACHE = 1 << 1
FOPEN_NONSEEKABLE = 1 << 2
FOPEN_CACHE_DIR = 1 << 3
FOPEN_STREAM = 1 << 4
FOPEN_NOFLUSH = 1 << 5
FOPEN_PARALLEL_DIRECT_WRITES = 1 << 6
GETATTR_FH = 1 << 0
WRITE_CACHE = 1 << 0
WRITE_LOCKOWNER = 1 << 1
WRITE_KILL_SUIDGID = 1 << 2
READ_LOCKOWNER = 1 << 1
RELEASE_FLUSH = 1 << 0
RELEASE_FLOCK_UNLOCK = 1 << 1
LK_FLOCK = 1 << 0
FSYNC_FDATASYNC = 1 << 0
OPEN_KILL_SUIDGID = 1 << 0
EXPIRE_ONLY = 1 << 0
FMODE_EXEC = 0x20
"""Set in Open.flags when the kernel opens a program to run it; the caller's image is still the old one."""
