"""The power fails after any change, and the disk has kept any part of what was not synced (docs/format.md 9)."""

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdriver.content import FileKey, Header, RedoLog, SealedFile
from fsdriver.errors import ChunkForged, FileDamaged, HeaderDamaged
from tests.fsdriver.content.lossy_disk import LossyDisk
from tests.fsdriver.content.samples import CHUNK, LABEL, new_file, pattern, slot_for, unlock

NAMES = "one", "two"
LARGEST = 1 << 20

# (what, which file, where in 256ths, how much): numbers, so that a failure shrinks to a short story.
KINDS = "write", "append", "extend", "punch", "rewrap", "shrink", "empty", "flush", "sync", "reopen", "rename"
Step = tuple[str, int, int, int]


def steps(*kinds: str) -> st.SearchStrategy[list[Step]]:
    size = st.sampled_from([1, CHUNK, CHUNK + 7, 2 * CHUNK])
    return st.lists(
        st.tuples(st.sampled_from(kinds), st.integers(0, 1), st.integers(0, 255), size), min_size=1, max_size=25
    )


class History:
    """One sealed file, the states that its commits gave it, and which of them a sync has promised."""

    def __init__(self, name: str, number: int, store: int, redo: RedoLog, disk: LossyDisk) -> None:
        self.name = name
        self._store, self._disk, self._redo = store, disk, redo
        self._names = [(0, name)]
        """When it got which name."""
        self.fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, dir_fd=store)
        self.inode = os.fstat(self.fd).st_ino
        self.file = new_file(self.fd, file_id=bytes([number]) * 16, redo=redo, path=name.encode())
        self._states: list[tuple[int, bytes]] = [(0, b"")]
        """When the step that made it began, and the content."""
        self._promises: list[tuple[int, int]] = []
        """When the sync returned, and the state's number."""
        self.sync()

    def sync(self) -> None:
        begun = self._disk.now
        self.file.sync()
        self._remember(begun)
        self._promises.append((self._disk.now, len(self._states) - 1))

    def step(self, kind: str, where: int, much: int) -> None:
        file, size, begun = self.file, self.file.size, self._disk.now
        at = size * where // 256
        if kind == "write":
            file.write(at, pattern(much, begun))
        elif kind == "append":
            file.write(size, pattern(much, begun))
        elif kind == "extend":
            file.truncate(size + much)
        elif kind == "shrink":
            file.truncate(at)
        elif kind == "empty":
            file.truncate(0)
        elif kind == "punch":
            file.punch(at, 2 * much)
        elif kind == "rewrap":
            file.rewrap(LABEL, [slot_for(file.header.file_id)] * (1 + where % 2))
        elif kind == "flush":
            file.flush()
        elif kind == "reopen":
            file.close()
            self.file = SealedFile.open(os.dup(self.fd), unlock, redo=self._redo, path=self.name.encode())
        elif kind == "rename":
            self._rename(told=where % 2 == 1)
        elif kind == "sync":
            self.sync()
        self._remember(begun)

    def _rename(self, told: bool) -> None:
        """`told`: the file knows it, unlike where it is committed at that moment."""
        self._go_by(f"{self.name.partition('-')[0]}-{len(self._names)}")
        self._disk.now += 1
        self._names.append((self._disk.now, self.name))
        if told:
            self.file.path = self.name.encode()

    def _go_by(self, name: str) -> None:
        os.rename(self.name, name, src_dir_fd=self._store, dst_dir_fd=self._store)
        self.name = name

    def cut(self, moment: int, chance: random.Random) -> None:
        """The file has what the power cut at `moment` leaves of it, and a name that it leaves."""
        self._go_by(self._disk.name_after_cut(self._names, moment, chance))
        becomes(self.fd, self._disk.after_cut(self.inode, moment, chance))

    def _remember(self, begun: int) -> None:
        if not self.file.dirty and (content := self.file.read(0, LARGEST)) != self._states[-1][1]:
            self._states.append((begun, content))

    def allowed(self, moment: int) -> list[bytes]:
        """What may be there after a cut at `moment`: first what the last sync has promised."""
        promised = max((state for returned, state in self._promises if returned <= moment), default=0)
        return [self._states[promised][1]] + [
            content for begun, content in self._states[promised + 1 :] if begun < moment
        ]

    def is_promised(self, moment: int) -> bool:
        return any(returned <= moment for returned, _ in self._promises)


def becomes(fd: int, content: bytes) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, content, 0)


def first_wrap(header: Header) -> FileKey:
    if not header.slots:
        raise HeaderDamaged("no wraps")
    return unlock(header)


def found(path: Path) -> bytes | None:
    """The content, None where the file is not readable throughout."""
    fd = os.open(path, os.O_RDWR)
    try:
        file = SealedFile.open(fd, first_wrap)
    except (HeaderDamaged, FileDamaged, ChunkForged):
        os.close(fd)
        return None
    try:
        file.verify()
        return file.read(0, LARGEST)
    except (FileDamaged, ChunkForged):
        return None
    finally:
        file.close()


