"""Claims of two machines on one file, step by step: each has a description and a redo log of its own."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from fsdriver.content import RedoLog, SealedFile, still_claims
from fsdriver.content import range_locks as locks
from fsdriver.errors import FileDamaged
from fsdriver.filesystem import claims as claims_module
from fsdriver.filesystem.asker import MustWait
from fsdriver.filesystem.claims import ClaimHeld, Claims
from fsdriver.filesystem.peers import Peers
from fsdriver.nodes.inode import Inode
from fsdriver.nodes.openfile import OpenFile
from tests.fsdriver.content.samples import new_file, unlock
from tests.mounted.harness import built_drive
from tests.patience import eventually

POLICY = Path(__file__).parents[3] / "benchmarks" / "policy"


class Sound:
    """Peers of whom nobody dies, unless a test says so."""

    def __init__(self) -> None:
        self.healthy = True
        self.looks = 0
        self.asked: list[int | None] = []

    def sound(self, claimed: int | None = None) -> bool:
        self.asked.append(claimed)
        return self.healthy

    def look(self) -> bool:
        self.looks += 1
        self.healthy = True
        return True


@dataclass
class Machine:
    claims: Claims
    file: OpenFile
    redo: RedoLog
    peers: Sound
    changed: list[OpenFile]

    @property
    def sealed(self) -> SealedFile:
        assert self.file.sealed is not None
        return self.file.sealed

    def write(self, offset: int, data: bytes, *, may_wait: bool = True) -> None:
        with self.claims.changing(self.file, may_wait=may_wait):
            self.sealed.write(offset, data)

    def read(self) -> bytes:
        with self.claims.steady(self.file, may_wait=True):
            return self.sealed.read(0, 1 << 20)


def machine(top: int, name: str) -> Machine:
    fd = os.open(b"letter", os.O_RDWR, dir_fd=top)
    inode = Inode(1, None, b"letter", os.fstat(fd))
    file = OpenFile(inode, fd, writable=True, committed=lambda sealed: None)
    redo = RedoLog(top, name.encode())
    file.sealed = SealedFile.open(fd, unlock, redo=redo, path=b"letter")
    peers = Sound()
    claims = Claims(cast("Peers", peers), redo)
    claims.active = True
    changed: list[OpenFile] = []
    claims.on_change = changed.append
    return Machine(claims, file, redo, peers, changed)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    fd = os.open(tmp_path / "letter", os.O_RDWR | os.O_CREAT)
    first = new_file(fd)
    first.write(0, b"first words")
    first.close()
    os.close(fd)
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    both = machine(top, "one"), machine(top, "two")
    yield both
    for each in both:
        each.redo.close()
    os.close(top)


def test_what_one_changed_the_other_goes_on_from(two: tuple[Machine, Machine]) -> None:
    here, there = two
    here.write(0, b"FIRST")
    here.claims.give_up(here.file)
    assert there.sealed.read(0, 100) == b"first words"  # it has not looked
    there.write(6, b"WORDS")
    assert there.changed == [there.file]
    assert there.sealed.read(0, 100) == b"FIRST WORDS"
    there.claims.give_up_all()
    assert here.read() == b"FIRST WORDS"
    assert here.changed == [here.file]


def test_nothing_is_locked_by_who_is_alone(two: tuple[Machine, Machine]) -> None:
    here, there = two
    here.claims.active = False
    here.write(0, b"alone")
    assert locks.held_by_others(there.file.fd, locks.EXCLUSIVE, 0, locks.TO_THE_END) is None


def test_a_thread_that_serves_others_does_not_wait_and_stands_in_nobodys_way(two: tuple[Machine, Machine]) -> None:
    here, there = two
    here.write(0, b"claimed")
    with pytest.raises(MustWait):
        there.write(0, b"other", may_wait=False)
    with pytest.raises(MustWait), there.claims.steady(there.file, may_wait=False):
        pass
    assert locks.held_by_others(here.file.fd, locks.EXCLUSIVE, locks.TURN_AT) is None
    here.claims.give_up(here.file)
    there.write(0, b"other", may_wait=False)


def test_who_waits_is_next(two: tuple[Machine, Machine]) -> None:
    here, there = two
    here.write(0, b"one  ")
    waiting = threading.Thread(target=there.write, args=(0, b"two  "))
    waiting.start()
    eventually(lambda: locks.held_by_others(here.file.fd, locks.EXCLUSIVE, locks.TURN_AT) is not None)
    here.claims.give_up(here.file)
    with pytest.raises(MustWait):  # the other has it, or is next
        here.write(0, b"three", may_wait=False)
    waiting.join()
    assert there.sealed.read(0, 100) == b"two   words"
    there.claims.give_up(there.file)
    here.write(0, b"three", may_wait=False)
    assert here.sealed.read(0, 100) == b"three words"


def test_patience_ends(two: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = two
    here.write(0, b"claimed")
    monkeypatch.setattr(claims_module, "PATIENCE", 0.1)
    with pytest.raises(ClaimHeld) as caught:
        there.write(0, b"other")
    assert caught.value.errno == errno.EIO
    assert locks.held_by_others(here.file.fd, locks.EXCLUSIVE, locks.TURN_AT) is None


def test_a_claim_that_is_not_given_up_is_not_recorded_as_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir(mode=0o700)
    recorded: list[str] = []
    nobody: Any = None
    with built_drive(tmp_path, POLICY, {0: "li"}) as built:
        drive = built.drive
        inode = drive.inodes.remember(drive.inodes.root, b"letter", os.stat(tmp_path / "states.db"))
        monkeypatch.setattr(drive.recorder, "record", lambda event, *rest, **more: recorded.append(event))
        drive.damaged(nobody, inode, ClaimHeld(errno.EIO, "claimed"))
        assert recorded == []
        drive.damaged(nobody, inode, OSError(errno.EIO, "the disk"))
        assert recorded == ["damaged"]


def test_a_revocation_waits_for_nobody(two: tuple[Machine, Machine]) -> None:
    here, there = two
    here.write(0, b"claimed")
    there.file.refused = True
    begun = time.monotonic()
    with pytest.raises(OSError, match="another machine has claimed"):
        there.write(0, b"other")
    assert time.monotonic() - begun < claims_module.PATIENCE / 2


def test_a_death_is_looked_into_before_anything_is_changed(two: tuple[Machine, Machine]) -> None:
    here, _ = two
    here.peers.healthy = False
    with pytest.raises(MustWait):
        here.write(0, b"words", may_wait=False)
    assert not here.file.claimed
    here.write(0, b"words")
    assert here.peers.looks == 1


def test_who_has_died_is_asked_once_the_claim_is_there(
    two: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before that the claim may still be its owner's, who dies a moment later."""
    here, there = two
    held: list[bool] = []

    def dead(claimed: int | None = None) -> bool:
        if claimed == here.file.inode.ino:
            held.append(locks.held_by_others(there.file.fd, locks.EXCLUSIVE, locks.COMMIT_AT) is not None)
        return False

    monkeypatch.setattr(here.peers, "sound", dead)
    with pytest.raises(MustWait):
        here.write(0, b"words", may_wait=False)
    assert held == [True]
    there.write(0, b"words", may_wait=False)  # and it is free again


