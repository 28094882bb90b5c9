"""Who reads /dev/fuse, and who waits."""

import threading

import pytest

from fsdriver.device.crew import Crew
from fsdriver.device.placement import LARGE
from fsdriver.device.progress import Progress
from tests.patience import PATIENCE, eventually


class Readers:
    """Three readers that only wait for their turn, and say when it has come."""

    def __init__(self) -> None:
        self.members = [Progress(f"reader-{number}") for number in range(3)]
        self.crew = Crew(self.members)
        self.turn = [threading.Event() for _ in self.members]
        self.ended: list[int] = []
        self.threads = [threading.Thread(target=self._wait, args=(number,)) for number in (1, 2)]
        for thread in self.threads:
            thread.start()

    def _wait(self, number: int) -> None:
        if self.crew.wait(number):
            self.turn[number].set()
        else:
            self.ended.append(number)

    def close(self) -> None:
        self.crew.end()
        for thread in self.threads:
            thread.join(PATIENCE)


@pytest.fixture
def readers():
    readers = Readers()
    yield readers
    readers.close()


def test_one_reads_while_requests_are_short(readers):
    for _ in range(200):
        readers.crew.begins()
        readers.members[0].turn += 2
        readers.crew.served(0, 100)
    assert readers.crew.reading == 1
    assert readers.crew.wait(0)


def test_all_read_while_much_is_moved_and_one_when_it_is_over(readers):
    for _ in range(4):
        readers.crew.served(0, LARGE)
    assert readers.turn[1].wait(PATIENCE)
    assert readers.turn[2].wait(PATIENCE)
    assert readers.crew.reading == 3
    for _ in range(32):
        readers.crew.served(0, 100)
    assert readers.crew.reading == 3
    readers.crew.served(0, 100)
    assert readers.crew.reading == 1


def test_a_large_file_among_small_ones_calls_nobody(readers):
    for _ in range(50):
        readers.crew.served(0, LARGE)
        for _ in range(10):
            readers.crew.served(0, 100)
    assert readers.crew.reading == 1


def test_another_joins_when_all_that_read_are_held_up(readers):
    readers.members[0].turn += 1  # in a handler, and stays there
    readers.crew.begins()
    assert readers.turn[1].wait(PATIENCE)
    assert not readers.turn[2].is_set()
    readers.crew.served(1, 100)
    assert readers.crew.reading == 2  # for as long as the first one is held up
    readers.members[1].turn += 1
    readers.crew.begins()
    assert readers.turn[2].wait(PATIENCE)


def test_whoever_waits_joins_when_the_others_were_told_to_wait_and_are_held_up(readers):
    for _ in range(4):
        readers.crew.served(0, LARGE)
    assert readers.turn[1].wait(PATIENCE)
    assert readers.turn[2].wait(PATIENCE)
    for _ in range(33):
        readers.crew.served(0, 100)
    assert readers.crew.reading == 1
    # Reader 1 is still in read(2) and gets a request, on which it is held up like reader 0; reader 2 waits.
    third = threading.Event()

    def wait() -> None:
        if readers.crew.wait(2):
            third.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    for number in (0, 1):
        readers.members[number].turn += 1
        readers.crew.begins()
    assert third.wait(PATIENCE)
    waiting.join(PATIENCE)


def test_another_joins_when_requests_are_short_but_never_stop(readers):
    going = threading.Event()

    def busy() -> None:
        readers.members[0].turn += 1
        while not going.wait(0.002):
            readers.crew.begins()
            readers.members[0].turn += 2  # the next one at once

    thread = threading.Thread(target=busy)
    thread.start()
    assert readers.turn[1].wait(PATIENCE)
    going.set()
    thread.join(PATIENCE)


def test_nobody_joins_while_nothing_comes(readers):
    readers.members[0].turn += 2
    readers.crew.begins()
    # The one that looks after the others goes to sleep: it does not wake up all the time for nothing.
    eventually(lambda: not readers.crew.watched)
    assert readers.crew.reading == 1


def test_who_waits_ends_with_the_connection(readers):
    readers.crew.end()
    for thread in readers.threads:
        thread.join(PATIENCE)
    assert sorted(readers.ended) == [1, 2]
