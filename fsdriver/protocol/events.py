"""What the kernel asks: one NamedTuple per opcode, each with `.head`.

Fields keep the kernel's names. Times are (seconds, nanoseconds) pairs as they come; sizes and offsets are bytes; names
are bytes without the NUL.
"""

from typing import NamedTuple


class InHeader(NamedTuple):
    """Who asks what. `pid` is the calling thread's id, 0 where the kernel names nobody."""

    length: int
    opcode: int
    unique: int
    nodeid: int
    uid: int
    gid: int
    pid: int


class Lookup(NamedTuple):
    head: InHeader
    name: bytes


class Forget(NamedTuple):
    """No reply."""

    head: InHeader
    nlookup: int


class BatchForget(NamedTuple):
    """No reply. `items` are (nodeid, nlookup)."""

    head: InHeader
    items: tuple[tuple[int, int], ...]


class Getattr(NamedTuple):
    """`fh` counts only with GETATTR_FH in `getattr_flags`."""

    head: InHeader
    getattr_flags: int
    fh: int


class Statx(NamedTuple):
    head: InHeader
    getattr_flags: int
    fh: int
    sx_flags: int
    sx_mask: int


class Setattr(NamedTuple):
    """Only what `valid` (SetattrValid bits) names counts."""

    head: InHeader
    valid: int
    fh: int
    size: int
    lock_owner: int
    atime: int
    mtime: int
    ctime: int
    atimensec: int
    mtimensec: int
    ctimensec: int
    mode: int
    uid: int
    gid: int

    @property
    def atime_ns(self) -> int:
        return self.atime * 1_000_000_000 + self.atimensec

    @property
    def mtime_ns(self) -> int:
        return self.mtime * 1_000_000_000 + self.mtimensec


class Readlink(NamedTuple):
    head: InHeader


class Symlink(NamedTuple):
    head: InHeader
    name: bytes
    target: bytes


class Mknod(NamedTuple):
    head: InHeader
    mode: int
    rdev: int
    umask: int
    name: bytes


class Mkdir(NamedTuple):
    head: InHeader
    mode: int
    umask: int
    name: bytes


class Unlink(NamedTuple):
    head: InHeader
    name: bytes


class Rmdir(NamedTuple):
    head: InHeader
    name: bytes


class Rename(NamedTuple):
    """RENAME and RENAME2; `flags` are renameat2's (1 NOREPLACE, 2 EXCHANGE, 4 WHITEOUT)."""

    head: InHeader
    newdir: int
    flags: int
    name: bytes
    newname: bytes


class Link(NamedTuple):
    """A new name in directory `head.nodeid` for `oldnodeid`."""

    head: InHeader
    oldnodeid: int
    name: bytes


class Open(NamedTuple):
    head: InHeader
    flags: int
    open_flags: int


class Opendir(NamedTuple):
    head: InHeader
    flags: int
    open_flags: int


class Create(NamedTuple):
    head: InHeader
    flags: int
    mode: int
    umask: int
    open_flags: int
    name: bytes


class Tmpfile(NamedTuple):
    """O_TMPFILE in directory `head.nodeid`: like Create, without a name."""

    head: InHeader
    flags: int
    mode: int
    umask: int
    open_flags: int


class Read(NamedTuple):
    head: InHeader
    fh: int
    offset: int
    size: int
    read_flags: int
    lock_owner: int
    flags: int


class Readdir(NamedTuple):
    head: InHeader
    fh: int
    offset: int
    size: int
    read_flags: int
    lock_owner: int
    flags: int


class Readdirplus(NamedTuple):
    head: InHeader
    fh: int
    offset: int
    size: int
    read_flags: int
    lock_owner: int
    flags: int


class Write(NamedTuple):
    """`data` (`size` bytes) lies in the transport's buffer: it is valid until the handler returns, not longer."""

    head: InHeader
    fh: int
    offset: int
    size: int
    write_flags: int
    lock_owner: int
    flags: int
    data: memoryview


class Statfs(NamedTuple):
    head: InHeader


class Release(NamedTuple):
    head: InHeader
    fh: int
    flags: int
    release_flags: int
    lock_owner: int


