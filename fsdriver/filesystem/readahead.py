"""The process that reads the store ahead: it hears by its standard input who walks through which directories, and asks
the kernel for the first bytes of the files that come next.

Run as a program of its own, with nothing but the standard library, so that it is small and starts at once. It holds no
key and no policy, opens sealed files for reading only, and ends with its standard input. Each message is the length of
what follows (4 bytes, little-endian), a byte that says what happened, and names below the store, separated by NUL.
"""

import errno
import os
import stat
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import BinaryIO

LISTED = b"l"
"""A directory was listed; its files are likely to be wanted after those of the one listed before."""
OPENED = b"o"
"""A directory, and a file in it that was opened."""
LOOKED_UP = b"s"
"""A directory, and a name in it whose inode was needed."""

AHEAD = 600
"""Files asked for before their turn: with 50 or 150 the disk had too few requests at a time to keep up."""
AT_ONCE = 8 << 20
"""Bytes asked for because of one message."""
_BYTES = 128 << 10
"""Of each file: as much as an open with a first read takes."""
_DIRECTORIES = 4096
_LISTINGS = 256
_NAMES = 20_000
"""Of one directory; what comes after them is not read ahead."""
_LARGEST = 64 << 10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NAMED = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC


class Walk:
    """One directory that is walked through: its files in the order they are listed, how many of them the kernel was
    asked for, and how many have been walked past since. Who begins anew may find that what was read has left the
    memory."""

    def __init__(self, names: list[bytes]) -> None:
        self.names = names
        self.places = {name: place for place, name in enumerate(names)}
        self.asked = self.passed = 0

    def reach(self, place: int) -> None:
        """Somebody is at the file at `place`."""
        if place < self.passed:
            self.asked = 0
        self.passed = place + 1

    def begin(self) -> None:
        """Somebody is about to come."""
        if self.passed:
            self.asked = self.passed = 0


class ReadAhead:
    """Follows who walks through the store behind the descriptor `store`."""

    def __init__(self, store: int) -> None:
        self._store = store
        self._device = os.fstat(store).st_dev
        self._walks: OrderedDict[tuple[bytes, bytes], Walk] = OrderedDict()
        self._next: OrderedDict[bytes, bytes] = OrderedDict()
        self._last = b""

    def listed(self, directory: bytes) -> None:
        if self._last != directory:
            self._next[self._last] = directory
            self._last = directory
            if len(self._next) > _DIRECTORIES:
                self._next.popitem(last=False)

    def follow(self, kind: bytes, directory: bytes, name: bytes) -> None:
        """`name` in `directory` was needed, and those that follow will be. Errors: OSError."""
        walk = self._walk(kind, directory)
        if name not in walk.places and len(walk.names) < _NAMES:  # made since we looked
            del self._walks[kind, directory]
            walk = self._walk(kind, directory)
        place = walk.places.get(name, -1) + 1
        walk.reach(place - 1)
        files, left, seen = AHEAD, AT_ONCE, {directory}
        while True:
            begin, end = max(place, walk.asked), min(place + files, len(walk.names))
            if begin < end:
                files_asked, bytes_asked = self._ask(kind, directory, walk.names[begin:end], left)
                walk.asked = begin + files_asked
                left -= bytes_asked
            files -= max(1, len(walk.names) - place)
            following = self._next.get(directory)
            if files <= 0 or left <= 0 or following is None or following in seen:
                return
            directory, place = following, 0
            seen.add(directory)
            walk = self._walk(kind, directory)
            walk.begin()

    def _walk(self, kind: bytes, directory: bytes) -> Walk:
        walk = self._walks.get((kind, directory))
        if walk is None:
            fd = self._open(directory)
            try:
                with os.scandir(fd) as entries:
                    names = [
                        os.fsencode(entry.name)
                        for entry in islice(entries, _NAMES)
                        if entry.is_file(follow_symlinks=False)
                    ]
            finally:
                os.close(fd)
            walk = self._walks[kind, directory] = Walk(names)
            if len(self._walks) > _LISTINGS:
                self._walks.popitem(last=False)
        return walk

    def _open(self, directory: bytes) -> int:
        """A directory below the store. Users of the drive make names there: no link leads out of it, at no step of the
        way, nor into what is mounted in it. Errors: OSError."""
        fd = os.dup(self._store)
        try:
            for name in directory.split(b"/") if directory else ():
                if name in (b"", b".", b".."):
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
                below = os.open(name, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = below
            if os.fstat(fd).st_dev != self._device:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _ask(self, kind: bytes, directory: bytes, names: list[bytes], most: int) -> tuple[int, int]:
        """How many files and bytes were asked for: no further file once it is `most` bytes."""
        files = size = 0
        above = self._open(directory)
        try:
            for name in names:
                if size >= most:
                    break
                files += 1
                with suppress(OSError):  # gone, or not for us
                    if kind == LOOKED_UP:
                        os.stat(name, dir_fd=above, follow_symlinks=False)
                    else:
                        size += _ask_for_content(name, above)
        finally:
            os.close(above)
        return files, size


def _ask_for_content(name: bytes, directory: int) -> int:
    """How many bytes were asked for. Whatever is no regular file is not opened. Errors: OSError."""
    named = os.open(name, _NAMED, dir_fd=directory)
    try:
        found = os.fstat(named)
        if not stat.S_ISREG(found.st_mode):
            return 0
        fd = os.open(f"/proc/self/fd/{named}", _FILE)
    finally:
        os.close(named)
    try:
        os.posix_fadvise(fd, 0, _BYTES, os.POSIX_FADV_WILLNEED)
        return min(_BYTES, found.st_size)
    finally:
        os.close(fd)


def message(kind: bytes, *names: bytes) -> bytes:
    """The bytes of one message."""
    body = kind + b"\0".join(names)
    return len(body).to_bytes(4, "little") + body


def messages(stream: BinaryIO) -> Iterator[tuple[bytes, list[bytes]]]:
    """What happened, and the names, until the stream ends or makes no sense."""
    while len(head := stream.read(4)) == 4:
        length = int.from_bytes(head, "little")
        if not 0 < length <= _LARGEST or len(body := stream.read(length)) < length:
            return
        yield body[:1], body[1:].split(b"\0")


def main() -> None:
    ahead, daemon = ReadAhead(int(sys.argv[1])), os.getppid()
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # whoever has something to do comes first
    for kind, names in messages(sys.stdin.buffer):
        if os.getppid() != daemon:
            return  # it was killed: what it had to say is of no use to anybody
        try:
            if kind == LISTED and len(names) == 1:
                ahead.listed(names[0])
            elif kind in (OPENED, LOOKED_UP) and len(names) == 2:
                ahead.follow(kind, *names)
            else:
                return
        except OSError:
            continue  # it only ever helps


if __name__ == "__main__":
    main()
