import ctypes
import errno
import os
import random
import shutil
import threading
from pathlib import Path

import pytest

from fsdriver.content import Group, RedoLog, backing, works
from fsdriver.content import redo as redo_module
from fsdriver.content.backing import punch, write_all
from fsdriver.content.redo import combined
from fsdriver.content.search import Sought
from fsdriver.content.tree import walk
from tests.fsdriver.content.samples import FILE_ID, new_file
from tests.patience import PATIENCE


@pytest.fixture
def store(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def sealed(path: Path, file_id: bytes = FILE_ID) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    new_file(fd, file_id=file_id)
    return fd


def number(fd: int) -> int:
    return os.fstat(fd).st_ino


def group(path: bytes = b"folder/file", data: bytes = b"new image", inode: int = 0) -> Group:
    return Group(FILE_ID, [(4096, data), (6000, b"second")], [(5000, 10)], 7000, path=path, inode=inode)


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
    before = group(inode=(1 << 56) - 1)
    record = before.encode(7)
    after = Group.decode(memoryview(record))
    assert after == before


def test_an_inode_number_that_does_not_fit_is_not_known():
    assert Group.decode(memoryview(group(inode=1 << 56).encode(7))) == group(inode=0)


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


MOVES = {
    "the file": lambda top: (top / "folder/file").rename(top / "folder/new"),
    "its folder": lambda top: (top / "folder").rename(top / "new"),
    "a folder above it": lambda top: [(top / "other").mkdir(), (top / "folder").rename(top / "other/folder")],
    "to a name that is no text": lambda top: os.rename(top / "folder/file", os.fsencode(top) + b"/\xff\n"),
}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("move", MOVES)
def test_a_file_that_lies_elsewhere_is_found(store, tmp_path, move, known):
    fd = sealed(tmp_path / "folder/file")
    sealed(tmp_path / "folder/neighbour", b"another id......")
    log = left_by_a_crash(store, group(inode=number(fd) if known else 0))
    MOVES[move](tmp_path)
    (outcome,) = log.replay()
    assert not outcome.problem
    assert number(fd) == os.stat(outcome.path, dir_fd=store).st_ino
    assert os.pread(fd, 9, 4096) == b"new image"


@pytest.mark.parametrize("known", [True, False])
def test_a_file_of_several_names_is_found_by_one_that_the_log_does_not_know(store, tmp_path, known):
    fd = sealed(tmp_path / "folder/file")
    log = left_by_a_crash(store, group(inode=number(fd) if known else 0))
    for name in ("one", "folder/two"):
        (tmp_path / name).hardlink_to(tmp_path / "folder/file")
    (tmp_path / "folder/file").unlink()
    assert [outcome.problem for outcome in log.replay()] == [""]
    assert os.pread(fd, 9, 4096) == b"new image"


@pytest.mark.parametrize("moved", [False, True])
def test_a_copy_at_the_path_is_left_alone(store, tmp_path, moved):
    path = tmp_path / "folder/file"
    fd = sealed(path)
    log = left_by_a_crash(store, group(inode=number(fd)))
    path.rename(tmp_path / "moved")
    copy = (tmp_path / "moved").read_bytes()
    path.write_bytes(copy)
    if not moved:
        (tmp_path / "moved").unlink()
    assert len(log.replay()) == moved
    assert path.read_bytes() == copy
    assert (os.pread(fd, 9, 4096) == b"new image") == moved


def test_of_several_copies_none_is_taken_where_the_inode_number_is_not_known(store, tmp_path):
    fd = sealed(tmp_path / "one")
    copy = (tmp_path / "one").read_bytes()
    (tmp_path / "two").write_bytes(copy)
    log = left_by_a_crash(store, group(data=b"first"), group(data=b"later"))
    (outcome,) = log.replay()
    assert outcome.problem.startswith("several files")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == copy
    os.close(fd)


def test_in_a_copy_of_a_store_files_are_found_by_their_ids(store, tmp_path):
    original, copy = tmp_path / "store", tmp_path / "copy"
    fds = [sealed(original / "at its path"), sealed(original / "elsewhere", b"another id......")]
    top = os.open(original, os.O_RDONLY | os.O_DIRECTORY)
    left_by_a_crash(
        top,
        group(b"at its path", inode=number(fds[0])),
        Group(b"another id......", [(4096, b"other")], path=b"before", inode=number(fds[1])),
    ).close()
    os.close(top)
    shutil.copytree(original, copy)
    top = os.open(copy, os.O_RDONLY | os.O_DIRECTORY)
    assert [outcome.path for outcome in RedoLog(top, b"log").replay()] == [b"at its path", b"elsewhere"]
    assert (copy / "elsewhere").read_bytes()[4096:] == b"other"
    os.close(top)


def test_another_file_that_has_got_the_inode_number_is_left_alone(store, tmp_path):
    fd = sealed(tmp_path / "folder/file", b"another id......")
    before = os.pread(fd, 10_000, 0)
    log = left_by_a_crash(store, group(inode=number(fd)), group(b"elsewhere", inode=number(fd)))
    assert log.replay() == []
    assert os.pread(fd, 10_000, 0) == before


def test_groups_of_one_file_stay_in_order_wherever_they_say_it_lay(store, tmp_path):
    fd = sealed(tmp_path / "now")
    other = sealed(tmp_path / "other", b"another id......")
    groups = [
        group(path, data, number(fd))
        for path, data in [(b"before", b"first"), (b"now", b"second"), (b"gone/before", b"third!!!")]
    ]
    foreign = Group(b"another id......", [(4096, b"other")], path=b"before", inode=number(other))
    log = left_by_a_crash(store, groups[0], foreign, *groups[1:])
    assert [outcome.path for outcome in log.replay()] == [b"now", b"now", b"now", b"other"]
    assert os.pread(fd, 8, 4096) == b"third!!!"
    assert os.pread(other, 5, 4096) == b"other"


def test_the_store_is_walked_once_and_only_if_a_file_is_not_at_its_path(store, tmp_path, monkeypatch):
    walks = []

    def counted(top: int, skip: str):
        walks.append(skip)
        return walk(top, skip)

    monkeypatch.setattr("fsdriver.content.search.walk", counted)
    fds = [sealed(tmp_path / f"file-{letter}", letter.encode() * 16) for letter in "abc"]

    def log_of(folder: bytes) -> RedoLog:
        paths = [folder + f"file-{letter}".encode() for letter in "abc"]
        return left_by_a_crash(
            store,
            *(
                Group(letter.encode() * 16, [(4096, b"new")], path=path, inode=number(fd))
                for letter, path, fd in zip("abc", paths, fds, strict=True)
            ),
        )

    log = log_of(b"")
    assert len(log.replay()) == 3
    assert walks == []
    log.close()
    log = log_of(b"gone/")
    assert len(log.replay()) == 3
    assert len(walks) == 1


def test_a_replacement_that_has_taken_its_name_is_found_and_one_in_the_making_is_not_looked_for(store, tmp_path):
    name, incoming = b".grantfs/redo/machine", tmp_path / ".grantfs/incoming"
    (tmp_path / ".grantfs/redo").mkdir(parents=True)
    taken, making = sealed(incoming / "1"), sealed(incoming / "2", b"another id......")
    log = RedoLog(store, name)
    log.begin(group(b".grantfs/incoming/1", inode=number(taken)))
    log.begin(Group(b"another id......", [(4096, b"x")], path=b".grantfs/incoming/1", inode=number(making)))
    log.close()
    (incoming / "1").rename(tmp_path / "taken")
    assert [outcome.path for outcome in RedoLog(store, name).replay()] == [b"taken"]
    assert os.pread(taken, 9, 4096) == b"new image"


def test_what_cannot_be_looked_into_is_said_of_a_file_that_is_not_found(store, tmp_path, monkeypatch):
    fd = sealed(tmp_path / "file", b"another id......")
    log = left_by_a_crash(store, group(b"gone", inode=number(fd)), group(b"gone", inode=number(fd)))
    (tmp_path / "folder").mkdir()
    scandir = os.scandir

    def failing(folder):
        if os.fstat(folder).st_ino == (tmp_path / "folder").stat().st_ino:
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", failing)
    (outcome,) = log.replay()
    assert "could be looked into" in outcome.problem


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "path", [b"../outside", b"/etc/hosts", b"folder/../../outside", b"", b"link/outside", b"alias", b"pipe", b"x" * 300]
)
def test_a_forged_path_reaches_nothing_outside_the_store(tmp_path, path, known):
    inside = tmp_path / "store"
    inside.mkdir()
    outside = sealed(tmp_path / "outside")
    (inside / "link").symlink_to(tmp_path)
    (inside / "alias").symlink_to(tmp_path / "outside")
    os.mkfifo(inside / "pipe")
    before = os.pread(outside, 10_000, 0)
    store = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    log = left_by_a_crash(store, group(path, inode=number(outside) if known else 0))
    assert log.replay() == []
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
    log.begin(group(data=b"half done", inode=number(fd)))
    log.begin(group(data=b"more of it", inode=number(fd)))
    log.finish(fd)
    assert os.pread(fd, 10, 4096) == b"more of it"
    log.checkpoint()