class Story:
    """Work on two files of a store, on a disk that loses power."""

    def __init__(self, folder: Path, work: list[Step]) -> None:
        self._folder = folder
        self.disk = LossyDisk()
        self._store = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        with self.disk.recording():
            redo = RedoLog(self._store, b"log")
            self.files = [History(name, number, self._store, redo, self.disk) for number, name in enumerate(NAMES)]
            for kind, number, where, much in work:
                self.files[number].step(kind, where, much)
        for history in self.files:
            history.file.close()
        redo.close()
        self._log = os.open(b"log", os.O_RDWR, dir_fd=self._store)

    def cut(self, moment: int, chance: random.Random) -> Iterator[tuple[History, bytes | None]]:
        """Power fails at `moment`, and in some stories once more while the log is replayed; what is found then."""
        for history in self.files:
            history.cut(moment, chance)
        becomes(self._log, self.disk.after_cut(os.fstat(self._log).st_ino, moment, chance))
        if chance.random() < 0.3:
            self._cut_replay(chance)
        self._replay()
        for history in self.files:
            yield history, found(self._folder / history.name)

    def _cut_replay(self, chance: random.Random) -> None:
        disk = LossyDisk()
        fds = [self._log, *(history.fd for history in self.files)]
        for fd in fds:
            disk.has(fd)
        with disk.recording():
            self._replay()
        moment = chance.randrange(disk.now + 1)
        for fd in fds:
            becomes(fd, disk.after_cut(os.fstat(fd).st_ino, moment, chance))

    def _replay(self) -> None:
        log = RedoLog(self._store, b"log")
        try:
            log.replay()
        finally:
            log.close()

    def end(self) -> None:
        for fd in (self._log, self._store, *(history.fd for history in self.files)):
            os.close(fd)


@contextmanager
def story(work: list[Step]) -> Iterator[Story]:
    with tempfile.TemporaryDirectory() as folder:
        told = Story(Path(folder), work)
        try:
            yield told
        finally:
            told.end()


def moments(disk: LossyDisk, chance: random.Random, most: int) -> list[int]:
    every = range(disk.now + 1)
    return list(every) if len(every) <= most else sorted(chance.sample(every, most))


def check(work: list[Step], chance: random.Random, most: int) -> None:
    with story(work) as told:
        for moment in moments(told.disk, chance, most):
            for history, content in told.cut(moment, chance):
                if content is not None or history.is_promised(moment):
                    assert content in history.allowed(moment), f"{history.name} after change {moment}"


STORIES: dict[str, list[Step]] = {
    "the first content of a synced empty file": [("append", 0, 0, CHUNK + 7)],
    "a new header": [("append", 0, 0, CHUNK), ("rewrap", 0, 1, 1)],
    "a group in the log, then a commit that needs none": [("write", 0, 0, 1), ("flush", 0, 0, 1), ("append", 0, 0, 1)],
    "a group in the log, then chunks behind it": [("write", 0, 0, 1), ("flush", 0, 0, 1), ("append", 0, 0, CHUNK)],
    "a group that cuts the file, then chunks in the place of what it cut": [
        ("append", 0, 0, CHUNK + 7),
        ("sync", 0, 0, 1),
        ("shrink", 0, 128, 1),
        ("append", 0, 0, 2 * CHUNK),
    ],
    "a group that cuts the file, then the beginning of a chunk there": [
        ("write", 0, 0, 1),
        ("flush", 0, 0, 1),
        ("shrink", 0, 128, 1),
        ("append", 0, 0, 1),
    ],
    "cut beside the log, then a hole there that is in the log": [
        ("empty", 0, 0, 1),
        ("rewrap", 0, 0, 1),
        ("extend", 0, 0, CHUNK),
    ],
    "renamed before a group, and the power cut takes it back": [
        ("rename", 0, 1, 1),
        ("write", 0, 0, CHUNK),
        ("flush", 0, 0, 1),
    ],
    "emptied and filled": [("empty", 0, 0, 1), ("append", 0, 0, 2 * CHUNK), ("flush", 0, 0, 1), ("empty", 0, 0, 1)],
}


@pytest.mark.parametrize("name", STORIES)
def test_a_story(name: str):
    for seed in range(20):
        begun: list[Step] = [("append", 0, 0, 2 * CHUNK), ("sync", 0, 0, 1)] if "empty file" not in name else []
        check([*begun, *STORIES[name], ("sync", 0, 0, 1)], random.Random(seed), 80)


CHANCES = st.builds(random.Random, st.integers(0, 1 << 32))


@settings(max_examples=200)
@given(steps(*KINDS), CHANCES)
def test_what_was_synced_is_readable_and_the_rest_is_old_or_new(work: list[Step], chance: random.Random):
    check(work, chance, 20)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(max_examples=2500)
@given(steps(*KINDS), CHANCES)
def test_many_stories(work: list[Step], chance: random.Random):
    check(work, chance, 80)
