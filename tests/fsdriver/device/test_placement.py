import os

import pytest

from fsdriver.device.placement import LARGE, FollowedCallers, Placement, cpu_of


@pytest.fixture
def moves(monkeypatch):
    moves: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: moves.append(set(cpus)))
    return moves


def test_a_server_moves_to_callers_that_stay_elsewhere(moves):
    placement = Placement(first=True)
    for _ in range(20):
        placement.served(2, 100)
    for _ in range(3):
        placement.served(1, 100)
    assert moves == [{2}]
    placement.served(1, 100)
    assert moves == [{2}, {1}]


def test_callers_on_two_cpus_do_not_drag_a_server_about(moves):
    placement = Placement(first=True)
    for _ in range(10):
        placement.served(0, 100)
    for _ in range(20):
        placement.served(1, 100)
        placement.served(0, 100)
    assert moves == [{0}]


@pytest.mark.parametrize(("first", "expected"), [(True, [{1}]), (False, [{1}, {0, 1, 2}])])
def test_under_large_reads_only_the_first_server_stays(moves, first, expected):
    placement = Placement(first)
    for size in (100, LARGE):
        for _ in range(10):
            placement.served(1, size)
    assert moves == expected


def test_a_cpu_that_may_not_be_used_is_served_from_elsewhere(monkeypatch):
    def refuse(pid, cpus):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    placement = Placement(first=True)
    for _ in range(10):
        placement.served(5, 100)


def test_a_reader_follows_its_callers_and_looks_at_them_seldom_while_they_stay(moves):
    looks: list[int] = []
    where = [1]

    def cpu(thread: int) -> int:
        looks.append(thread)
        return where[0]

    followed = FollowedCallers(cpu)
    for _ in range(1000):
        followed.served(77, 100)
    assert moves == [{1}]
    assert set(looks) == {77}
    assert len(looks) < 50
    where[0] = 2
    for _ in range(100):
        followed.served(77, 100)
    assert moves == [{1}, {2}]


def test_who_cannot_be_followed_is_served_all_the_same(moves):
    followed = FollowedCallers(lambda thread: -1)
    for caller in (0, 5) * 100:
        followed.served(caller, 100)
    assert moves == []


def test_the_cpu_of_a_thread_is_the_kernels_word():
    allowed = os.sched_getaffinity(0)
    try:
        for cpu in sorted(allowed):
            os.sched_setaffinity(0, {cpu})
            assert cpu_of(os.getpid()) == cpu
    finally:
        os.sched_setaffinity(0, allowed)
    assert cpu_of(2**22 + 1) == -1