def test_a_file_that_is_gone_does_not_keep_the_log(store):
    log = RedoLog(store, b"log")
    log.begin(group())
    log.forget(Sought(FILE_ID, 0))
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
    cut = Group(FILE_ID, [(4096, b"last")], cut_to=4100, path=b"folder/file")
    alike = [Group(FILE_ID, [(4096, data), (8000, data)], path=b"folder/file") for data in (b"this", b"that")]
    log = left_by_a_crash(store, *alike, cut, cut)
    written: list[int] = []
    real = os.pwrite

    def pwrite(fd: int, data: bytes, at: int) -> int:
        written.append(at)
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    assert len(log.replay()) == 4
    assert written == [4096, 0]  # and the head of the log, which empties it
    assert os.pread(fd, 10_000, 4096) == b"last"


def test_random_bytes_are_an_empty_log(store, tmp_path):
    (tmp_path / "log").write_bytes(os.urandom(5000))
    assert RedoLog(store, b"log").replay() == []


def test_what_was_retired_is_not_placed_again(store, tmp_path):
    fd = sealed(tmp_path / "folder/file")
    other = sealed(tmp_path / "folder/other", bytes(16))
    log = RedoLog(store, b"log")
    log.end(log.begin(group(data=b"first")))
    log.end(log.begin(Group(bytes(16), [(4096, b"stays")], path=b"folder/other")))
    log.retire(Sought(FILE_ID, 0), fd)
    assert not log.holds(FILE_ID)
    assert log.holds(bytes(16))
    os.pwrite(fd, b"another machine", 4096)
    killed(log)
    log = RedoLog(store, b"log")
    assert [outcome.path for outcome in log.replay()] == [b"folder/other"]
    assert os.pread(fd, 15, 4096) == b"another machine"
    assert os.pread(other, 5, 4096) == b"stays"


