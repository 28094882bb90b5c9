"""A listed program run with another user's rights, or under a debugger."""

import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fsdriver.identity import Callers
from tests.fsdriver.identity.processes import FOREVER, PYTHON, ask, is_listed, naive, running, say
from tests.patience import PATIENCE

NOBODY = 65534
PTRACE_DETACH, PTRACE_SEIZE = 17, 0x4206
pytestmark = pytest.mark.root


@pytest.mark.parametrize("users", [(NOBODY, 0, 0), (0, NOBODY, NOBODY), (0, 0, NOBODY), (0, NOBODY, 0)])
def test_a_process_whose_users_differ(callers: Callers, users: tuple[int, int, int]):
    process = subprocess.Popen(
        [PYTHON, "-c", f"import os\nos.setresuid{users}\nprint(flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert naive(process.pid, PYTHON)
        caller = ask(callers, process.pid, users[1])  # what the kernel puts into a request
        assert not is_listed(caller)
        assert caller.why_unlisted == "its real, effective, saved and filesystem user differ"
    finally:
        process.kill()
        process.communicate()


def test_a_process_that_changed_its_user_altogether(callers: Callers):
    code = f"import os\ninput()\nos.setresuid({NOBODY}, {NOBODY}, {NOBODY})\ninput()"
    with running([PYTHON, "-c", code]) as process:
        assert is_listed(ask(callers, process.pid))
        say(process, "change")
        assert callers.known(process.pid, NOBODY) is None
        caller = ask(callers, process.pid, NOBODY)
        assert is_listed(caller)
        assert caller.uid == NOBODY


def test_one_thread_with_another_filesystem_user(callers: Callers):
    code = (
        "import ctypes, sys, threading\n"
        f"def other():\n ctypes.CDLL(None).syscall(122, {NOBODY})\n sys.stdin.readline()\n"  # setfsuid(2)
        "threading.Thread(target=other).start()"
    )
    with running([PYTHON, "-c", code]) as process:
        (tid,) = (int(name) for name in os.listdir(f"/proc/{process.pid}/task") if int(name) != process.pid)
        assert is_listed(ask(callers, process.pid))
        assert callers.known(tid, 0) is None
        assert not is_listed(ask(callers, tid, NOBODY))
        assert is_listed(ask(callers, process.pid))


def traced(pid: int, question: Callable[[], None]) -> None:
    """Ask while a thread of ours is the tracer of the process."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]

    def seize() -> None:
        assert libc.ptrace(PTRACE_SEIZE, pid, None, None) == 0
        attached.set()
        done.wait()

    attached, done = threading.Event(), threading.Event()
    tracer = threading.Thread(target=seize)
    tracer.start()
    try:
        assert attached.wait(PATIENCE)
        time.sleep(0.01)
        question()
    finally:
        done.set()
        tracer.join()
        while "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text():
            time.sleep(0.01)  # the kernel detaches it when the thread has ended, a moment after join()
        time.sleep(0.01)  # one look at a thread's tracer holds for some milliseconds


def test_a_tracer_attached_before_the_process_is_identified(callers: Callers):
    def question() -> None:
        assert naive(process.pid)
        caller = ask(callers, process.pid)
        assert not is_listed(caller)
        assert caller.why_unlisted.endswith("is tracing it")

    with running(FOREVER) as process:
        traced(process.pid, question)
        assert is_listed(ask(callers, process.pid))


def test_a_tracer_attached_after_the_process_was_identified(callers: Callers):
    def question() -> None:
        time.sleep(0.01)  # one look at the tracer holds for five milliseconds
        assert callers.known(process.pid, 0, thorough=True) is None
        assert not is_listed(ask(callers, process.pid))

    with running(FOREVER) as process:
        assert is_listed(ask(callers, process.pid))
        traced(process.pid, question)
        assert is_listed(ask(callers, process.pid))


def test_a_debugger_on_an_unlisted_program_changes_nothing(callers: Callers):
    with running(["/usr/bin/sleep", "100"]) as process:
        traced(process.pid, lambda: None)
        assert not is_listed(ask(callers, process.pid))
