import gc
import os
import subprocess
import threading

import pytest

from fsdriver.identity import procfs
from fsdriver.identity.procfs import Process
from tests.fsdriver.identity.processes import FOREVER, SHELL, TAIL, running, say


def test_statx_layout_agrees_with_stat():
    with running(FOREVER) as child:
        found = os.stat(TAIL)
        exe = Process(child.pid, child.pid).exe(child.pid)
    assert exe == (found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size)


def test_memory_is_the_same_until_exec():
    with running([SHELL, "-c", "read x; exec sleep 100"]) as child:
        process = Process(child.pid, child.pid)
        assert process.same_memory()
        say(child, "now")
        assert not process.same_memory()
        assert Process(child.pid, child.pid).same_memory()


def test_a_process_that_ended_stays_ended():
    with running(FOREVER) as child:
        process = Process(child.pid, child.pid)
        assert process.exe_link(child.pid) == TAIL.encode()
    assert not process.same_memory()
    for ask in (process.exe_link, process.status, process.exe, process.namespaces):
        with pytest.raises(OSError, match="No such"):
            ask(child.pid)


def test_a_child_that_has_not_called_exec_is_told_from_one_that_has():
    with running(FOREVER) as child:
        assert not Process(child.pid, child.pid).stat().forked
    pid = os.fork()
    if not pid:
        threading.Event().wait()
    assert Process(pid, pid).stat().forked
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def test_a_thread_of_another_process_is_none_of_ours():
    with running(FOREVER) as one, running(FOREVER) as two:
        process = Process(one.pid, one.pid)
        assert process.status(one.pid).pid == one.pid
        with pytest.raises(OSError, match="No such"):
            process.status(two.pid)


def test_status_of_a_process_with_a_strange_name():
    code = "import ctypes\nctypes.CDLL(None).prctl(15, b'x\\nTgid:\\t1\\nUid:')\ninput()"
    with running(["/usr/bin/python3", "-c", code]) as child:
        status = Process(child.pid, child.pid).status(child.pid)
        assert (status.pid, status.ppid, status.tracer) == (child.pid, os.getpid(), 0)
        assert status.uids == (os.getuid(),) * 4
        assert status.code_kb > 1000
        assert procfs.process_of(child.pid) == child.pid


def test_arguments_with_blanks_and_none():
    with running([SHELL, "-c", "read x", "", "a b"]) as child:
        assert Process(child.pid, child.pid).arguments(child.pid) == [SHELL, "-c", "read x", "", "a b"]


def test_descriptors_close_with_the_last_reference():
    child = subprocess.Popen(["/usr/bin/sleep", "100"])
    gc.collect()  # nothing that earlier tests left is closed meanwhile
    before = len(os.listdir("/proc/self/fd"))
    process = Process(child.pid, child.pid)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del process
    assert len(os.listdir("/proc/self/fd")) == before
    child.kill()
    child.wait()
