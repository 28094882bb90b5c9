"""When the daemon's threads step back for their callers, and when they may not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fsdriver.device.yielding import Yielding, _idle_seconds, _may_return, _weighed_alone


class Machine:
    """A clock, the idle time of its CPUs, and what class the threads have."""

    def __init__(self, possible: bool = True) -> None:
        self.now = 100.0
        self.idle = 5000.0
        self.policies: list[int] = []
        self.error: OSError | None = None
        self.subject = Yielding(possible, lambda: self.idle, self._set)

    def _set(self, policy: int) -> None:
        if self.error is not None:
            raise self.error
        self.policies.append(policy)

    def passes(self, seconds: float, idle_cpus: float) -> None:
        self.now += seconds
        self.idle += seconds * idle_cpus
        self.subject.look(self.now)


def test_it_yields_while_a_cpu_is_idle_and_only_then() -> None:
    machine = Machine()
    machine.passes(1.0, 1.0)
    assert machine.policies == []  # nothing to compare with yet
    machine.passes(0.3, 1.0)
    assert machine.policies == [os.SCHED_IDLE]
    machine.passes(0.3, 0.9)
    machine.passes(0.3, 0.2)  # between the two limits nothing changes
    assert machine.policies == [os.SCHED_IDLE]
    machine.passes(0.3, 0.0)
    assert machine.policies == [os.SCHED_IDLE, os.SCHED_OTHER]
    machine.passes(0.3, 0.3)
    assert not machine.subject.on
    machine.passes(0.3, 0.5)
    assert machine.subject.on


def test_idle_time_that_cannot_be_read_changes_nothing() -> None:
    def unreadable() -> float:
        raise OSError(24, "Too many open files")

    policies: list[int] = []
    yielding = Yielding(True, unreadable, policies.append)
    yielding.look(1.0)
    yielding.look(2.0)
    assert policies == []


def test_it_does_not_look_more_often_than_it_has_to() -> None:
    machine = Machine()
    machine.passes(1.0, 1.0)
    for _ in range(10):
        machine.passes(0.02, 1.0)
    assert machine.policies == []
    machine.passes(0.1, 1.0)
    assert machine.policies == [os.SCHED_IDLE]


def test_where_it_is_not_possible_nothing_is_tried() -> None:
    machine = Machine(possible=False)
    for _ in range(3):
        machine.passes(1.0, 2.0)
    assert machine.policies == []


def test_who_is_not_allowed_to_does_not_try_again() -> None:
    machine = Machine()
    machine.error = PermissionError(1, "Operation not permitted")
    for _ in range(3):
        machine.passes(1.0, 2.0)
    machine.error = None
    machine.passes(1.0, 2.0)
    assert machine.policies == []
    assert not machine.subject.on


def place(tmp_path: Path, cgroup: str, autogroup: str = "1") -> tuple[Path, Path]:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text(cgroup)
    (proc / "sys/kernel").mkdir(parents=True)
    (proc / "sys/kernel/sched_autogroup_enabled").write_text(f"{autogroup}\n")
    cgroups.mkdir()
    return proc, cgroups


@pytest.mark.parametrize("cgroup", ["1:cpu,cpuacct:/user\n0::/\n", "nonsense\n"])
def test_not_in_a_control_group_with_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str) -> None:
    monkeypatch.setattr(os, "getsid", lambda pid: os.getpid())
    assert not _weighed_alone(*place(tmp_path, cgroup))


def test_in_a_session_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = place(tmp_path, "1:cpu,cpuacct:/\n0::/system.slice/x.service\n")
    monkeypatch.setattr(os, "getsid", lambda pid: os.getpid())
    assert _weighed_alone(*where)
    monkeypatch.setattr(os, "getsid", lambda pid: os.getpid() + 1)
    assert not _weighed_alone(*where)
    monkeypatch.setattr(os, "getsid", lambda pid: os.getpid())
    (where[0] / "sys/kernel/sched_autogroup_enabled").write_text("0\n")
    assert not _weighed_alone(*where)
    (where[0] / "sys/kernel/sched_autogroup_enabled").unlink()
    assert not _weighed_alone(*where)


def test_in_a_control_group_of_its_own(tmp_path: Path) -> None:
    where = place(tmp_path, "0::/system.slice/x.service\n", autogroup="0")
    group = where[1] / "system.slice/x.service"
    group.mkdir(parents=True)
    (group / "cpu.weight").write_text("100\n")
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n")
    assert _weighed_alone(*where)
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n77\n")
    assert not _weighed_alone(*where)
    (where[0] / "77").mkdir()
    (where[0] / "77/stat").write_text(f"77 (a name) S {os.getpid()} 1 1\n")
    assert _weighed_alone(*where)  # what reads ahead is ours
    (where[0] / "77/stat").write_text("77 (a name) S 1 1 1\n")
    assert not _weighed_alone(*where)


def test_idle_time_is_counted_in_seconds_of_all_cpus() -> None:
    up = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert 0 < _idle_seconds() <= (up + 60) * (os.cpu_count() or 1)


WITH_THREADS = """
import os, threading, time
from fsdriver.device.yielding import _set_policy_of_all_threads
def policies():
    return {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
_set_policy_of_all_threads(os.SCHED_IDLE)
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
assert policies() == {os.SCHED_IDLE}, policies()
_set_policy_of_all_threads(os.SCHED_OTHER)
assert policies() == {os.SCHED_OTHER}, policies()
"""


def test_without_the_capability_there_is_no_way_back() -> None:
    asks = "from fsdriver.device.yielding import _may_return; print(_may_return())"
    command = [sys.executable, "-c", asks]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice", *command]
    done = subprocess.run(command, check=True, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_all_threads_of_a_process_go_and_come_back_where_the_drive_relies_on_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITH_THREADS], cwd=Path(__file__).parents[3], capture_output=True, text=True
    )
    if _may_return():
        assert done.returncode == 0, done.stderr
    else:
        assert "PermissionError" in done.stderr  # no way back from SCHED_IDLE: so such a drive does not go there


def test_a_process_that_shares_its_session_does_not_yield() -> None:
    asks = "from fsdriver.device.yielding import yielding; print(yielding()._possible)"
    child = subprocess.run(
        [sys.executable, "-c", asks], check=True, cwd=Path(__file__).parents[3], capture_output=True, text=True
    )
    assert child.stdout == "False\n"
