"""Whether what waits in memory will fit on the disk: ENOSPC belongs to the write, not to the close that follows it.

Reserving space for every file that is written costs as much again as making it (docs/decisions/0020), so it is done
only where space is short. A quota that the filesystem does not show as free space is noticed at flush. NFS
reserves nothing: where space is short, what is appended goes to the server at once, and what waits is refused at flush.
"""

import os

from fsdriver.content.backing import reserve

PLENTY = 1 << 30
"""With this much space free, chunks may wait in memory without space reserved for them."""


def is_short(fd: int) -> bool:
    """Whether the filesystem of `fd` has little space left."""
    space = os.fstatvfs(fd)
    return space.f_bavail * space.f_frsize < PLENTY


class TailSpace:
    """Room for the last chunk of one file, whose bytes wait in memory until it is full."""

    __slots__ = ("_end", "_fd", "taken")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._end = 0
        self.taken = False
        """Space was reserved behind the end of the file, which has to be cut to give it back."""

    def need(self, start: int, end: int, most: int) -> None:
        """Raises OSError (ENOSPC ...) unless the file can take bytes from `start` to `end`, perhaps later to `most`."""
        if end <= self._end:
            return
        if is_short(self._fd):
            self.taken = True
            try:
                reserve(self._fd, start, most - start)
            except OSError:
                most = end
                reserve(self._fd, start, most - start)
        self._end = most

    def forget(self) -> None:
        """What was reserved has been used or given back."""
        self._end = 0
        self.taken = False
