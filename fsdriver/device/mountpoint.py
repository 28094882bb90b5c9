"""The directory below the mount, made unwritable, so that a dead drive never turns into a plain folder.

Without this, whatever saves "into the drive" after a crash and an unmount would leave plaintext on the disk. Mode 000
stops ordinary users, the immutable flag (where the filesystem has it and we are root) stops root too.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_IMMUTABLE_FL = 0x10
_MODE_AGAIN = 0o755


class MountPoint:
    """An existing, empty directory, held by a descriptor from before the mount on. Closed by `close`."""

    def __init__(self, path: Path) -> None:
        """Raises OSError: ENOENT, ENOTDIR, ENOTEMPTY, ENOTCONN (a dead mount is still there)."""
        self.path = path
        self._descriptor = _opened(path)
        try:
            self._mode = stat.S_IMODE(os.fstat(self._descriptor).st_mode)
            if os.listdir(self._descriptor):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
        except BaseException:
            self.close()
            raise

    def guard(self) -> None:
        """Nobody can put anything here. Does what the filesystem and our rights allow."""
        with contextlib.suppress(OSError):
            os.fchmod(self._descriptor, 0)
        _set_immutable(self._descriptor, True)

    def release(self) -> None:
        """An ordinary directory again, with the mode it had when we came (0755 if it was guarded then)."""
        _set_immutable(self._descriptor, False)
        with contextlib.suppress(OSError):
            os.fchmod(self._descriptor, self._mode or _MODE_AGAIN)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _opened(path: Path) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except PermissionError:
        # Guarded by an earlier mount of the same plain user.
        if os.stat(path, follow_symlinks=False).st_uid != os.getuid():
            raise
        os.chmod(path, 0o700)
        return os.open(path, flags)


def _set_immutable(descriptor: int, immutable: bool) -> None:
    """Plain users and some filesystems (tmpfs) cannot: mode 000 has to do there."""
    with contextlib.suppress(OSError):
        (flags,) = struct.unpack("i", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(4)))
        wanted = flags | _FS_IMMUTABLE_FL if immutable else flags & ~_FS_IMMUTABLE_FL
        if wanted != flags:
            fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("i", wanted))
