"""Lets callers run where they are answered: while some CPU is idle, the daemon's threads are SCHED_IDLE.

A caller sleeps until its request is answered. When it is woken, the thread that answers is still running, so the
scheduler moves the caller to an idle CPU; `placement` follows it there, and so on. Each move wakes a CPU from its
sleep, which took 30 us in a virtual machine where a switch between two threads takes 3: unpacking 11,000 files took
18-22 s so, and 8 s without. A CPU that runs nothing but SCHED_IDLE threads counts as idle itself
(kernel/sched/fair.c, select_idle_sibling), so the caller stays.

Such threads weigh nothing beside others of their scheduling group. So this is done only where the group is the daemon
alone (then the group as a whole weighs what any other does), and not while all CPUs are busy: then no caller is moved
anyway, and threads of this class wait for a tick before they get their turn.
"""

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

_TICKS = os.sysconf("SC_CLK_TCK")
_LOOK_SECONDS = 0.25
_IDLE_CPUS_TO_BEGIN = 0.4
"""How much of a CPU the whole machine must have left, on average since the last look."""
_IDLE_CPUS_TO_END = 0.15


class Yielding:
    """The scheduling class of all threads of this process. Used by one thread, which calls `look` while it is busy."""

    def __init__(self, possible: bool, idle_seconds: Callable[[], float], set_policy: Callable[[int], None]) -> None:
        """`idle_seconds`: of all CPUs together, since some moment; `set_policy` takes SCHED_IDLE or SCHED_OTHER."""
        self._possible = possible
        self._idle_seconds = idle_seconds
        self._set_policy = set_policy
        self._looked_at = self._idle = 0.0
        self.on = False

    def look(self, now: float) -> None:
        """Decide anew if it is time to. `now` is a clock in seconds that only goes forward."""
        elapsed = now - self._looked_at
        if not self._possible or elapsed < _LOOK_SECONDS:
            return
        try:
            idle = self._idle_seconds()
        except OSError:  # no descriptor is free just now
            return
        cpus = (idle - self._idle) / elapsed
        known = self._looked_at > 0
        self._looked_at, self._idle = now, idle
        if known and cpus >= _IDLE_CPUS_TO_BEGIN and not self.on:
            self._switch(True)
        elif cpus < _IDLE_CPUS_TO_END and self.on:
            self._switch(False)

    def _switch(self, on: bool) -> None:
        try:
            self._set_policy(os.SCHED_IDLE if on else os.SCHED_OTHER)
            self.on = on
        except OSError as exc:
            log.debug("the scheduling class stays: %s", exc.strerror)
            self._possible = False


def yielding() -> Yielding:
    """For this process."""
    return Yielding(_weighed_alone() and _may_return(), _idle_seconds, _set_policy_of_all_threads)


def _idle_seconds() -> float:
    """The fields `idle` and `iowait` of the first line of /proc/stat (proc(5))."""
    with open("/proc/stat", "rb") as file:
        fields = file.readline().split()
    return (int(fields[4]) + int(fields[5])) / _TICKS


def _set_policy_of_all_threads(policy: int) -> None:
    """Threads made later inherit it. Raises OSError."""
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):
            os.sched_setscheduler(int(thread), policy, os.sched_param(0))


def _may_return() -> bool:
    """Without CAP_SYS_NICE there is no way back from SCHED_IDLE (sched(7)), and a container's root may lack it: a
    thread that ends tries."""
    returned = []

    def there_and_back() -> None:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            returned.append(True)

    thread = threading.Thread(target=there_and_back, name="there-and-back")
    thread.start()
    thread.join()
    return bool(returned)


def _is_ours(pid: int, proc: Path) -> bool:
    """This process, or one that it started: the one that reads ahead is SCHED_IDLE itself."""
    if pid == os.getpid():
        return True
    fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[1]) == os.getpid()


def _weighed_alone(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> bool:
    """Whether the scheduler weighs this process as one against the others: in an autogroup of its own (sched(7)), which
    a session has while it is in no control group for processor time, or in such a control group of its own."""
    try:
        for line in (proc / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "cpu" in controllers.split(",") and path != "/":
                return False
            if not controllers and (cgroups / path.lstrip("/") / "cpu.weight").exists():
                members = (cgroups / path.lstrip("/") / "cgroup.procs").read_text().split()
                return str(os.getpid()) in members and all(_is_ours(int(member), proc) for member in members)
        enabled = (proc / "sys/kernel/sched_autogroup_enabled").read_text().strip() == "1"
    except (OSError, ValueError):
        return False
    return enabled and os.getsid(0) == os.getpid()
