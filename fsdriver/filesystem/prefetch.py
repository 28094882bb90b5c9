"""Reads ahead from file to file: who opens or removes one file of a directory after the other gets the next ones' first
bytes from the disk before asking for them.

The kernel reads ahead inside a file; small files end before that helps, and each would cost the caller the wait for its
inode and its first block. A thread asks the store for them (posix_fadvise: the bytes go to the page cache, sealed as
they are, and to nobody). It only ever helps: a question it cannot follow is dropped.
"""

import os
import queue
import threading
from collections import OrderedDict
from contextlib import suppress

from fsdriver.errors import FsError
from fsdriver.nodes.directories import Directories
from fsdriver.nodes.inode import Inode

_AHEAD = 32
"""Files asked for before their turn."""
_BYTES = 128 << 10
"""Of each file: as much as an open or a first read takes."""
_COLD_SECONDS = 0.0003
"""Who has waited longer has waited for the disk: the files after this one will not be in memory either. What is in
memory costs nobody anything here."""
_DIRECTORIES = 64
_QUEUE = 256
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class _Walk:
    """One directory that somebody walks through: its names in the order they are listed, and how far we are."""

    __slots__ = ("asked", "last", "names", "places")

    def __init__(self, names: list[bytes]) -> None:
        self.names = names
        self.places = {name: place for place, name in enumerate(names)}
        self.last = -1
        self.asked = -1


class Prefetch(threading.Thread):
    """The thread that asks. `waited` may be called from any thread and never waits."""

    def __init__(self, directories: Directories) -> None:
        super().__init__(name="prefetch", daemon=True)
        self._directories = directories
        self._waited: queue.SimpleQueue[tuple[Inode, bytes] | None] = queue.SimpleQueue()
        self._walks: OrderedDict[int, _Walk] = OrderedDict()

    def waited(self, directory: Inode, name: bytes, seconds: float) -> None:
        """Somebody needed the first bytes of `name` in `directory`, and had them after so long."""
        if seconds > _COLD_SECONDS and self._waited.qsize() < _QUEUE:
            self._waited.put((directory, name))

    def stop(self) -> None:
        self._waited.put(None)
        self.join()

    def run(self) -> None:
        while (waited := self._waited.get()) is not None:
            with suppress(OSError, FsError):
                self._follow(*waited)

    def _follow(self, directory: Inode, name: bytes) -> None:
        walk = self._walk(directory)
        place = walk.places.get(name)
        if place is None:
            del self._walks[directory.serial]  # made since we looked: look again when somebody starts anew
            return
        # From the first name on, from the second one in order, or where the last asking ended: a single open in the
        # middle says nothing.
        follows = place == 0 or 0 <= place - walk.last <= 2 or 0 <= place - walk.asked <= 2
        walk.last = place
        if not follows:
            return
        above = self._directories.descriptor(directory)
        for ahead in walk.names[place + 1 : place + 1 + _AHEAD]:
            with suppress(OSError):
                fd = os.open(ahead, _FLAGS, dir_fd=above.fd)
                try:
                    os.posix_fadvise(fd, 0, _BYTES, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(fd)
        walk.asked = place + 1 + _AHEAD

    def _walk(self, directory: Inode) -> _Walk:
        walk = self._walks.get(directory.serial)
        if walk is None:
            above = self._directories.descriptor(directory)
            with above.listed() as entries:
                names = [os.fsencode(entry.name) for entry in entries if entry.is_file(follow_symlinks=False)]
            walk = self._walks[directory.serial] = _Walk(names)
            if len(self._walks) > _DIRECTORIES:
                self._walks.popitem(last=False)
        return walk
