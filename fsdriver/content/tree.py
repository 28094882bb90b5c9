"""The files below a directory that nobody vouches for: no link is followed, no mount entered, and nothing but the names
on the way to the present one is held in memory."""

import errno
import os
from collections.abc import Generator
from typing import NamedTuple

from fsdriver.content.silly import is_silly

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Found(NamedTuple):
    """A regular file; or, with a `problem`, whatever could not be looked into."""

    path: str
    """Below the top; bytes that are no UTF-8 as surrogates."""
    folder: int
    """Descriptor of the directory it is in, good until the next one is asked for."""
    name: str
    problem: str = ""
    inode: int = 0
    """As the directory has it."""

    def open(self) -> int:
        """A descriptor for reading. Raises OSError."""
        return os.open(self.name, _FILE, dir_fd=self.folder)


class _Level(NamedTuple):
    fd: int
    entries: "os._ScandirIterator[str]"
    path: str

    def close(self) -> None:
        self.entries.close()
        os.close(self.fd)


def walk(top: int, skip: str) -> Generator[Found, None, None]:
    """Every regular file below the directory `top`, in no order, but for the directory `skip` right in it. Links,
    devices, sockets, pipes and what is removed, or open and removed, are passed over. Close it, or use it up."""
    device = os.fstat(top).st_dev
    levels: list[_Level] = []
    try:
        levels.append(_level(os.open(".", _DIRECTORY, dir_fd=top), ""))
        while levels:
            level = levels[-1]
            try:
                entry = next(level.entries, None)
            except OSError as exc:
                yield Found(level.path, level.fd, ".", f"its names cannot be read on: {exc.strerror}")
                entry = None
            if entry is None:
                levels.pop().close()
                continue
            path = f"{level.path}/{entry.name}" if level.path else entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    if path != skip:
                        levels.append(_enter(level.fd, entry.name, path, device))
                elif entry.is_file(follow_symlinks=False) and not is_silly(os.fsencode(entry.name)):
                    yield Found(path, level.fd, entry.name, inode=entry.inode())
            except FileNotFoundError:
                continue  # removed meanwhile
            except OSError as exc:
                yield Found(path, level.fd, entry.name, exc.strerror or str(exc))
    finally:
        for level in levels:
            level.close()


def _enter(folder: int, name: str, path: str, device: int) -> _Level:
    fd = os.open(name, _DIRECTORY, dir_fd=folder)
    if os.fstat(fd).st_dev != device:
        os.close(fd)
        raise OSError(errno.EXDEV, "another filesystem is mounted here, which was not entered")
    return _level(fd, path)


def _level(fd: int, path: str) -> _Level:
    try:
        return _Level(fd, os.scandir(fd), path)
    except BaseException:
        os.close(fd)
        raise
