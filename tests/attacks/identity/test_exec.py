"""What an exec, a fork or a reused pid could inherit from a process that was identified."""

import ctypes
import os
import shutil
import signal
import struct
import time
from pathlib import Path

import pytest

from fsdriver.identity import Callers
from tests.fsdriver.identity.processes import (
    FOREVER,
    PYTHON,
    SHELL,
    TAIL,
    ask,
    is_listed,
    naive,
    only_child,
    running,
    say,
    settle,
)

pytestmark = pytest.mark.root


def start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def test_exec_of_another_program_keeps_the_pid(callers: Callers):
    with running([SHELL, "-c", "read x; exec sleep 100"]) as process:
        born = start_time(process.pid)
        assert is_listed(ask(callers, process.pid))
        say(process, "now")
        assert start_time(process.pid) == born
        assert callers.known(process.pid, 0) is None
        assert not is_listed(ask(callers, process.pid))


def test_exec_of_a_listed_program_by_an_unlisted_one(callers: Callers):
    with running(["/usr/bin/bash", "-c", f"read x; exec {TAIL} -f /dev/null"]) as process:
        assert not is_listed(ask(callers, process.pid))
        say(process, "now")
        assert is_listed(ask(callers, process.pid))


def test_exec_of_the_same_program_with_a_preloaded_library(callers: Callers, place: Path):
    evil = shutil.copy("/usr/lib/x86_64-linux-gnu/libm.so.6", place / "evil.so")
    script = f"read x; LD_PRELOAD={evil} exec {SHELL} -c 'read y'"
    with running(["setarch", "-R", SHELL, "-c", script]) as process:
        assert is_listed(ask(callers, process.pid))
        say(process, "now")
        assert naive(process.pid, SHELL)
        assert callers.known(process.pid, 0) is None
        caller = ask(callers, process.pid)
        assert not is_listed(caller)
        assert caller.why_unlisted == f"it runs code from {evil}, which belongs to no package"


def test_exec_of_the_same_program_is_identified_again(callers: Callers):
    with running([SHELL, "-c", f"read x; exec {SHELL} -c 'read y'"]) as process:
        first = ask(callers, process.pid)
        say(process, "now")
        second = ask(callers, process.pid)
        assert second is not first
        assert is_listed(second)


def test_a_child_that_execs(callers: Callers):
    with running([SHELL, "-c", "sleep 100 & read x"]) as process:
        assert is_listed(ask(callers, process.pid))
        child = only_child(process.pid)
        assert not is_listed(ask(callers, child))


SPAWN = """
import os, sys
fifo, evil = sys.argv[1:]
environ = {**os.environ, "LD_PRELOAD": evil} if evil else os.environ
open_first = [(os.POSIX_SPAWN_OPEN, 0, fifo, os.O_RDONLY, 0)]
print(os.posix_spawn(sys.executable, [sys.executable, "-c", "input(); input()"], environ, file_actions=open_first))
sys.stdin.read()
"""


@pytest.mark.parametrize("preload", [True, False])
def test_a_vfork_child_that_is_identified_before_it_execs_the_same_program(
    callers: Callers, place: Path, preload: bool
):
    """posix_spawn's child shares its parent's memory, which its exec leaves in use."""
    evil = shutil.copy("/usr/lib/x86_64-linux-gnu/libm.so.6", place / "evil.so")
    fifo = place / "fifo"
    os.mkfifo(fifo)
    with running([PYTHON, "-c", SPAWN, str(fifo), str(evil) if preload else ""]) as process:
        child = only_child(process.pid)
        assert is_listed(ask(callers, process.pid))
        assert is_listed(ask(callers, child))
        with open(fifo, "w"):
            time.sleep(0.2)
            settle(child)
            assert naive(child, PYTHON)
            assert callers.known(child, 0) is None
            assert is_listed(ask(callers, child)) != preload


def test_a_pid_used_again(callers: Callers):
    with running(FOREVER) as process:
        pid = process.pid
        assert is_listed(ask(callers, pid))
    evil = _fork_as(pid)
    try:
        settle(pid)
        assert callers.known(pid, 0) is None
        assert not is_listed(ask(callers, pid))
    finally:
        os.kill(evil, signal.SIGKILL)
        os.waitpid(evil, 0)


def test_the_pid_of_a_process_used_again_while_a_vfork_child_keeps_its_memory(callers: Callers, place: Path):
    fifo = place / "fifo"
    os.mkfifo(fifo)
    with running([PYTHON, "-c", SPAWN, str(fifo), ""]) as process:
        child = only_child(process.pid)
        assert is_listed(ask(callers, process.pid))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        try:
            evil = _fork_as(process.pid)
            settle(evil)
            assert callers.known(evil, 0) is None
            assert not is_listed(ask(callers, evil))
        finally:
            os.kill(child, signal.SIGKILL)
            os.kill(evil, signal.SIGKILL)
            os.waitpid(evil, 0)


def test_the_pid_of_a_thread_used_again(callers: Callers):
    code = (
        "import threading, sys, time\nt = threading.Thread(target=sys.stdin.readline)\nt.start()\nt.join()\n"
        "time.sleep(100)"
    )
    with running([PYTHON, "-c", code]) as process:
        tid = next(int(name) for name in os.listdir(f"/proc/{process.pid}/task") if int(name) != process.pid)
        assert is_listed(ask(callers, tid))
        say(process, "end")
        assert not Path(f"/proc/{tid}").exists()
        evil = _fork_as(tid)
        try:
            settle(tid)
            assert callers.known(process.pid, 0) is None or callers.known(tid, 0) is None
            assert callers.known(tid, 0) is None
            assert not is_listed(ask(callers, tid))
        finally:
            os.kill(evil, signal.SIGKILL)
            os.waitpid(evil, 0)


def _fork_as(pid: int) -> int:
    """A child with this pid (clone3 with set_tid) that runs sleep."""
    wanted = ctypes.c_int(pid)
    # struct clone_args: flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size cgroup
    args = ctypes.create_string_buffer(
        struct.pack("=11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1, 0)
    )
    child = ctypes.CDLL(None, use_errno=True).syscall(435, args, 88)
    if child == 0:
        os.execv("/usr/bin/sleep", ["sleep", "100"])
    if child < 0:
        raise OSError(ctypes.get_errno(), "clone3")
    return int(child)
