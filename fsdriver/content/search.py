"""Where files lie that something was written down about earlier: where they lay then, or anywhere else in the store.

A file is the one that is sought if it has both the file id in its header and the inode number: copies have the same id,
and another file may have got the number. Nothing leads out of the store: no link is followed, no mount walked into.
"""

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from typing import NamedTuple

from fsdriver.content.beneath import open_beneath
from fsdriver.content.header import FILE_ID_AT, MAGIC
from fsdriver.content.tree import walk

_NOT_THERE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP}
)
"""What opening a path says where no such file lies: links, sockets and devices are none."""


class Sought(NamedTuple):
    """One sealed file."""

    file_id: bytes
    inode: int
    """Its number; 0 where that is not known."""


class Places(NamedTuple):
    """What a search has found."""

    found: dict[Sought, bytes]
    """Paths relative to the store."""
    problems: dict[Sought, str]
    """Of files that were not found, and may lie in the store all the same."""


def find(root: int, guesses: Iterable[tuple[bytes, Sought]], skip: str) -> Places:
    """Where each file lies in the store whose top directory is `root`: at a path that was guessed, or wherever one walk
    of the store finds it; in the folder `skip` right below the top only if that was guessed. Raises OSError."""
    found: dict[Sought, bytes] = {}
    lost: set[Sought] = set()
    for path, sought in guesses:
        if sought not in found:
            fd = open_sought(root, path, sought)
            if fd is None:
                lost.add(sought)
            else:
                os.close(fd)
                found[sought] = path
    lost -= found.keys()
    if not lost:
        return Places(found, {})
    places = _look_everywhere(root, lost, skip)
    return places._replace(found=places.found | found)


def open_sought(root: int, path: bytes, sought: Sought) -> int | None:
    """A descriptor for reading and writing, if the file that is sought lies at `path`. Raises OSError."""
    try:
        fd = open_beneath(root, path, os.O_RDONLY)
    except ValueError:
        return None
    except OSError as exc:
        if exc.errno in _NOT_THERE:
            return None
        raise
    try:
        there = _recognized(fd)
        if there is None or sought not in (there, there._replace(inode=0)):
            return None
        # Only now, so that no other file is ever opened for writing.
        return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.close(fd)


def _look_everywhere(root: int, lost: set[Sought], skip: str) -> Places:
    numbers = {sought.inode for sought in lost}
    candidates: defaultdict[Sought, dict[int, bytes]] = defaultdict(dict)
    """A path of each inode."""
    all_seen = True
    with closing(walk(root, skip)) as files:
        for file in files:
            if file.problem:
                all_seen = False
            elif 0 in numbers or file.inode in numbers:
                try:
                    fd = file.open()
                except FileNotFoundError:
                    continue  # removed meanwhile
                except OSError:
                    all_seen = False
                    continue
                try:
                    there = _recognized(fd)
                finally:
                    os.close(fd)
                if there is not None:
                    for sought in lost & {there, there._replace(inode=0)}:
                        candidates[sought][there.inode] = os.fsencode(file.path)
                    if 0 not in numbers and len(candidates) == len(lost):
                        break
    found, problems = {}, {}
    for sought in lost:
        if len(paths := candidates[sought]) == 1:
            (found[sought],) = paths.values()
        elif paths:
            problems[sought] = "several files have its id, and which of them it was is not known"
        elif not all_seen:
            problems[sought] = "its file was not found, but not everything in the store could be looked into"
    return Places(found, problems)


def _recognized(fd: int) -> Sought | None:
    """Which sealed file it is, by its unverified header."""
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode):
        return None
    head = os.pread(fd, FILE_ID_AT + 16, 0)
    if len(head) < FILE_ID_AT + 16 or not head.startswith(MAGIC):
        return None
    return Sought(head[FILE_ID_AT:], about.st_ino)