class Releasedir(NamedTuple):
    head: InHeader
    fh: int
    flags: int
    release_flags: int
    lock_owner: int


class Flush(NamedTuple):
    head: InHeader
    fh: int
    lock_owner: int


class Fsync(NamedTuple):
    head: InHeader
    fh: int
    fsync_flags: int


class Fsyncdir(NamedTuple):
    head: InHeader
    fh: int
    fsync_flags: int


class Syncfs(NamedTuple):
    head: InHeader


class Setxattr(NamedTuple):
    head: InHeader
    flags: int
    name: bytes
    value: bytes


class Getxattr(NamedTuple):
    """`size` 0 asks how long the value is."""

    head: InHeader
    size: int
    name: bytes


class Listxattr(NamedTuple):
    """`size` 0 asks how long the list is."""

    head: InHeader
    size: int


class Removexattr(NamedTuple):
    head: InHeader
    name: bytes


class Getlk(NamedTuple):
    """`end` is the last byte locked (2^63 - 1: to the end of file); `lk_flags` has LK_FLOCK for flock(2)."""

    head: InHeader
    fh: int
    owner: int
    start: int
    end: int
    type: int
    pid: int
    lk_flags: int


class Setlk(NamedTuple):
    head: InHeader
    fh: int
    owner: int
    start: int
    end: int
    type: int
    pid: int
    lk_flags: int


class Setlkw(NamedTuple):
    """Like Setlk, but waits."""

    head: InHeader
    fh: int
    owner: int
    start: int
    end: int
    type: int
    pid: int
    lk_flags: int


class Access(NamedTuple):
    head: InHeader
    mask: int


class Init(NamedTuple):
    """The first message. `flags` joins both halves of the kernel's offer."""

    head: InHeader
    major: int
    minor: int
    max_readahead: int
    flags: int


class Interrupt(NamedTuple):
    """The caller of request `unique` got a signal. No reply."""

    head: InHeader
    unique: int


class Bmap(NamedTuple):
    head: InHeader
    block: int
    blocksize: int


class Destroy(NamedTuple):
    head: InHeader


class Ioctl(NamedTuple):
    head: InHeader
    fh: int
    flags: int
    cmd: int
    arg: int
    out_size: int
    data: bytes


class Poll(NamedTuple):
    head: InHeader
    fh: int
    kh: int
    flags: int
    events: int


class Fallocate(NamedTuple):
    """`mode` is fallocate(2)'s."""

    head: InHeader
    fh: int
    offset: int
    length: int
    mode: int


class Lseek(NamedTuple):
    """`whence` is SEEK_DATA or SEEK_HOLE; the kernel does the others itself."""

    head: InHeader
    fh: int
    offset: int
    whence: int


class CopyFileRange(NamedTuple):
    """COPY_FILE_RANGE and COPY_FILE_RANGE_64, whose replies differ: answer with `replies.copied`."""

    head: InHeader
    fh_in: int
    off_in: int
    nodeid_out: int
    fh_out: int
    off_out: int
    length: int
    flags: int


class Unknown(NamedTuple):
    """An opcode of a newer kernel, or one that no ordinary drive needs: ENOSYS."""

    head: InHeader


Event = (
    Lookup
    | Forget
    | BatchForget
    | Getattr
    | Statx
    | Setattr
    | Readlink
    | Symlink
    | Mknod
    | Mkdir
    | Unlink
    | Rmdir
    | Rename
    | Link
    | Open
    | Opendir
    | Create
    | Tmpfile
    | Read
    | Readdir
    | Readdirplus
    | Write
    | Statfs
    | Release
    | Releasedir
    | Flush
    | Fsync
    | Fsyncdir
    | Syncfs
    | Setxattr
    | Getxattr
    | Listxattr
    | Removexattr
    | Getlk
    | Setlk
    | Setlkw
    | Access
    | Init
    | Interrupt
    | Bmap
    | Destroy
    | Ioctl
    | Poll
    | Fallocate
    | Lseek
    | CopyFileRange
    | Unknown
)
