import os

import pytest

from fsdriver.device import uring


@pytest.mark.parametrize(("text", "cpus"), [("0\n", [0]), ("0-3\n", [0, 1, 2, 3]), ("0-1,4,6-7", [0, 1, 4, 6, 7])])
def test_the_kernels_cpu_lists_are_read(text, cpus):
    assert uring._cpu_list(text) == cpus


def test_there_is_a_queue_for_every_cpu_we_run_on():
    assert set(os.sched_getaffinity(0)) <= set(uring.possible_cpus())
