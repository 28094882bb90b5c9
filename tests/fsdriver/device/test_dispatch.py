import errno
import threading
from collections.abc import Iterator

import pytest

from fsdriver.device.dispatch import Dispatcher, Later
from fsdriver.device.pool import Pool
from fsdriver.errors import ViewRefused
from fsdriver.protocol import MalformedMessage, events
from tests.patience import PATIENCE

OUT = memoryview(bytearray(16))


def head(unique: int = 7) -> events.InHeader:
    return events.InHeader(40, 17, unique, 1, 0, 0, 1)


class Sent:
    def __init__(self) -> None:
        self.replies: list[tuple[int, int, bytes]] = []
        self.came = threading.Event()

    def send_later(self, unique: int, error: int, body: bytes) -> None:
        self.replies.append((unique, error, body))
        self.came.set()

    def only(self) -> tuple[int, int, bytes]:
        assert self.came.wait(PATIENCE)
        (reply,) = self.replies
        return reply


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(4)
    yield pool
    assert pool.close(PATIENCE)


def answering(pool: Pool, answer):
    def handler(event, out):
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Dispatcher(handler, pool)


def interrupt(unique: int) -> events.Interrupt:
    return events.Interrupt(head(unique + 1), unique)


def test_an_answer_is_passed_on(pool):
    sent = Sent()
    assert answering(pool, b"body").serve(events.Statfs(head()), OUT, sent) == (0, b"body")
    assert answering(pool, 12).serve(events.Statfs(head()), OUT, sent) == (0, 12)
    assert sent.replies == []


@pytest.mark.parametrize(
    ("raised", "number"),
    [
        (ViewRefused("no"), errno.EACCES),
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
        (ValueError("bug"), errno.EIO),
        (None, errno.EIO),
    ],
)
def test_an_exception_or_nonsense_becomes_an_errno(pool, raised, number):
    assert answering(pool, raised).serve(events.Statfs(head()), OUT, Sent()) == (number, b"")


def test_a_later_is_answered_from_the_pool(pool):
    sent = Sent()
    assert answering(pool, Later(lambda: b"late")).serve(events.Statfs(head()), OUT, sent) is None
    assert sent.only() == (7, 0, b"late")


def test_a_later_that_fails_becomes_an_errno(pool):
    def run():
        raise ViewRefused("no")

    sent = Sent()
    answering(pool, Later(run)).serve(events.Statfs(head()), OUT, sent)
    assert sent.only() == (7, errno.EACCES, b"")


def waiting_later() -> tuple[Later, list[int]]:
    woken, cancels = threading.Event(), []

    def run():
        woken.wait(PATIENCE)
        raise InterruptedError

    def cancel():
        cancels.append(1)
        woken.set()

    return Later(run, cancel), cancels


def test_an_interrupt_cancels_what_waits_once(pool):
    later, cancels = waiting_later()
    dispatcher, sent = answering(pool, later), Sent()
    dispatcher.serve(events.Statfs(head()), OUT, sent)
    assert dispatcher.waiting == 1
    assert dispatcher.serve_device(interrupt(7), OUT, sent) is None
    assert dispatcher.serve_device(interrupt(7), OUT, sent) is None
    assert sent.only() == (7, errno.EINTR, b"")
    assert cancels == [1]
    assert dispatcher.waiting == 0


def test_an_interrupt_that_overtakes_its_request_is_remembered(pool):
    later, cancels = waiting_later()
    dispatcher, sent = answering(pool, later), Sent()
    dispatcher.serve_device(interrupt(7), OUT, sent)
    dispatcher.serve(events.Statfs(head()), OUT, sent)
    assert sent.only() == (7, errno.EINTR, b"")
    assert cancels == [1]


def test_interrupts_of_answered_requests_are_forgotten_in_the_end(pool):
    dispatcher = answering(pool, b"")
    for unique in range(5000):
        dispatcher.serve_device(interrupt(unique), OUT, Sent())
    assert len(dispatcher._interrupted) == 1024


def test_closing_cancels_what_waits_and_what_comes(pool):
    for before in (True, False):
        later, _ = waiting_later()
        dispatcher, sent = answering(pool, later), Sent()
        if before:
            dispatcher.close()
        dispatcher.serve(events.Statfs(head()), OUT, sent)
        dispatcher.close()
        assert sent.only()[1] == errno.EINTR


def test_forget_has_no_reply_and_a_malformed_message_has(pool):
    dispatcher = answering(pool, b"")
    assert dispatcher.serve_device(events.Forget(head(), 1), OUT, Sent()) is None
    assert dispatcher.serve_device(events.BatchForget(head(), ((1, 1),)), OUT, Sent()) is None
    assert dispatcher.serve_device(events.Destroy(head()), OUT, Sent()) == (0, b"")
    assert dispatcher.refuse(MalformedMessage("odd", 7)) == (errno.EIO, b"")


def test_the_pool_runs_as_many_as_its_limit_and_queues_the_rest():
    pool = Pool(3)
    gate, running, done = threading.Event(), threading.Semaphore(0), []

    def job():
        running.release()
        gate.wait(PATIENCE)
        done.append(1)

    for _ in range(5):
        pool.submit(job)
    for _ in range(3):
        assert running.acquire(timeout=PATIENCE)
    assert not running.acquire(timeout=0.05)
    gate.set()
    assert pool.close(PATIENCE)
    assert len(done) == 5


def test_a_pool_with_a_stuck_job_says_so():
    pool, gate = Pool(1), threading.Event()
    pool.submit(lambda: None if gate.wait(PATIENCE) else None)
    assert not pool.close(0.05)
    gate.set()
    assert pool.close(PATIENCE)
