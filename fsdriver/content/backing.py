"""System calls on the backing file that Python's `os` has not, or has without a loop. No knowledge of the format."""

import ctypes
import errno
import os
import stat
from contextlib import suppress

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
_ZEROS = bytes(1 << 20)

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate64
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_syncfs = _libc.syncfs
_syncfs.argtypes = (ctypes.c_int,)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
AT_FDCWD = -100


def write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Writes all of `data` at `offset`, or raises OSError with an unknown part of it written."""
    done = os.pwrite(fd, data, offset)
    if done == len(data):
        return
    rest = memoryview(data)[done:]
    while rest:
        offset += done
        done = os.pwrite(fd, rest, offset)
        if done == 0:
            raise OSError(errno.EIO, "write made no progress")
        rest = rest[done:]


def read_up_to(fd: int, buffer: memoryview, offset: int) -> int:
    """Fills `buffer` from `offset`; the number of bytes read is short at the end of the file only."""
    done = os.preadv(fd, [buffer], offset)
    while 0 < done < len(buffer):
        more = os.preadv(fd, [buffer[done:]], offset + done)
        if more == 0:
            break
        done += more
    return done


def deliver(fd: int) -> None:
    """What was written is with the server, where the filesystem is a server's: its client holds writes back until
    close(2), which says then what became of them. Nothing where it is a disk's. Raises OSError (ENOSPC ...)."""
    try:
        os.close(os.dup(fd))
    except OSError:
        with suppress(OSError):
            os.fdatasync(fd)  # or NFS says it again at every close, whatever was written since
        raise


def reserve(fd: int, offset: int, length: int, *, may_grow: bool = False) -> None:
    """Reserves space without changing the size; nothing where the filesystem cannot. `may_grow`: NFS can, if the file
    may become so long. Raises OSError (ENOSPC ...)."""
    for mode in (_KEEP_SIZE, 0) if may_grow else (_KEEP_SIZE,):
        try:
            _allocate(fd, mode, offset, length)
            return
        except OSError as exc:
            if exc.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise


def punch(fd: int, offset: int, length: int) -> None:
    """Makes `length` bytes from `offset` read as zeros, giving their space back where the filesystem can."""
    try:
        _allocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)
    except OSError as exc:
        if exc.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        for at in range(offset, offset + length, len(_ZEROS)):
            write_all(fd, _ZEROS[: offset + length - at], at)


def _allocate(fd: int, mode: int, offset: int, length: int) -> None:
    while _fallocate(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def data_from(fd: int, offset: int) -> int | None:
    """Where the first data at or after `offset` begins, None if there is none. A file without holes is all data."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            return None
        if exc.errno == errno.EINVAL:  # this filesystem does not tell
            return offset
        raise


def hole_from(fd: int, offset: int) -> int | None:
    """Where the first hole at or after `offset` begins, None at or beyond the end of the file."""
    try:
        return os.lseek(fd, offset, os.SEEK_HOLE)
    except OSError as exc:
        if exc.errno in (errno.ENXIO, errno.EINVAL):
            return None
        raise


def user_names(fd: int) -> list[bytes]:
    """Names of the `user.` attributes; none where the filesystem has no attributes."""
    try:
        return [name for name in map(os.fsencode, os.listxattr(fd)) if name.startswith(b"user.")]
    except OSError as exc:
        if exc.errno == errno.EOPNOTSUPP:
            return []
        raise


def sync_filesystem(fd: int) -> None:
    """Everything that was written to the filesystem of `fd` is on the disk when this returns: syncfs(2)."""
    if _syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def renameat2(old_dir: int, old: bytes, new_dir: int, new: bytes, flags: int) -> None:
    """rename(2) between two directories, with RENAME_NOREPLACE or RENAME_EXCHANGE. Errors: EINVAL where the filesystem
    cannot exchange two names (NFS)."""
    if _libc.renameat2(old_dir, old, new_dir, new, flags):
        number = ctypes.get_errno()
        if number == errno.EINVAL and flags == RENAME_NOREPLACE:
            _rename_if_free(old_dir, old, new_dir, new)
            return
        raise OSError(number, os.strerror(number))


def _rename_if_free(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
    """RENAME_NOREPLACE without the kernel's help, as NFS has none. A link replaces nothing; a directory cannot have two
    names, and what takes the new one between the look and the rename is replaced if it is an empty directory."""
    if stat.S_ISDIR(os.stat(old, dir_fd=old_dir, follow_symlinks=False).st_mode):
        with suppress(FileNotFoundError):
            os.stat(new, dir_fd=new_dir, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.rename(old, new, src_dir_fd=old_dir, dst_dir_fd=new_dir)
    else:
        os.link(old, new, src_dir_fd=old_dir, dst_dir_fd=new_dir, follow_symlinks=False)
        os.unlink(old, dir_fd=old_dir)
