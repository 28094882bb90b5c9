"""/proc/PID/exe made to name a listed program: from another user or mount namespace, or by a detached mount."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from fsdriver.identity import Callers, Dpkg
from policy import ProgramEntry
from tests.fsdriver.identity.processes import FOREVER, PYTHON, TAIL, ask, is_listed, naive, running

NOBODY = 65534
pytestmark = [pytest.mark.root, pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64 machine code")]


def test_exe_forged_inside_a_user_namespace(callers: Callers, programs: Path):
    with running([PYTHON, "-I", programs / "forge_exe.py", TAIL, "namespace"], user=NOBODY) as process:
        assert naive(process.pid)
        caller = ask(callers, process.pid, NOBODY)
        assert not is_listed(caller)
        assert caller.why_unlisted == "it runs in another user, pid or mount namespace than the drive"


def test_the_same_user_runs_the_program_itself(callers: Callers):
    with running(FOREVER, user=NOBODY) as process:
        assert naive(process.pid)
        assert is_listed(ask(callers, process.pid, NOBODY))


def test_exe_forged_through_a_child_that_shares_the_memory(callers: Callers, programs: Path):
    with running([PYTHON, "-I", programs / "forge_exe.py", TAIL, "shared"], user=NOBODY) as process:
        assert naive(process.pid)
        assert os.readlink(f"/proc/{process.pid}/ns/user") == os.readlink("/proc/self/ns/user")
        program = ask(callers, process.pid, NOBODY).program
        assert program is not None
        # Its code needs anonymous pages, which only the entries of just-in-time compilers allow.
        assert not ProgramEntry(TAIL, ("coreutils",)).matches(program)


@pytest.mark.xfail(strict=True, reason="/proc cannot tell it from an exec: execs have to be recorded as they happen")
def test_exe_of_a_jit_program_forged_through_a_child_that_shares_the_memory(callers: Callers, programs: Path):
    with running([PYTHON, "-I", programs / "forge_exe.py", TAIL, "shared"], user=NOBODY) as process:
        assert naive(process.pid)
        program = ask(callers, process.pid, NOBODY).program
        assert program is not None
        assert not ProgramEntry(TAIL, ("coreutils",), jit=True).matches(program)


def test_a_file_bound_over_the_program_in_another_mount_namespace(callers: Callers):
    script = f"mount --bind /usr/bin/sleep {TAIL} && exec {TAIL} 100"
    with running(["unshare", "-m", "sh", "-c", script]) as process:
        assert naive(process.pid)
        assert not is_listed(ask(callers, process.pid))
        dismiss = callers.admit(process.pid)
        assert ask(callers, process.pid).why_unlisted == "its program file was replaced since it started"
        dismiss()


def test_a_program_that_the_daemon_started_in_another_mount_namespace(callers: Callers):
    with running(["unshare", "-m", *FOREVER]) as process:
        assert naive(process.pid)
        assert not is_listed(ask(callers, process.pid))
        dismiss = callers.admit(process.pid)
        assert callers.known(process.pid, 0) is None
        assert is_listed(ask(callers, process.pid))
        assert callers.known(process.pid, 0)
        dismiss()
        dismiss()
        assert callers.known(process.pid, 0) is None
        assert not is_listed(ask(callers, process.pid))


def test_a_detached_mount_gives_its_files_any_path(callers: Callers, place: Path):
    subprocess.run(["mount", "-t", "tmpfs", "attack", place], check=True)
    try:
        (place / "usr/bin").mkdir(parents=True)
        shutil.copy("/usr/bin/sleep", place / TAIL[1:])
        subject = running([place / TAIL[1:], "100"])
        process = subject.__enter__()
    finally:
        subprocess.run(["umount", "-l", place], check=True)
    try:
        assert naive(process.pid)
        caller = ask(callers, process.pid)
        assert not is_listed(caller)
        assert caller.why_unlisted == "its program file was replaced since it started"
    finally:
        subject.__exit__(None, None, None)


def test_a_copy_under_another_name_or_a_hard_link(dpkg: Dpkg, place: Path):
    tool, copy, link = place / "tool", place / "copy/tool", place / "link/tool"
    for path in (copy, link):
        path.parent.mkdir()
    shutil.copy(TAIL, tool)
    shutil.copy(TAIL, copy)
    link.hardlink_to(tool)
    callers = Callers(packages=dpkg)
    digest = subprocess.run(["sha256sum", TAIL], capture_output=True, text=True, check=True).stdout[:64]
    callers.set_programs([ProgramEntry(str(tool), sha256=(digest,))])
    for path in (copy, link):
        with running([path, "-f", "/dev/null"]) as process:
            assert os.path.basename(os.readlink(f"/proc/{process.pid}/exe")) == tool.name
            assert not is_listed(ask(callers, process.pid))
    with running([tool, "-f", "/dev/null"]) as process:
        assert is_listed(ask(callers, process.pid))
    callers.close()


def test_a_link_to_the_program_runs_the_program(callers: Callers, place: Path):
    (place / "link").symlink_to(TAIL)
    with running([place / "link", "-f", "/dev/null"]) as process:
        assert is_listed(ask(callers, process.pid))
