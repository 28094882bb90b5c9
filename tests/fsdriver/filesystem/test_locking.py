"""Who waits for locks: how many, whose turn it is, and that nobody can keep the others from waiting."""

import errno
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from fsdriver.device import Later
from fsdriver.filesystem.locking import WAITING_MAX, Locking
from fsdriver.nodes.locks import END_OF_FILE, F_UNLCK, F_WRLCK, LockTable
from fsdriver.protocol import InHeader, abi, events, replies

LI, DANA = 1000, 1001


@pytest.fixture
def locking(monkeypatch):
    """The locks of one file, for which nobody looks after its waiters' signals."""
    file = SimpleNamespace(flock=LockTable(flock=True), posix=LockTable())
    alone = SimpleNamespace(active=False)
    drive: Any = SimpleNamespace(handle=lambda fh: SimpleNamespace(file=file), claims=alone)
    locking = Locking(drive)
    monkeypatch.setattr(locking, "_watched", True)
    return locking


def wants(locking, uid, owner, kind=F_WRLCK):
    """flock(2) by `uid` through the open file description `owner`."""
    head = InHeader(0, 0, owner, 1, uid, uid, 0)
    return locking.setlkw(events.Setlkw(head, 1, owner, 0, END_OF_FILE, kind, 0, abi.LK_FLOCK))


def wait(locking, uid, owners):
    """How many of them wait, until one gets ENOLCK."""
    for waits, owner in enumerate(owners):
        try:
            wants(locking, uid, owner)
        except OSError as exc:
            if exc.errno == errno.ENOLCK:
                return waits
            raise
    return len(owners)


def test_no_user_has_more_waits_than_are_left_for_the_others(locking):
    assert wants(locking, LI, 1) == replies.EMPTY
    assert wait(locking, DANA, range(100, 1100)) == WAITING_MAX // 2
    assert wait(locking, LI, range(2000, 3000)) == WAITING_MAX // 4
    assert [wait(locking, uid, range(uid * 1000, uid * 1000 + 1000)) for uid in range(3, 9)] == [32, 16, 8, 4, 2, 1]


def test_what_can_be_had_at_once_takes_no_wait(locking):
    wants(locking, LI, 1)
    wait(locking, DANA, range(100, 1100))
    assert wants(locking, DANA, 1, F_UNLCK) == replies.EMPTY  # the first who waits has it now
    with pytest.raises(BlockingIOError):
        locking.setlk(events.Setlk(InHeader(0, 0, 5, 1, LI, LI, 0), 1, 5, 0, END_OF_FILE, F_WRLCK, 0, abi.LK_FLOCK))
    assert isinstance(wants(locking, DANA, 1), Later)  # and so one more may wait


def test_an_interrupted_wait_makes_room(locking):
    wants(locking, LI, 1)
    waits = [wants(locking, DANA, owner) for owner in range(100, 100 + WAITING_MAX // 2)]
    with pytest.raises(OSError, match="locks are waited for"):
        wants(locking, DANA, 99)
    waits[7].cancel()
    with pytest.raises(InterruptedError):
        waits[7].run()
    assert isinstance(wants(locking, DANA, 99), Later)


@pytest.mark.parametrize("dropped", [True, False])
def test_who_could_still_read_old_pages_is_not_told_of_a_lock(locking, dropped):
    """Another machine has written under the lock before."""
    drive = locking._drive
    drive.claims.steady = lambda file, may_wait: nullcontext()
    drive.kernel = SimpleNamespace(drain_pages=lambda timeout: dropped, drain=lambda timeout: dropped)
    with nullcontext() if dropped else pytest.raises(OSError, match="still has pages"):
        locking._take_over(drive.handle(1).file)
