"""A disk that loses power: every state in which it may have left the files that the content layer works on.

The model: what was written since a file's last sync lies in the page cache, and any of its sectors may have been
written out at any time, so that after a cut each sector has what it had at some moment since that sync. The size is
that of some such moment, too. A sector is never torn, and what was synced is there.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

from fsdriver.content import backing

SECTOR = 512


class LossyDisk:
    """Counts the changes that are made through it, and remembers what each made of its file."""

    def __init__(self) -> None:
        self.now = 0
        """Changes and syncs so far."""
        self._versions: dict[int, list[tuple[int, bytes]]] = {}
        """Of an inode: when, and all its bytes then."""
        self._synced: dict[int, list[int]] = {}
        self._all_synced: list[int] = []

    def has(self, fd: int) -> None:
        """The file is on the disk as it is."""
        self._remember(fd)
        self._synced.setdefault(os.fstat(fd).st_ino, []).append(self.now)

    @contextmanager
    def recording(self) -> Iterator[None]:
        real = pwrite, ftruncate, _, fallocate, _ = (
            os.pwrite,
            os.ftruncate,
            os.fdatasync,
            backing._fallocate,
            backing._syncfs,
        )

        def recorded_pwrite(fd, data, offset):
            done = pwrite(fd, data, offset)
            self._changed(fd)
            return done

        def recorded_ftruncate(fd, size):
            ftruncate(fd, size)
            self._changed(fd)

        def recorded_fdatasync(fd):
            self.now += 1
            self._synced.setdefault(os.fstat(fd).st_ino, []).append(self.now)

        def recorded_fallocate(fd, mode, offset, length):
            failed = fallocate(fd, mode, offset, length)
            self._changed(fd)
            return failed

        def recorded_syncfs(fd):
            self.now += 1
            self._all_synced.append(self.now)
            return 0

        os.pwrite, os.ftruncate, os.fdatasync = recorded_pwrite, recorded_ftruncate, recorded_fdatasync
        backing._fallocate, backing._syncfs = recorded_fallocate, recorded_syncfs  # type: ignore[assignment]
        try:
            yield
        finally:
            os.pwrite, os.ftruncate, os.fdatasync, backing._fallocate, backing._syncfs = real

    def _changed(self, fd: int) -> None:
        self.now += 1
        self._remember(fd)

    def _remember(self, fd: int) -> None:
        found = os.fstat(fd)
        self._versions.setdefault(found.st_ino, []).append((self.now, os.pread(fd, found.st_size, 0)))

    def name_after_cut(self, names: list[tuple[int, str]], moment: int, chance: random.Random) -> str:
        """What the file may be called when the power fails after change number `moment`: `names` are when it got which.
        A name is on the disk for certain once everything was synced, and may be before."""
        synced = max((when for when in self._all_synced if when <= moment), default=0)
        before = [name for when, name in names if when <= synced]
        return chance.choice([before[-1], *(name for when, name in names if synced < when <= moment)])

    def after_cut(self, inode: int, moment: int, chance: random.Random) -> bytes:
        """What the file may have when the power fails after change number `moment`."""
        syncs = (*self._all_synced, *self._synced.get(inode, ()))
        synced = max((when for when in syncs if when <= moment), default=-1)
        before = [content for when, content in self._versions.get(inode, ()) if when <= synced]
        since = [content for when, content in self._versions.get(inode, ()) if synced < when <= moment]
        versions = [before[-1] if before else b"", *since]
        if len(versions) == 1:
            return versions[0]
        eager = chance.choice([0.0, 0.1, 0.5, 0.9, 1.0])

        def one() -> bytes:
            kept = chance.random() < eager
            return versions[-1] if kept else versions[0] if chance.random() < 0.8 else chance.choice(versions)

        content = bytearray(len(one()))
        for start in range(0, len(content), SECTOR):
            end = min(start + SECTOR, len(content))
            content[start:end] = one()[start:end].ljust(end - start, b"\0")
        return bytes(content)
