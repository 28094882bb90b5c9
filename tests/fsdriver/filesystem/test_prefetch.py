"""Who walks from file to file is followed, and the process that reads ahead asks for what comes next."""

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.filesystem.prefetch import LOOKED_UP, OPENED, Prefetch
from fsdriver.filesystem.readahead import AHEAD, LISTED, ReadAhead, message, messages
from fsdriver.nodes.directories import Directories
from fsdriver.nodes.inode import InodeTable
from tests.patience import PATIENCE, eventually

SLOW, QUICK = 0.01, 0.00001


@pytest.fixture
def store(tmp_path: Path) -> Iterator[int]:
    """A descriptor of a store with two directories of files, `a` and `b`, and one that holds more than is asked for."""
    for directory, count in (("a", 20), ("b", 20), ("many", AHEAD + 50)):
        (tmp_path / directory).mkdir()
        for number in range(count):
            (tmp_path / directory / f"{number}").write_bytes(b"sealed")
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield top
    os.close(top)


class Asked(ReadAhead):
    """Writes down which files the kernel is asked for."""

    def __init__(self, store: int) -> None:
        super().__init__(store)
        self.names: list[bytes] = []

    def _ask(self, kind: bytes, directory: bytes, names: list[bytes], most: int) -> tuple[int, int]:
        files, size = super()._ask(kind, directory, names, most)
        self.names += [directory + b"/" + name for name in names[:files]]
        return files, size

    def taken(self) -> list[bytes]:
        names, self.names = self.names, []
        return names


def listing(store: int, directory: bytes) -> list[bytes]:
    fd = os.open(directory, os.O_RDONLY, dir_fd=store)
    try:
        return [directory + b"/" + os.fsencode(name) for name in os.listdir(fd)]
    finally:
        os.close(fd)


def test_the_rest_of_a_directory_is_asked_for_once(store: int) -> None:
    ahead = Asked(store)
    files = listing(store, b"a")
    ahead.follow(OPENED, b"a", files[3][2:])
    assert ahead.taken() == files[4:]
    ahead.follow(OPENED, b"a", files[10][2:])
    assert ahead.taken() == []