def test_others_see_in_the_redo_log_what_is_claimed(two: tuple[Machine, Machine]) -> None:
    here, _ = two
    seen = os.open(f"/proc/self/fd/{here.redo._fd}", os.O_RDWR)
    here.redo.announce()
    assert not still_claims(seen, here.file.inode.ino)
    here.write(0, b"words")
    assert still_claims(seen, here.file.inode.ino)
    here.claims.give_up(here.file)
    assert not still_claims(seen, here.file.inode.ino)
    os.close(seen)


def test_nothing_counts_in_the_redo_log_once_a_claim_is_given_up(two: tuple[Machine, Machine]) -> None:
    here, there = two
    here.write(0, b"FIRST")
    here.sealed.flush()
    assert here.redo.holds(here.sealed.header.file_id)
    here.claims.give_up(here.file)
    assert not here.redo.holds(here.sealed.header.file_id)
    there.write(0, b"later")
    there.claims.give_up(there.file)
    os.close(os.dup(here.redo._fd))
    here.redo.replay()  # as if the machine had died and come back
    assert there.read() == b"later words"


def test_what_cannot_be_committed_stays_claimed(two: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = two
    here.write(0, b"FIRST")
    full: Any = OSError(errno.ENOSPC, "full")

    def fails(*arguments: object) -> None:
        raise full

    with monkeypatch.context() as disk:
        disk.setattr(here.redo, "begin", fails)
        here.claims.give_up_all()
        assert here.file.claimed
        with pytest.raises(MustWait):
            there.write(0, b"other", may_wait=False)
    here.claims.give_up_all()
    assert not here.file.claimed
    assert there.read() == b"FIRST words"


def test_readers_are_together_and_a_writer_is_alone(two: tuple[Machine, Machine]) -> None:
    here, there = two
    with here.claims.steady(here.file, may_wait=True):
        assert there.read() == b"first words"
        with pytest.raises(MustWait):
            there.write(0, b"other", may_wait=False)
    there.write(0, b"other", may_wait=False)


def test_a_file_that_is_being_born_is_waited_for(tmp_path: Path) -> None:
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fd = os.open(b"letter", os.O_RDWR | os.O_CREAT, dir_fd=top)
    inode = Inode(1, None, b"letter", os.fstat(fd))
    file = OpenFile(inode, fd, writable=True, committed=lambda sealed: None)
    redo = RedoLog(top, b"log")
    claims = Claims(cast("Peers", Sound()), redo)
    claims.active = True
    with pytest.raises(MustWait), claims.steady(file, may_wait=False):
        pass
    maker = os.open(b"letter", os.O_RDWR, dir_fd=top)
    later = threading.Timer(0.2, lambda: new_file(maker).close())
    later.start()
    with claims.steady(file, may_wait=True):
        assert os.fstat(fd).st_size >= 4096
    later.join()
    os.close(maker)
    os.utime(fd, (1, 1))
    os.ftruncate(fd, 0)
    os.utime(fd, (1, 1))
    with claims.steady(file, may_wait=False):  # nobody is making it any more
        assert os.fstat(fd).st_size == 0
    redo.close()
    os.close(top)


def test_damage_is_damage(two: tuple[Machine, Machine]) -> None:
    here, _ = two
    os.pwrite(here.file.fd, b"\0" * 8, 3100)
    with pytest.raises(FileDamaged):
        here.read()
    with pytest.raises(FileDamaged):
        here.write(0, b"words")
    assert locks.held_by_others(here.file.fd, locks.EXCLUSIVE, locks.TURN_AT) is None


def test_a_claim_that_was_lost_overwrites_nothing(two: tuple[Machine, Machine]) -> None:
    """A machine that slept while its file server took its locks back."""
    here, there = two
    here.write(0, b"slept")
    locks.release(here.file.fd, locks.COMMIT_AT)
    there.write(0, b"worked meanwhile")
    there.claims.give_up(there.file)
    with pytest.raises(OSError, match="under this one's claim"):
        here.file.commit()
    assert there.read() == b"worked meanwhile"


def test_only_so_many_wait_for_other_machines(two: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = two
    here.write(0, b"claimed")
    monkeypatch.setattr(claims_module, "WAITING_MAX", 1)
    waiting = threading.Thread(target=there.write, args=(0, b"waits "))
    waiting.start()
    eventually(lambda: there.claims._waiting)
    with pytest.raises(OSError, match="1 others wait"):
        there.write(0, b"too many")
    here.claims.give_up(here.file)
    waiting.join()
    there.write(0, b"again ")


def test_a_file_whose_key_was_taken_back_is_retired_as_well(two: tuple[Machine, Machine]) -> None:
    here, there = two
    here.write(0, b"FIRST")
    here.sealed.flush()
    file_id = here.file.inode.file_id = here.sealed.header.file_id
    here.file.sealed = None
    here.claims.give_up(here.file)
    assert not here.redo.holds(file_id)
    there.write(0, b"later")
