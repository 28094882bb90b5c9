import contextlib
import ctypes
import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdriver.content import Group, RedoLog, backing
from fsdriver.content import redo as redo_module
from fsdriver.content.redo import Covered
from tests.fsdriver.content.samples import FILE_ID, new_file
from tests.patience import PATIENCE


@pytest.fixture
def store(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def sealed(path: Path) -> int:
    path.parent.mkdir(exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    new_file(fd)
    return fd


def group(path: bytes = b"folder/file", data: bytes = b"new image") -> Group:
    return Group(FILE_ID, path, [(4096, data), (6000, b"second")], [(5000, 10)], extend_to=7000, cut_to=-1)


def killed(log: RedoLog) -> None:
    """The daemon that holds the log is killed."""
    os.close(log._fd)


def left_by_a_crash(store: int, *groups: Group) -> RedoLog:
    log = RedoLog(store, b"log")
    for each in groups:
        log.begin(each)
    log.close()
    return RedoLog(store, b"log")


def test_a_group_comes_back_from_its_record():
    before = group()
    record = before.encode(7)
    after = Group.decode(memoryview(record))
    assert after == before


def test_what_a_crash_left_is_placed_once(store, tmp_path):
    fd = sealed(tmp_path / "folder/file")
    log = left_by_a_crash(store, group(data=b"first"), group(data=b"later"))
    assert [outcome.problem for outcome in log.replay()] == ["", ""]
    assert os.pread(fd, 5, 4096) == b"later"
    assert os.pread(fd, 6, 6000) == b"second"
    assert os.fstat(fd).st_size == 7000
    assert log.replay() == []


def test_placed_groups_are_placed_again_until_a_checkpoint(store, tmp_path):
    fd = sealed(tmp_path / "folder/file")
    log = RedoLog(store, b"log")
    for data in (b"first", b"later"):
        log.end(log.begin(group(data=data)))
    assert log.holds(FILE_ID)
    killed(log)
    os.pwrite(fd, b"never placed, as after a power cut", 4096)
    log = RedoLog(store, b"log")
    assert len(log.replay()) == 2
    assert os.pread(fd, 5, 4096) == b"later"
    log.end(log.begin(group(data=b"third")))
    log.checkpoint()
    assert not log.holds(FILE_ID)
    killed(log)
    assert RedoLog(store, b"log").replay() == []


def test_a_log_that_is_full_is_emptied_but_for_groups_that_wait(store, tmp_path):
    fd = sealed(tmp_path / "folder/file")
    log = RedoLog(store, b"log")
    large = [group(data=bytes([number]) * (6 << 20)) for number in range(4)]
    log.end(log.begin(large[0]))
    log.end(log.begin(large[1]))
    assert log.begin(large[2]) == 0, "the third does not fit"
    assert log.begin(large[3]) > 0
    assert log.begin(group(b"folder/file", b"x" * (6 << 20))) > 12 << 20, "nothing that waits is overwritten"
    killed(log)
    assert len(RedoLog(store, b"log").replay()) == 3
    assert os.pread(fd, 1, 4096) == b"x"


def test_a_checkpoint_waits_for_what_is_being_placed_and_gives_up(store, tmp_path, monkeypatch):
    sealed(tmp_path / "folder/file")
    log = RedoLog(store, b"log")
    ticket = log.begin(group())
    monkeypatch.setattr(redo_module, "_PATIENCE", 0.01)
    with pytest.raises(OSError, match="could not be placed"):
        log.checkpoint()
    monkeypatch.setattr(redo_module, "_PATIENCE", PATIENCE)
    waiting = threading.Thread(target=log.checkpoint)
    waiting.start()
    log.end(ticket)
    waiting.join()
    assert not log.holds(FILE_ID)


def test_a_log_that_was_not_replayed_is_kept(store, tmp_path):
    fd = sealed(tmp_path / "folder/file")
    left_by_a_crash(store, group()).close()
    RedoLog(store, b"log").close()
    assert len(RedoLog(store, b"log").replay()) == 1
    assert os.pread(fd, 9, 4096) == b"new image"


@pytest.mark.parametrize("lost", [1, 20, 60])
def test_a_torn_group_is_dropped_and_those_before_it_count(store, tmp_path, lost):
    fd = sealed(tmp_path / "folder/file")
    left_by_a_crash(store, group(data=b"whole"), group(data=b"torn!")).close()
    path = tmp_path / "log"
    end = 2 * len(group(data=b"whole").encode(1))
    data = bytearray(path.read_bytes())
    data[end - lost : end] = bytes(lost)
    path.write_bytes(data)
    assert len(RedoLog(store, b"log").replay()) == 1
    assert os.pread(fd, 5, 4096) == b"whole"


def test_groups_of_an_earlier_round_do_not_come_back(store, tmp_path):
    sealed(tmp_path / "folder/file")
    log = RedoLog(store, b"log")
    for _ in range(3):
        log.end(log.begin(group(data=b"round 1")))
    log.checkpoint()
    assert log.begin(group(data=b"round 2")) == 0
    killed(log)
    assert len(RedoLog(store, b"log").replay()) == 1


def test_a_file_that_is_gone_or_another_one_is_left_alone(store, tmp_path):
    path = tmp_path / "folder/file"
    path.parent.mkdir()
    path.write_bytes(b"plain" * 2000)
    log = left_by_a_crash(store, group(), group(b"gone"))
    assert log.replay() == []
    assert path.read_bytes() == b"plain" * 2000


@pytest.mark.parametrize(
    "path", [b"../outside", b"/etc/hosts", b"folder/../../outside", b"", b"link/outside", b"alias"]
)
def test_a_forged_path_reaches_nothing_outside_the_store(tmp_path, path):
    inside = tmp_path / "store"
    inside.mkdir()
    outside = sealed(tmp_path / "outside")
    (inside / "link").symlink_to(tmp_path)
    (inside / "alias").symlink_to(tmp_path / "outside")
    before = os.pread(outside, 10_000, 0)
    store = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    log = left_by_a_crash(store, group(path))
    with contextlib.suppress(OSError):
        assert all(outcome.problem for outcome in log.replay())
    assert os.pread(outside, 10_000, 0) == before
    os.close(store)


def test_one_daemon_holds_the_log(store):
    log = RedoLog(store, b"log")
    with pytest.raises(BlockingIOError):
        RedoLog(store, b"log")
    log.close()
    RedoLog(store, b"log").close()


def test_what_could_not_be_placed_is_placed_before_the_file_is_read_again(store, tmp_path):
    fd = sealed(tmp_path / "folder/file")
    log = RedoLog(store, b"log")
    log.begin(group(data=b"half done"))
    log.begin(group(data=b"more of it"))
    log.finish(fd)
    assert os.pread(fd, 10, 4096) == b"more of it"
    log.checkpoint()


def test_a_file_that_is_gone_does_not_keep_the_log(store):
    log = RedoLog(store, b"log")
    log.begin(group())
    log.forget(FILE_ID)
    log.checkpoint()


def test_a_full_disk_gives_what_was_kept_to_what_is_placed(store, tmp_path):
    fd = sealed(tmp_path / "folder/file")
    log, room = RedoLog(store, b"log"), tmp_path / "log.room"
    waiting = group()
    ticket = log.begin(waiting)
    assert room.stat().st_blocks * 512 >= waiting.room

    def place() -> None:
        if room.exists():
            raise OSError(errno.ENOSPC, "full")
        waiting.place(fd)

    with pytest.raises(OSError, match="full"):
        log.with_room(place)  # not for what is no group of the log
    log.with_room(place, ticket)
    assert os.pread(fd, 9, 4096) == b"new image"
    log.end(ticket)
    log.end(log.begin(group()))
    assert room.exists()
    log.close()
    assert not room.exists()


def test_a_group_is_refused_when_nothing_can_be_kept_for_it_and_a_full_disk_can_be_mounted(store, monkeypatch):
    def full(*_: object) -> int:
        ctypes.set_errno(errno.ENOSPC)
        return -1

    with monkeypatch.context() as disk:
        disk.setattr(backing, "_fallocate", full)
        log = RedoLog(store, b"log")
        assert log.replay() == []
        with pytest.raises(OSError, match="No space left"):
            log.begin(group())
    assert not log.holds(FILE_ID)
    log.end(log.begin(group()))
    log.checkpoint()


def test_replay_writes_nothing_twice(store, tmp_path, monkeypatch):
    fd = sealed(tmp_path / "folder/file")
    cut = Group(FILE_ID, b"folder/file", [(4096, b"last")], cut_to=4100)
    alike = [Group(FILE_ID, b"folder/file", [(4096, data), (8000, data)]) for data in (b"this", b"that")]
    log = left_by_a_crash(store, *alike, cut, cut)
    written: list[int] = []
    real = os.pwrite

    def pwrite(fd: int, data: bytes, at: int) -> int:
        written.append(at)
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    assert len(log.replay()) == 4
    assert written == [4096]
    assert os.pread(fd, 10_000, 4096) == b"last"


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=30))
def test_ranges_that_are_covered_are_not_given_twice(ranges):
    covered = Covered()
    model: set[int] = set()
    for start, length in ranges:
        wanted = set(range(start, start + length))
        assert {at for low, high in covered.add(start, start + length) for at in range(low, high)} == wanted - model
        model |= wanted


def test_random_bytes_are_an_empty_log(store, tmp_path):
    (tmp_path / "log").write_bytes(os.urandom(5000))
    assert RedoLog(store, b"log").replay() == []
