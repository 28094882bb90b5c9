"""Who else has the store: two machines in one process, each with descriptors of its own."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.content import Group, RedoLog
from fsdriver.content import range_locks as locks
from fsdriver.filesystem import Store, StoreRefused, peers
from fsdriver.filesystem.peers import Peers
from tests.fsdriver.content.samples import FILE_ID, new_file

COMPANY = bytes(16)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


class Attentive(threading.Thread):
    """The machine that has the store alone, and lets in whoever knocks."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.01):
            if self._store.peers.is_knocked():
                self._store.peers.admit()
                return

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def killed(store: Store) -> None:
    """The daemon is killed: its locks go, its log stays."""
    os.close(store.redo._fd)
    store.peers.close()


@pytest.fixture
def first(place: Path) -> Iterator[Store]:
    store = Store.open(str(place), COMPANY, "one")
    assert not store.shared
    yield store
    store.close()


def test_a_machine_that_comes_is_let_in(place: Path, first: Store) -> None:
    with Attentive(first):
        second = Store.open(str(place), COMPANY, "two")
    assert second.shared
    assert second.peers.alive == ["one"]
    assert first.peers.look()
    assert first.peers.alive == ["two"]
    assert not first.peers.be_alone()
    third = Store.open(str(place), COMPANY, "three")  # nobody is alone, so nobody is asked
    assert third.peers.alive == ["one", "two"]
    third.close()
    second.close()
    assert first.peers.look()
    assert first.peers.alive == []
    assert first.peers.be_alone()


def test_a_machine_that_does_not_answer_keeps_others_out(
    place: Path, first: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "JOIN_SECONDS", 0.2)
    with pytest.raises(StoreRefused, match="does not answer"):
        Store.open(str(place), COMPANY, "two")
    assert not first.peers.is_knocked()  # and does not stand at the door any more


def test_who_leaves_keeps_others_out_until_its_log_is_empty(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a machine is alone and changes files that are in the log of one that may still be killed."""
    kept_out: list[bool] = []
    close = RedoLog.close

    def watched(log: RedoLog) -> None:
        close(log)
        kept_out.append(locks.held_by_others(sharing, locks.SHARED, 0) is not None)

    monkeypatch.setattr(RedoLog, "close", watched)
    store = Store.open(str(place), COMPANY, "one")
    sharing = os.open(place / ".grantfs/sharing", os.O_RDWR)
    store.close()
    assert kept_out == [True]
    os.close(sharing)


def test_a_death_is_seen_before_the_next_look(place: Path, first: Store) -> None:
    with Attentive(first):
        second = Store.open(str(place), COMPANY, "two")
    assert first.peers.look()
    assert first.peers.sound()
    killed(second)
    assert not first.peers.sound()
    assert first.peers.look()
    assert first.peers.sound()


def test_a_claim_is_not_taken_from_who_is_dying(place: Path, first: Store) -> None:
    """A daemon that is killed loses its locks one after the other: that on its log may be the last."""
    with Attentive(first):
        second = Store.open(str(place), COMPANY, "two")
    assert first.peers.look()
    second.redo.claimed(4711)
    assert first.peers.sound()
    assert first.peers.sound(4712)
    assert not first.peers.sound(4711)
    second.redo.given_up(4711)
    assert first.peers.sound(4711)
    second.close()


def test_an_old_look_says_nothing(first: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert first.peers.look()
    assert first.peers.sound()
    monkeypatch.setattr(peers, "STALE_SECONDS", 0.0)
    assert not first.peers.sound()


def test_what_a_dead_machine_left_is_put_in_place_by_another(place: Path, first: Store) -> None:
    with Attentive(first):
        second = Store.open(str(place), COMPANY, "two")
    fd = os.open(place / "letter", os.O_RDWR | os.O_CREAT)
    new_file(fd).close()
    second.redo.begin(Group(FILE_ID, [(5000, b"what was meant to be there")], path=b"letter"))
    first.peers.look()
    assert os.pread(fd, 26, 5000) == b""  # as long as the machine lives, it is its own business
    killed(second)
    told: list[bytes] = []
    first.peers.on_replayed = lambda change: told.append(change.path)
    assert first.peers.look()
    assert os.pread(fd, 26, 5000) == b"what was meant to be there"
    assert told == [b"letter"]
    os.close(fd)


def test_a_log_that_was_removed_keeps_nobody_waiting(place: Path, first: Store) -> None:
    """Of a machine that ended after that: nothing tells what it had left."""
    with Attentive(first):
        second = Store.open(str(place), COMPANY, "two")
    assert first.peers.look()
    (place / ".grantfs/redo/two").unlink()
    assert first.peers.look()
    assert first.peers.alive == ["two"]
    killed(second)
    assert not first.peers.sound()
    assert first.peers.look()
    assert first.peers.sound()
    assert first.peers.alive == []


def test_nobody_is_alone_while_a_log_is_being_replayed(place: Path, first: Store) -> None:
    """A machine that comes back and has not finished."""
    redo = place / ".grantfs/redo"
    top = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    left = RedoLog(top, b".grantfs/redo/two")
    left.begin(Group(FILE_ID, [(5000, b"image")], path=b"letter"))
    os.close(left._fd)
    assert (redo / "two").read_bytes().startswith(b"GFSREDO1")
    replaying = RedoLog(top, b".grantfs/redo/two")
    assert not first.peers.look()
    assert not first.peers.be_alone()
    assert not first.peers.sound()
    replaying.replay()
    replaying.announce()
    assert first.peers.look()
    assert first.peers.alive == ["two"]
    replaying.close()
    os.close(top)


def test_who_has_always_been_alone_knows_of_nobody(place: Path, first: Store) -> None:
    """Space that is kept for a log is not another machine's."""
    first.redo.begin(Group(FILE_ID, [(5000, b"image")], path=b"letter"))
    assert sorted(os.listdir(place / ".grantfs/redo")) == ["one", "one.room"]
    first.peers.look()
    assert not first.peers.known
    with Attentive(first):
        second = Store.open(str(place), COMPANY, "two")
    first.peers.look()
    assert first.peers.known
    second.close()


def test_what_is_no_log_is_left_alone(place: Path, first: Store) -> None:
    redo = place / ".grantfs/redo"
    (redo / "folder").mkdir()
    os.symlink("/etc/passwd", redo / "link")
    os.mkfifo(redo / "pipe")
    (redo / "note").write_text("words of somebody else")
    begun = time.monotonic()
    assert first.peers.look()
    assert time.monotonic() - begun < 5
    assert first.peers.alive == []
    assert (redo / "note").read_text() == "words of somebody else"


def test_of_two_that_come_at_once_one_is_alone(place: Path) -> None:
    stores: list[Store] = []
    lock = threading.Lock()

    def come(name: str) -> None:
        store = Store.open(str(place), COMPANY, name)
        with lock:
            stores.append(store)
        if not store.shared:
            with Attentive(store):
                deadline = time.monotonic() + 20
                while len(stores) < 2 and time.monotonic() < deadline:
                    time.sleep(0.01)

    threads = [threading.Thread(target=come, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(store.shared for store in stores) == [False, True]
    for store in stores:
        store.close()
    assert isinstance(stores[0].peers, Peers)
