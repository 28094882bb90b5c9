"""Descriptors of store directories and their drive paths, each kept for a while.

A directory is opened from its parent by name, without following symlinks, and must then still be the inode we mean:
a store changed behind our back gives ESTALE, never another directory. At most `limit` descriptors are kept, because a
process has 20,000 at most and none may be spent a node.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from fsdriver.errors import NodeVanished
from fsdriver.nodes.inode import Inode

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REMEMBERED = 4096
"""Paths. There may be a million directories."""
_LONGEST = 4096
"""Characters of a path that is remembered, or memory would grow with the square of a tree's depth."""


class Descriptor:
    """Closed when the last reference goes, so that an eviction cannot pull it from under a request."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)

    @contextmanager
    def listed(self) -> Iterator[Iterator["os.DirEntry[str]"]]:
        """The directory's entries, read through a description of its own: two listings at once through one would share
        their place in the directory, and each would miss names."""
        own = os.open(".", _DIRECTORY, dir_fd=self.fd)
        try:
            with os.scandir(own) as entries:
                yield entries
        finally:
            os.close(own)


class Directories:
    """Store directories by inode, and paths. Thread-safe."""

    def __init__(self, root: Inode, root_fd: int, limit: int = 1024) -> None:
        self._root = root
        self._limit = limit
        self._lock = threading.Lock()
        self._open: OrderedDict[int, Descriptor] = OrderedDict()
        self._paths: dict[int, tuple[int, str]] = {}
        """Serial -> (epoch, path)."""
        self._root_descriptor = Descriptor(os.dup(root_fd))
        self.epoch = 0
        """Rises with every rename of a directory: paths remembered before it are void."""

    def descriptor(self, directory: Inode) -> Descriptor:
        """An open descriptor of `directory`; keep the object for as long as its `fd` is in use.

        Errors: NodeVanished.
        """
        # No recursion: a tree may be deeper than Python's stack.
        missing = []
        while (above := self._kept(directory)) is None:
            missing.append(directory)
            if directory.parent is None:
                raise NodeVanished(f"directory {directory.serial} has no place")
            directory = directory.parent
        for below in reversed(missing):
            above = self._reopen(below, above)
        return above

    def _kept(self, directory: Inode) -> Descriptor | None:
        if directory is self._root:
            return self._root_descriptor
        return self._open.get(directory.serial) or directory.removed

    def _reopen(self, directory: Inode, above: Descriptor) -> Descriptor:
        try:
            descriptor = Descriptor(os.open(directory.name, _DIRECTORY, dir_fd=above.fd))
        except OSError as exc:
            raise NodeVanished(f"directory {directory.name!r} is gone: {exc.strerror}") from exc
        if os.fstat(descriptor.fd).st_ino != directory.ino:
            raise NodeVanished(f"directory {directory.name!r} is another one now")
        with self._lock:
            self._open[directory.serial] = descriptor
            if len(self._open) > self._limit:
                self._open.popitem(last=False)
        return descriptor

    def removed(self, directory: Inode, last: Descriptor) -> None:
        """No name leads to `directory` any more: who is in it keeps it until the kernel forgets the inode."""
        directory.removed = last
        with self._lock:
            self._open.pop(directory.serial, None)

    def renamed(self) -> None:
        """A directory moved: all remembered paths are void."""
        self.epoch += 1

    def path(self, inode: Inode) -> str:
        """Where `inode` lies in the drive, "/" for the root; bytes that are no UTF-8 as surrogates."""
        epoch = self.epoch
        below = []
        while (known := self._paths.get(inode.serial)) is None or known[0] != epoch:
            if inode.parent is None:
                known = epoch, "/"
                break
            below.append(inode)
            inode = inode.parent
        path = known[1]
        while below and len(path) <= _LONGEST:
            one = below.pop()
            path = f"{path if path != '/' else ''}/{os.fsdecode(one.name)}"
            if one.is_directory:
                self._remember(one, epoch, path)
        return "/".join([path, *(os.fsdecode(one.name) for one in reversed(below))])

    def _remember(self, directory: Inode, epoch: int, path: str) -> None:
        if len(self._paths) >= _REMEMBERED:
            self._paths.clear()
        self._paths[directory.serial] = epoch, path

    def child_path(self, directory: Inode, name: bytes) -> str:
        above = self.path(directory)
        return f"{above if above != '/' else ''}/{os.fsdecode(name)}"
