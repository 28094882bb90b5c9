"""Real processes for the tests of callers, and a policy that lists the programs they run."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fsdriver.identity import Caller, Callers, Owner, Packages
from policy import ProgramEntry

TAIL = "/usr/bin/tail"
SHELL = "/usr/bin/dash"
PYTHON = "/usr/bin/python3.11"
FOREVER = [TAIL, "-f", "/dev/null"]
LOOKS = 6000
"""How often to look whether a process has come to where a test wants it, a hundredth of a second apart."""
LISTED = (
    ProgramEntry(TAIL, ("coreutils",)),
    ProgramEntry(SHELL, ("dash",)),
    ProgramEntry(PYTHON, ("python3.11-minimal",)),
)


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    user: int | None = None,
    executable: str | Path | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """The command, once it waits for something, with pipes as stdin and stdout; killed at the end with its children."""
    process = subprocess.Popen(
        [os.fspath(word) for word in command],
        executable=executable,
        env=os.environ | (env or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
    try:
        settle(process.pid)
        yield process
    finally:
        if process.poll() is None:
            for pid in (process.pid, *children(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.communicate()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def only_child(pid: int) -> int:
    """Its child, once it has one and that waits for something."""
    for _ in range(LOOKS):
        if found := children(pid):
            (child,) = found
            settle(child)
            return child
        time.sleep(0.01)
    raise AssertionError(f"process {pid} starts no child")


def settle(pid: int) -> None:
    """Wait until the process (its first thread, which may have ended) waits, and still does a moment later.

    Who waits for a disk (D) is not there yet, but so is who waits for a vfork child or for memory: for a long time.
    """
    before, same = ("", ""), 0
    for _ in range(LOOKS):
        now = state(pid), Path(f"/proc/{pid}/syscall").read_text()
        same = same + 1 if now == before and now[0] in "SDZ" else 0
        before = now
        if same == (50 if now[0] == "D" else 2):
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} does not come to rest")


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def say(process: "subprocess.Popen[str]", line: str) -> None:
    """Give the process a line on its stdin, and wait until it rests again."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    time.sleep(0.05)
    settle(process.pid)


def naive(pid: int, path: str = TAIL) -> bool:
    """The check that the attacks defeat: /proc/PID/exe names the listed program."""
    for _ in range(LOOKS):
        if os.readlink(f"/proc/{pid}/exe") == path:
            return True
        time.sleep(0.01)  # a shell may still prepare the attack
    return False


def is_listed(caller: Caller) -> bool:
    """Whether the caller counts as the listed program; the two ways to say so agree."""
    clean = caller.program is not None and caller.program.clean
    assert clean == (caller.why_unlisted == "")
    return clean


def ask(callers: Callers, tid: int, uid: int = 0) -> Caller:
    """What a request that opens a file does: what is known, if all of it still holds, else find out."""
    return callers.known(tid, uid, thorough=True) or callers.identify(tid, uid)


class Joined:
    """Several package databases as one."""

    def __init__(self, *databases: Packages) -> None:
        self._databases = databases

    def owners(self, path: bytes) -> tuple[Owner, ...]:
        return tuple(owner for database in self._databases for owner in database.owners(path))

    def files(self, package: str) -> list[bytes]:
        return [path for database in self._databases for path in database.files(package)]

    def state(self) -> object:
        return tuple(database.state() for database in self._databases)