def test_what_is_changed_after_it_was_retired_counts(store, tmp_path):
    fd = sealed(tmp_path / "folder/file")
    log = RedoLog(store, b"log")
    log.end(log.begin(group(data=b"first")))
    log.retire(Sought(FILE_ID, 0), fd)
    log.begin(group(data=b"later"))
    assert log.holds(FILE_ID)
    killed(log)
    RedoLog(store, b"log").replay()
    assert os.pread(fd, 5, 4096) == b"later"


def test_a_copy_with_the_same_id_is_not_retired_with_it(store, tmp_path):
    fd = sealed(tmp_path / "folder/file")
    copy = sealed(tmp_path / "folder/copy")
    log = RedoLog(store, b"log")
    for one in (fd, copy):
        log.end(log.begin(Group(FILE_ID, [(4096, b"image")], path=b"folder/file", inode=number(one))))
    log.retire(Sought(FILE_ID, number(fd)), fd)
    assert log.holds(FILE_ID)
    killed(log)
    RedoLog(store, b"log").replay()
    assert os.pread(fd, 5, 4096) == b""
    assert os.pread(copy, 5, 4096) == b"image"


def drawn(draw: random.Random) -> Group:
    """Changes to the first hundred bytes of a file."""

    def data() -> bytes:
        return draw.randbytes(draw.randrange(1, 20))

    return Group(
        FILE_ID,
        [(draw.randrange(100), data()) for _ in range(draw.randrange(4))],
        [(draw.randrange(100), draw.randrange(1, 20)) for _ in range(draw.randrange(3))],
        draw.choice([0, 0, draw.randrange(120)]),
        draw.choice([-1, -1, draw.randrange(120)]),
    )


def test_groups_come_to_the_same_whether_one_by_one_or_combined(tmp_path):
    draw = random.Random(11)
    for _ in range(400):
        before, groups = draw.randbytes(draw.randrange(100)), [drawn(draw) for _ in range(draw.randrange(1, 6))]
        results = []
        for changes in (groups, [combined(groups)]):
            (tmp_path / "file").write_bytes(before)
            fd = os.open(tmp_path / "file", os.O_RDWR)
            for change in changes:
                change.place(fd)
            os.close(fd)
            results.append((tmp_path / "file").read_bytes())
        assert results[0] == results[1]


def test_what_is_in_place_is_read_as_it_is_while_it_is_placed_again(store, tmp_path, monkeypatch):
    """By another machine, for which it would go back to an earlier state."""
    fd = sealed(tmp_path / "folder/file")
    size = os.fstat(fd).st_size
    groups = [
        Group(FILE_ID, [(5000, b"first image"), (3072, b"one")], [(6000, 50)], 9000, path=b"folder/file"),
        Group(FILE_ID, [(5004, b"second image"), (3072, b"two")], [], 0, 6020, path=b"folder/file"),
        Group(FILE_ID, [(6010, b"third image"), (3072, b"three")], [], 8000, path=b"folder/file"),
    ]
    assert size < 5000
    for group in groups:
        group.place(fd)
    there = os.pread(fd, 10_000, 0)
    seen: list[bytes] = []

    def watched(change):
        def changed(*arguments):
            result = change(*arguments)
            seen.append(os.pread(fd, 10_000, 0))
            return result

        return changed

    log = left_by_a_crash(store, *groups)
    monkeypatch.setattr(redo_module, "write_all", watched(write_all))
    monkeypatch.setattr(redo_module, "punch", watched(punch))
    assert len(log.replay()) == 3
    assert set(seen) == {there}
    assert os.pread(fd, 10_000, 0) == there


def test_others_see_whether_a_log_is_at_work(store):
    log = RedoLog(store, b"log")
    seen = os.open(b"log", os.O_RDWR, dir_fd=store)
    assert not works(seen)  # it has not been replayed
    log.replay()
    log.announce()
    assert works(seen)
    with pytest.raises(BlockingIOError):
        RedoLog(store, b"log")
    killed(log)
    assert not works(seen)
    os.close(seen)
