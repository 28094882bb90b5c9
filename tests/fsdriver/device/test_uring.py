import os
from pathlib import Path

import pytest

from fsdriver.device import uring


@pytest.mark.parametrize(("text", "cpus"), [("0\n", [0]), ("0-3\n", [0, 1, 2, 3]), ("0-1,4,6-7", [0, 1, 4, 6, 7])])
def test_the_kernels_cpu_lists_are_read(text, cpus):
    assert uring._cpu_list(text) == cpus


def test_every_possible_cpus_queue_is_served_once():
    queues = uring.queues_by_cpu()
    served = sorted(queue for each in queues.values() for queue in each)
    assert served == uring._cpu_list(Path("/sys/devices/system/cpu/possible").read_text())
    assert set(queues) <= os.sched_getaffinity(0)
    assert all(each[0] == cpu for cpu, each in queues.items())


def test_queues_of_unusable_cpus_are_shared_out(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda self: "0-6")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 4})
    assert uring.queues_by_cpu() == {1: [1, 0, 3, 6], 4: [4, 2, 5]}
