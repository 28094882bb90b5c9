import os
import subprocess
import threading
from pathlib import Path

import pytest

from fsdriver.errors import CallerRefused
from fsdriver.identity import Callers, Dpkg
from policy import ProgramEntry
from tests.fsdriver.identity.processes import (
    FOREVER,
    LISTED,
    PYTHON,
    SHELL,
    TAIL,
    ask,
    children,
    is_listed,
    running,
    say,
)

pytestmark = pytest.mark.root


def test_a_listed_program_is_named_with_its_package_and_digest(callers: Callers):
    with running(FOREVER) as process:
        caller = callers.identify(process.pid, 0)
    assert is_listed(caller)
    assert caller.program is not None
    assert (caller.program.path, caller.program.packages, caller.program.jit) == (TAIL, frozenset({"coreutils"}), False)
    assert (caller.pid, caller.tid, caller.uid, caller.gid) == (process.pid, process.pid, 0, 0)
    assert (caller.ppid, caller.parent) == (os.getpid(), os.readlink("/proc/self/exe"))
    assert len(caller.sha256) == 64
    assert not caller.argv_only


def test_a_program_that_policy_does_not_list_has_no_program(unhurried: Callers):
    with running(["/usr/bin/sleep", "100"]) as process:
        caller = unhurried.identify(process.pid, 0)
        assert unhurried.known(process.pid, 0, thorough=True) is caller
    assert (caller.program, caller.why_unlisted) == (None, "policy lists no such program")
    assert caller.path == "/usr/bin/sleep"


def test_an_identified_process_is_known_until_it_ends(unhurried: Callers):
    with running(FOREVER) as process:
        assert unhurried.known(process.pid, 0) is None
        caller = unhurried.identify(process.pid, 0)
        assert unhurried.known(process.pid, 0) is caller
        assert unhurried.known(process.pid, 0, thorough=True) is caller
        assert unhurried.known(process.pid, 1) is None
    assert unhurried.known(process.pid, 0) is None
    with pytest.raises(CallerRefused):
        unhurried.identify(process.pid, 0)


def test_pid_zero_and_kernel_threads_are_refused(callers: Callers):
    flags = {pid: int(_stat(pid)[6]) for pid in range(2, 100) if Path(f"/proc/{pid}").exists()}
    kernel = next(pid for pid in flags if flags[pid] & 0x200000)  # PF_KTHREAD
    for tid in (0, kernel):
        assert callers.known(tid, 0) is None
        with pytest.raises(CallerRefused):
            callers.identify(tid, 0)


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def test_the_daemon_itself_is_unlisted(dpkg: Dpkg):
    callers = Callers(packages=dpkg)
    exe = os.readlink("/proc/self/exe")
    callers.set_programs([ProgramEntry(exe, sha256=(_sha256(exe),))])
    assert callers.identify(threading.get_native_id(), 0).why_unlisted == "it is the drive's own daemon"
    callers.close()


def _sha256(path: str) -> str:
    return subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout[:64]


def test_a_listed_digest_is_enough_for_a_program_without_package(tmp_path: Path, dpkg: Dpkg):
    tool = tmp_path / "tool"
    tool.write_bytes(Path(TAIL).read_bytes() + b"ours")
    tool.chmod(0o755)
    callers = Callers(packages=dpkg)
    callers.set_programs([ProgramEntry(str(tool), sha256=("0" * 64, _sha256(str(tool))))])
    with running([tool, "-f", "/dev/null"]) as process:
        caller = callers.identify(process.pid, 0)
    assert is_listed(caller)
    assert caller.program is not None
    assert (caller.program.packages, caller.program.sha256) == (frozenset(), _sha256(str(tool)))
    callers.close()


def test_a_program_whose_digest_is_not_the_listed_one_is_unlisted(tmp_path: Path, dpkg: Dpkg):
    tool = tmp_path / "tool"
    tool.write_bytes(Path(TAIL).read_bytes() + b"ours")
    tool.chmod(0o755)
    callers = Callers(packages=dpkg)
    callers.set_programs([ProgramEntry(str(tool), sha256=("0" * 64,))])
    with running([tool, "-f", "/dev/null"]) as process:
        caller = callers.identify(process.pid, 0)
    assert not is_listed(caller)
    assert caller.why_unlisted == "its program file is neither a listed one nor as its package installed it"
    assert caller.sha256 == _sha256(str(tool))
    callers.close()


def test_an_entry_takes_effect_when_its_file_is_installed(tmp_path: Path, dpkg: Dpkg):
    tool = tmp_path / "tool"
    content = Path(TAIL).read_bytes() + b"ours"
    (tmp_path / "same").write_bytes(content)
    callers = Callers(packages=dpkg)
    callers.set_programs([ProgramEntry(str(tool), sha256=(_sha256(str(tmp_path / "same")),))])
    tool.write_bytes(content)
    tool.chmod(0o755)
    with running([tool, "-f", "/dev/null"]) as process:
        assert is_listed(callers.identify(process.pid, 0))
    callers.close()


def test_a_listed_link_is_followed_again_after_a_while(tmp_path: Path, dpkg: Dpkg):
    now = [0.0]
    link = tmp_path / "link"
    link.symlink_to(SHELL)
    callers = Callers(packages=dpkg, now=lambda: now[0])
    callers.set_programs([ProgramEntry(str(link), ("coreutils", "dash"))])
    with running(FOREVER) as process:
        assert not is_listed(ask(callers, process.pid))
        link.unlink()
        link.symlink_to(TAIL)
        now[0] = 11.0
        with running(FOREVER) as other:
            caller = ask(callers, other.pid)
            assert is_listed(caller)
            assert caller.program is not None
            assert caller.program.path == str(link)
            assert is_listed(ask(callers, process.pid))
    callers.close()