def test_what_was_too_much_at_once_is_asked_for_next_time(store: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsdriver.filesystem.readahead.AT_ONCE", 5 * len(b"sealed"))
    ahead = Asked(store)
    files = listing(store, b"a")
    for place in range(4):
        ahead.follow(OPENED, b"a", files[place][2:])
        assert ahead.taken() == files[1 + 5 * place : 6 + 5 * place]


def test_the_directories_that_were_listed_next_follow(store: int) -> None:
    ahead = Asked(store)
    for directory in (b"a", b"b", b"many"):
        ahead.listed(directory)
    ahead.follow(OPENED, b"a", listing(store, b"a")[18][2:])
    asked = ahead.taken()
    assert asked[:21] == [listing(store, b"a")[19], *listing(store, b"b")]
    assert len(asked) == AHEAD


def test_who_begins_anew_gets_everything_anew(store: int) -> None:
    ahead = Asked(store)
    ahead.listed(b"a")
    ahead.listed(b"b")
    first, second = listing(store, b"a"), listing(store, b"b")
    for _ in range(2):
        ahead.follow(OPENED, b"a", first[0][2:])
        assert ahead.taken() == first[1:] + second
        ahead.follow(OPENED, b"a", first[19][2:])
        ahead.follow(OPENED, b"b", second[5][2:])
        assert ahead.taken() == []


def test_directories_that_were_listed_in_a_circle_come_to_an_end(store: int) -> None:
    ahead = Asked(store)
    for directory in (b"a", b"b", b"a", b"b"):
        ahead.listed(directory)
    ahead.follow(LOOKED_UP, b"a", listing(store, b"a")[0][2:])
    assert len(ahead.taken()) == 39


def test_no_link_leads_out_of_the_store(store: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "a").mkdir()
    for name in listing(store, b"a"):
        (outside / os.fsdecode(name)).write_bytes(b"somebody else's")
    ahead = Asked(store)
    ahead.listed(b"b")
    ahead.listed(b"top/a")
    os.symlink(outside, "top", dir_fd=store)
    os.symlink(outside / "a", "linked", dir_fd=store)
    for directory in (b"top/a", b"linked", b"../" + os.fsencode(outside.name) + b"/a"):
        with pytest.raises(OSError, match=r"Not a directory|symbolic links|Invalid"):
            ahead.follow(OPENED, directory, b"0")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        ahead.follow(OPENED, b"b", listing(store, b"b")[0][2:])
    assert ahead.taken() == listing(store, b"b")[1:]


def test_what_is_no_file_is_not_opened(store: int) -> None:
    ahead = Asked(store)
    files = listing(store, b"a")
    ahead.follow(OPENED, b"a", files[0][2:])
    ahead.taken()
    for name in files[1:]:  # a FIFO would be waited for
        os.unlink(name, dir_fd=store)
        os.mkfifo(name, dir_fd=store)
    ahead.follow(OPENED, b"a", files[0][2:])
    ahead.follow(LOOKED_UP, b"a", files[0][2:])
    assert ahead.taken() == files[1:]


def test_a_file_that_is_not_there_any_more_does_no_harm(store: int) -> None:
    ahead = Asked(store)
    files = listing(store, b"a")
    ahead.follow(OPENED, b"a", files[0][2:])
    for name in files[5:]:
        os.unlink(name, dir_fd=store)
    ahead.follow(OPENED, b"a", b"new")
    with pytest.raises(FileNotFoundError):
        ahead.follow(OPENED, b"gone", b"file")


def test_messages_survive_the_pipe_and_nonsense_ends_them() -> None:
    sent = message(LISTED, b"a") + message(OPENED, b"a/b", b"name\nof two lines")
    assert list(messages(io.BytesIO(sent))) == [(LISTED, [b"a"]), (OPENED, [b"a/b", b"name\nof two lines"])]
    for broken in (b"\0\0\0\0", b"\xff\xff\xff\xff" + sent, sent[:3], sent[:5]):
        assert list(messages(io.BytesIO(broken))) == []


class Told(Prefetch):
    """Takes down what the process is told."""

    def __init__(self, top: int) -> None:
        self.inodes = InodeTable(os.fstat(top))
        super().__init__(Directories(self.inodes.root, top), top)
        self.told: list[tuple[bytes, ...]] = []

    def _tell(self, kind: bytes, directory: object, *names: bytes) -> None:
        self.told.append((kind, *names))

    def walk(self, kind: bytes, files: int, seconds: float) -> None:
        for number in range(files):
            self.waited(kind, self.inodes.root, b"%d" % number, seconds)


def test_what_is_in_memory_is_nobodys_business(store: int) -> None:
    prefetch = Told(store)
    prefetch.walk(OPENED, 1000, QUICK)
    assert prefetch.told == []


def test_after_a_wait_the_walk_is_told_now_and_then(store: int) -> None:
    prefetch = Told(store)
    prefetch.walk(OPENED, 1, SLOW)
    assert prefetch.told == [(OPENED, b"0")]
    prefetch.walk(OPENED, 1000, QUICK)
    assert [names for _, *names in prefetch.told[1:]] == [[b"%d" % number] for number in range(31, 256, 32)]
    prefetch.walk(LOOKED_UP, 100, QUICK)  # who opens slowly need not look up slowly
    assert len(prefetch.told) == 9


def test_the_process_lives_as_long_as_the_drive_and_nothing_needs_it(store: int) -> None:
    inodes = InodeTable(os.fstat(store))
    prefetch = Prefetch(Directories(inodes.root, store), store)
    prefetch.waited(OPENED, inodes.root, b"before it was started", SLOW)
    prefetch.start()
    process = prefetch._process
    assert process is not None
    prefetch.listed(inodes.root)
    prefetch.waited(OPENED, inodes.root, b"x" * 255, SLOW)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: process.poll() is not None)
    for _ in range(5):
        prefetch.waited(OPENED, inodes.root, b"nobody hears this", SLOW)
    prefetch.stop()
    prefetch.waited(OPENED, inodes.root, b"after it was stopped", SLOW)
    prefetch.stop()


def test_the_process_ends_with_the_drive(store: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsdriver.filesystem.prefetch._END_SECONDS", PATIENCE)
    inodes = InodeTable(os.fstat(store))
    prefetch = Prefetch(Directories(inodes.root, store), store)
    prefetch.start()
    process = prefetch._process
    assert process is not None
    prefetch.stop()
    assert process.poll() == 0
