"""What /proc says about a process that closes a descriptor: whether it was killed, and who holds another copy.

FLUSH names the process and comes with every close(2); only RELEASE, which nobody waits for, says that it was the last.
"""

import os
from collections.abc import Iterator

_PF_EXITING = 0x4


def was_killed(pid: int) -> bool:
    """Whether `pid` is on its way out by a signal (its files are closed for it). An exit of its own accord closes too,
    and counts as a close. Fields 9 (flags) and 52 (exit_code) of proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat_file:
            fields = stat_file.read().rpartition(b")")[2].split()
    except OSError:
        return False
    return bool(int(fields[6]) & _PF_EXITING) and bool(int(fields[49]) & 0x7F)


def holds_for_writing(ino: int, *pids: int) -> bool:
    """Whether one of these processes or their descendants has a descriptor that may write to inode number `ino` (of
    whatever filesystem: seldom another's, and then only told later). The descriptor that is being closed is not there
    any more; a process that exits has none."""
    seen: set[int] = set()
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid in seen:
            continue
        seen.add(pid)
        if any(number == ino and flags & os.O_ACCMODE for number, flags in _descriptors(pid)):
            return True
        waiting += _children(pid)
    return False


def _descriptors(pid: int) -> Iterator[tuple[int, int]]:
    """(inode number, flags) of each open descriptor; none before Linux 5.14, which does not tell the number."""
    try:
        names = os.listdir(f"/proc/{pid}/fdinfo")
    except OSError:
        return
    for name in names:
        try:
            with open(f"/proc/{pid}/fdinfo/{name}", "rb") as info:
                facts = dict(line.split(b":", 1) for line in info.read().splitlines() if b":" in line)
            yield int(facts[b"ino"]), int(facts[b"flags"], 8)
        except (OSError, KeyError):
            continue


def _children(pid: int) -> list[int]:
    """Nothing where the kernel was built without CONFIG_PROC_CHILDREN."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as children:
                found += map(int, children.read().split())
    except OSError:
        pass
    return found