def test_libraries_of_listed_packages_can_be_hashed_beforehand(dpkg: Dpkg, monkeypatch: pytest.MonkeyPatch):
    callers = Callers(packages=dpkg)
    callers.set_programs([ProgramEntry("/usr/bin/getent", ("libc-bin", "libc6", "none"))])
    callers.warm()
    libc = os.path.realpath("/usr/lib/x86_64-linux-gnu/libc.so.6")
    facts = callers._files.facts(libc)
    assert callers._files.facts(libc) is facts
    callers.close()


def test_a_new_policy_applies_to_processes_already_known(callers: Callers):
    with running(FOREVER) as process:
        assert is_listed(ask(callers, process.pid))
        callers.set_programs([])
        assert callers.known(process.pid, 0) is None
        assert not is_listed(ask(callers, process.pid))
        callers.set_programs(LISTED)
        assert is_listed(ask(callers, process.pid))


def test_threads_share_the_verdict_of_their_process(unhurried: Callers):
    code = "import threading, sys\n[threading.Thread(target=sys.stdin.readline).start() for _ in range(3)]"
    with running([PYTHON, "-c", code]) as process:
        tids = [int(name) for name in os.listdir(f"/proc/{process.pid}/task")]
        assert len(tids) == 4
        found = [ask(unhurried, tid) for tid in tids]
        assert all(is_listed(caller) and caller.pid == process.pid for caller in found)
        assert [unhurried.known(tid, 0) for tid in tids] == found
        assert len({id(caller.program) for caller in found}) == 1


def test_a_process_whose_first_thread_ended_is_still_identified(unhurried: Callers):
    code = (
        "import threading, sys, ctypes\nthreading.Thread(target=sys.stdin.readline).start()\n"
        "ctypes.CDLL(None).syscall(60, 0)"  # exit(2) of one thread
    )
    with running([PYTHON, "-c", code]) as process:
        tid = next(int(name) for name in os.listdir(f"/proc/{process.pid}/task") if int(name) != process.pid)
        caller = ask(unhurried, tid)
        assert is_listed(caller)
        assert unhurried.known(tid, 0, thorough=True) is caller


def test_a_forked_child_is_identified_by_itself(unhurried: Callers):
    with running([SHELL, "-c", "exec 3<&0; (read x <&3) & read y"]) as process:
        parent = ask(unhurried, process.pid)
        child = ask(unhurried, *children(process.pid))
        assert is_listed(parent)
        assert is_listed(child)
        assert child.ppid == process.pid
        assert unhurried.known(child.tid, 0, thorough=True) is child


def test_code_loaded_later_is_looked_at_again(callers: Callers):
    code = "import sys\nfor line in sys.stdin: __import__(line.strip())"
    with running([PYTHON, "-c", code]) as process:
        first = ask(callers, process.pid)
        say(process, "_sqlite3")
        assert callers.known(process.pid, 0, thorough=True) is None
        assert is_listed(ask(callers, process.pid))
        assert is_listed(first)


def test_one_look_at_the_mappings_is_good_for_a_second(dpkg: Dpkg):
    now = [0.0]
    callers = Callers(packages=dpkg, now=lambda: now[0])
    callers.set_programs(LISTED)
    with running(FOREVER) as process:
        callers.identify(process.pid, 0)
        now[0] = 0.9
        assert callers.known(process.pid, 0, thorough=True)
        now[0] = 1.1
        assert callers.known(process.pid, 0)
        assert callers.known(process.pid, 0, thorough=True) is None
        callers.identify(process.pid, 0)
        assert callers.known(process.pid, 0, thorough=True)
    callers.close()


def test_descriptors_are_bounded_and_closed(dpkg: Dpkg, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fsdriver.identity.callers._PROCESSES", 2)
    callers = Callers(packages=dpkg)
    callers.set_programs(LISTED)
    callers.identify(os.getppid(), 0)
    before = len(os.listdir("/proc/self/fd"))
    with running(FOREVER) as one, running(FOREVER) as two, running(FOREVER) as three:
        pipes = len(os.listdir("/proc/self/fd")) - before
        for process in (one, two, three):
            ask(callers, process.pid)
        assert sum(callers.known(process.pid, 0) is not None for process in (one, two, three)) == 2
        assert len(os.listdir("/proc/self/fd")) - before - pipes <= 2 * 2
    callers.close()


def test_the_dead_are_swept_out(dpkg: Dpkg):
    now = [0.0]
    callers = Callers(packages=dpkg, now=lambda: now[0])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with running(FOREVER) as process:
            callers.identify(process.pid, 0)
    now[0] = 6.0
    with running(FOREVER) as process:
        callers.identify(process.pid, 0)
    assert len(os.listdir("/proc/self/fd")) - before <= 4
    callers.close()


def test_what_the_kernel_hides_is_unlisted(callers: Callers):
    try:
        os.readlink("/proc/1/exe")
    except PermissionError:
        caller = callers.identify(1, 0)
        assert (caller.program, caller.why_unlisted) == (None, "the kernel hides it from the drive")
    else:
        pytest.skip("this machine shows process 1 to root")
