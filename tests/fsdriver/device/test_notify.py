import os
from collections.abc import Iterator

import pytest

from fsdriver.device.notify import Notifier
from fsdriver.protocol import Agreement, notifications
from tests.patience import PATIENCE

NEW = Agreement(b"", True, 45, 0, 1 << 20, False, True, True, True)
OLD = NEW._replace(expire_only=False, inc_epoch=False, prune=False)


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_DIRECT)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def messages(reading: int) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(os.read(reading, 4096))
        except BlockingIOError:
            return found


def sent(notifier: Notifier, reading: int) -> list[bytes]:
    notifier.start()
    assert notifier.drain(PATIENCE)
    notifier.stop()
    assert notifier.join(PATIENCE)
    return messages(reading)


def test_equal_notifications_that_wait_are_sent_once_in_order(ends):
    notifier = Notifier(ends[1], NEW)
    for nodeid in (5, 6, 5, 5, 7):
        notifier.inval_inode(nodeid)
    assert sent(notifier, ends[0]) == [notifications.inval_inode(n) for n in (5, 6, 7)]


def test_names_and_nodes_are_told_to_the_kernel(ends):
    notifier = Notifier(ends[1], NEW)
    notifier.inval_entry(1, b"a", expire_only=True)
    notifier.delete(1, 5, b"b")
    assert notifier.inc_epoch()
    assert notifier.prune([5])
    assert set(sent(notifier, ends[0])) == {
        notifications.inval_entry(1, b"a", expire_only=True),
        notifications.delete(1, 5, b"b"),
        notifications.inc_epoch(),
        notifications.prune([5]),
    }


def test_an_older_kernel_is_told_only_what_it_understands(ends):
    notifier = Notifier(ends[1], OLD)
    notifier.inval_entry(1, b"a", expire_only=True)
    assert not notifier.inc_epoch()
    assert not notifier.prune([5])
    assert sent(notifier, ends[0]) == [notifications.inval_entry(1, b"a")]


def test_a_notification_that_cannot_be_written_does_not_end_the_thread(ends, caplog):
    reading, writing = os.pipe()
    os.close(reading)
    notifier = Notifier(writing, NEW)
    notifier.inval_inode(5)
    notifier.inval_inode(6)
    notifier.start()
    assert notifier.drain(PATIENCE)
    assert caplog.text.count("refused a notification") == 2
    notifier.stop()
    assert notifier.join(PATIENCE)
    os.close(writing)


def test_a_drain_that_lasts_too_long_says_so(ends):
    notifier = Notifier(ends[1], NEW)
    notifier.inval_inode(5)
    assert not notifier.drain(0.01)


def test_pages_do_not_wait_for_names(ends):
    notifier = Notifier(ends[1], NEW)
    notifier.inval_entry(1, b"in a directory that somebody has")
    assert not notifier.drain(0.01)
    assert notifier.drain_pages(0.01)
    notifier.inval_inode(5)
    assert not notifier.drain_pages(0.01)
