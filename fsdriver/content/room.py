"""Space kept on a disk so that what the redo log has can be placed when the disk is full (docs/format.md 8).

Placing may take space: where there was a hole, and wherever a disk writes elsewhere what is overwritten (copy on write,
snapshots). The space is a file without content, and given back by removing it: a full btrfs allows nothing else.
"""

import errno
import os
from contextlib import suppress

from fsdriver.content.backing import reserve, sync_filesystem

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a full disk says, and a quota that is used up."""
PLENTY = 64 << 20
"""Free space of which more is kept at once than is needed now."""
USUAL = 16 << 20
BLOCK = 4096
SUFFIX = b".room"
"""What the name of a log's kept space ends with."""


class Room:
    """The file `name` in the directory `directory`, a descriptor that stays the caller's. Errors: OSError."""

    def __init__(self, directory: int, name: bytes) -> None:
        self._directory = directory
        self._name = name
        self._size = 0

    def keep(self, size: int) -> None:
        """At least `size` bytes are kept when this returns, more where there is plenty."""
        if size <= self._size:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self._name, flags, 0o600, dir_fd=self._directory)
        try:
            space = os.fstatvfs(fd)
            if space.f_bavail * space.f_frsize > PLENTY:
                size = max(size, USUAL)
            reserve(fd, 0, size)
            self._size = size
        finally:
            os.close(fd)

    def give(self) -> None:
        """The disk has that space again, and lends it."""
        self.close()
        sync_filesystem(self._directory)  # journals lend no sooner what was given back

    def close(self) -> None:
        """Nothing is kept any more."""
        self._size = 0
        with suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._directory)
