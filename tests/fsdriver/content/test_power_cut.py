"""A power cut at any moment, on a disk that has kept any part of what was not synced.

The disk is a model: every write, change of size and sync is recorded. After a cut it has all that a sync covered, and
of the rest any sectors of any write, in whatever order the system would have written them.
"""

import ctypes
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from fsdriver.content import FileKey, Header, RedoLog, SealedFile, backing
from fsdriver.errors import ChunkForged, FileDamaged, HeaderDamaged
from tests.fsdriver.content.samples import CHUNK, LABEL, new_file, pattern, reopened, slot_for, unlock

SECTOR = 512
ALL = 0
"""In the place of an inode number: every file."""
KEEP_SIZE, PUNCH_HOLE = 1, 2


class Write(NamedTuple):
    inode: int
    offset: int
    data: bytes


class Resize(NamedTuple):
    inode: int
    size: int


class Sync(NamedTuple):
    inode: int


Event = Write | Resize | Sync


class Disk:
    """What was done to the files of a directory, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        real = (os.pwrite, os.ftruncate, os.fdatasync, backing._fallocate, backing._syncfs)
        pwrite, ftruncate, _, fallocate, _ = real

        def recorded_write(fd, data, offset):
            self.events.append(Write(os.fstat(fd).st_ino, offset, bytes(data)))
            return pwrite(fd, data, offset)

        def recorded_size(fd, size):
            self.events.append(Resize(os.fstat(fd).st_ino, size))
            ftruncate(fd, size)

        def recorded_sync(fd):
            self.events.append(Sync(os.fstat(fd).st_ino))

        def recorded_fallocate(fd, mode, offset, length):
            if mode & PUNCH_HOLE:
                self.events.append(Write(os.fstat(fd).st_ino, offset, bytes(length)))
            return fallocate(fd, mode, offset, length)

        def recorded_syncfs(fd):
            self.events.append(Sync(ALL))
            return 0

        os.pwrite, os.ftruncate, os.fdatasync = recorded_write, recorded_size, recorded_sync
        backing._fallocate, backing._syncfs = recorded_fallocate, recorded_syncfs  # type: ignore[assignment]
        try:
            yield
        finally:
            os.pwrite, os.ftruncate, os.fdatasync, backing._fallocate, backing._syncfs = real

    def after_a_cut(self, moment: int, inode: int, chance: random.Random) -> bytes:
        """What the disk has of a file if the power fails before event number `moment`."""
        events = self.events[:moment]
        synced = max((at for at, event in enumerate(events) if event in (Sync(inode), Sync(ALL))), default=0)
        kept = chance.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        content = bytearray()
        for at, event in enumerate(events):
            if isinstance(event, Sync) or event.inode != inode:
                continue
            if isinstance(event, Resize):
                if at < synced or chance.random() < kept:
                    del content[event.size :]
                    content.extend(bytes(event.size - len(content)))
                continue
            for start in range(0, len(event.data), SECTOR):
                if at < synced or chance.random() < kept:
                    _put(content, event.offset + start, event.data[start : start + SECTOR])
        return bytes(content)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


class History:
    """The states of one sealed file: what each commit made of it, and up to which one a sync has promised."""

    def __init__(self, name: str, store: int, redo: RedoLog, disk: Disk) -> None:
        self.name = name
        self._disk = disk
        self._redo = redo
        self.descriptor = os.open(name, os.O_RDWR | os.O_CREAT, dir_fd=store)
        self.inode = os.fstat(self.descriptor).st_ino
        self.states: list[tuple[int, bytes]] = [(0, b"")]
        """When it was begun, and the content."""
        self.promised: list[tuple[int, int]] = []
        """When a sync returned, and the number of the state."""
        self._generation = 0
        self.file: SealedFile = new_file(
            self.descriptor, file_id=name.encode().ljust(16, b"."), redo=redo, path=name.encode()
        )

    def step(self, chance: random.Random) -> None:
        begun, file, size = len(self._disk.events), self.file, self.file.size
        kind = chance.choice(
            ["write", "write", "append", "truncate", "empty", "punch", "rewrap", "flush", "sync", "open"]
        )
        data = pattern(chance.choice([5, 100, CHUNK, CHUNK + 7, 3 * CHUNK]), chance.randrange(99))
        if kind == "write":
            file.write(chance.randrange(size + 1), data)
        elif kind == "append":
            file.write(size, data)
        elif kind == "truncate":
            file.truncate(chance.randrange(size + CHUNK))
        elif kind == "empty":
            file.truncate(0)
        elif kind == "punch" and size:
            file.punch(chance.randrange(size), chance.randrange(1, 4 * CHUNK))
        elif kind == "rewrap":
            file.rewrap(LABEL, [slot_for(file.header.file_id)] * chance.randrange(1, 3))
        elif kind == "flush":
            file.flush()
        elif kind == "sync":
            file.sync()
        elif kind == "open":
            file.close()
            self.file = reopened(self.descriptor, redo=self._redo, path=self.name.encode())
        self._remember(begun)
        if kind == "sync":
            self.promised.append((len(self._disk.events), len(self.states) - 1))

    def end(self) -> None:
        begun = len(self._disk.events)
        self.file.flush()
        self._remember(begun)
        self.file.close()

    def _remember(self, begun: int) -> None:
        if self.file.generation != self._generation:
            self._generation = self.file.generation
            self.states.append((begun, self.file.read(0, 1 << 30)))

    def allowed(self, moment: int) -> tuple[list[bytes], bool]:
        """What the file may hold after a cut, and whether it may be unreadable as well: before its first sync."""
        promised = [state for returned, state in self.promised if returned <= moment]
        first = promised[-1] if promised else 0
        contents = [content for begun, content in self.states[first:] if begun <= moment]
        return contents, not promised


def first_wrap(header: Header) -> FileKey:
    """As `unlock`; the header may be torn."""
    if not header.slots:
        raise HeaderDamaged("no wraps")
    return unlock(header)


def lies_in(directory: Path, name: str) -> bytes:
    """The content of the sealed file, after the log was replayed."""
    fd = os.open(directory / name, os.O_RDWR)
    try:
        file = SealedFile.open(fd, first_wrap)
    except BaseException:
        os.close(fd)
        raise
    try:
        file.verify()
        return file.read(0, 1 << 30)
    finally:
        file.close()


@pytest.mark.parametrize(
    "seed", [*range(100), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(100, 2000))]
)
def test_what_was_synced_is_readable_and_the_rest_is_old_or_new(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    disk = Disk()
    (tmp_path / "store").mkdir()
    store = os.open(tmp_path / "store", os.O_RDONLY | os.O_DIRECTORY)
    with disk.recording():
        redo = RedoLog(store, b"log")
        files = [History(name, store, redo, disk) for name in ("one", "two")]
        for _ in range(chance.randrange(3, 40)):
            chance.choice(files).step(chance)
        for history in files:
            history.end()
        redo.close()
    inodes = {history.name: history.inode for history in files} | {"log": os.stat("log", dir_fd=store).st_ino}
    for number in range(25):
        moment = chance.randrange(len(disk.events) + 1)
        directory = tmp_path / f"after-{number}"
        directory.mkdir()
        for name, inode in inodes.items():
            (directory / name).write_bytes(disk.after_a_cut(moment, inode, chance))
        after = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        log = RedoLog(after, b"log")
        log.replay()
        log.close()
        os.close(after)
        for history in files:
            contents, may_be_unreadable = history.allowed(moment)
            try:
                assert lies_in(directory, history.name) in contents, f"a state of no commit, cut before {moment}"
            except (HeaderDamaged, FileDamaged, ChunkForged):
                assert may_be_unreadable, f"{history.name} was synced, and is unreadable after a cut before {moment}"
        shutil.rmtree(directory)  # each log reserves 16 MiB
    for history in files:
        os.close(history.descriptor)
    os.close(store)
    ctypes.set_errno(0)
