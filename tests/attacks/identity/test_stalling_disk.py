"""A user's own disk that stops answering must not make the drive wait for it."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.identity import Callers
from fsdriver.identity.procfs import Process
from tests.attacks.identity.stalling_disk import StallingDisk
from tests.fsdriver.identity.processes import PYTHON, TAIL, ask, is_listed, running, say
from tests.patience import PATIENCE, eventually

pytestmark = [pytest.mark.root, pytest.mark.mounted]


@pytest.fixture
def mount_point(place: Path) -> Path:
    folder = place / "disk"
    folder.mkdir()
    return folder


@pytest.fixture
def disk(mount_point: Path) -> Iterator[StallingDisk]:
    made = StallingDisk(mount_point, "tail", Path(TAIL).read_bytes())
    yield made
    made.close()


def tail_on(mount_point: Path) -> list[str]:
    # By way of a shell: a fork that waits for exec would keep our own thread from answering for the disk.
    return ["/bin/sh", "-c", f"exec {mount_point}/tail -f /dev/null"]


def test_a_program_on_it_is_never_asked_for(callers: Callers, mount_point: Path, disk: StallingDisk):
    with running(tail_on(mount_point)) as process:
        disk.stall()
        began = time.monotonic()
        assert not is_listed(ask(callers, process.pid))
        assert callers.known(process.pid, 0, thorough=True)
        assert time.monotonic() - began < PATIENCE
        assert disk.asked_while_stalled == []


def test_the_inode_of_a_program_on_it(mount_point: Path, disk: StallingDisk):
    """What is done for a program whose path, forged or not, is a listed one."""
    with running(tail_on(mount_point)) as process:
        disk.stall()
        exe = Process(process.pid, process.pid).exe(process.pid)
        assert (exe.inode, exe.size) == (2, os.stat(TAIL).st_size)
        assert disk.asked_while_stalled == []


def test_code_mapped_from_it(callers: Callers, mount_point: Path, disk: StallingDisk):
    code = (
        "import mmap, sys\nfile = open(sys.argv[1], 'rb')\n"
        "kept = mmap.mmap(file.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)\ninput()"
    )
    with running([PYTHON, "-c", code, str(mount_point / "tail")]) as process:
        disk.stall()
        caller = ask(callers, process.pid)
        assert caller.why_unlisted == f"it runs code from {mount_point}/tail, which belongs to no package"
        assert disk.asked_while_stalled == []


FAULT = """
import mmap, sys, threading, time
file = open(sys.argv[1], "rb")
page = mmap.mmap(file.fileno(), 4096, mmap.MAP_SHARED, mmap.PROT_READ)
input()
threading.Thread(target=lambda: page[0]).start()
time.sleep(0.2)
threading.Thread(target=lambda: mmap.mmap(-1, 4096)).start()
"""


def test_a_page_fault_that_waits_with_the_memory_map_locked(callers: Callers, mount_point: Path, disk: StallingDisk):
    """The fault's second READ waits under the lock, another thread wants to write, and who reads waits for that."""
    with running([PYTHON, "-c", FAULT, str(mount_point / "tail")]) as process:
        disk.stall_at_second_read()
        say(process, "now")
        eventually(lambda: disk.asked_while_stalled)
        time.sleep(0.5)  # until the second thread waits, too
        began = time.monotonic()
        caller = ask(callers, process.pid)
        assert time.monotonic() - began < PATIENCE
        assert is_listed(caller) or caller.why_unlisted.startswith("its memory map cannot be read")
        assert callers.known(process.pid, 0) is caller
        disk.close()
