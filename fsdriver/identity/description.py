"""What a record says about a caller beyond what decides: its command line, and the programs it was started by.

Asked of psutil when a record is written, never while a request waits for its decision. All of it can be forged by the
process; it is for people who read records.
"""

import threading
from collections import OrderedDict
from typing import NamedTuple

import psutil

from fsdriver.identity.callers import Caller

_REMEMBERED = 512
_ANCESTORS = 8


class Description(NamedTuple):
    """`command`: the arguments, () if the process is gone or hidden. `ancestors`: paths, the parent's first."""

    command: tuple[str, ...]
    ancestors: tuple[str, ...]


class Descriptions:
    """Descriptions of recent callers, each asked for once for as long as its program stays. Thread-safe."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, int, str], Description] = OrderedDict()
        self._lock = threading.Lock()

    def describe(self, caller: Caller) -> Description:
        """The description of a caller whose request still waits, or was described before."""
        key = caller.pid, caller.start_time, caller.path
        found = self._known.get(key)
        if found is None:
            found = _describe(caller.pid)
            with self._lock:
                self._known[key] = found
                if len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
        return found


def _describe(pid: int) -> Description:
    ancestors: list[str] = []
    try:
        process = psutil.Process(pid)
        command = tuple(process.cmdline())
    except psutil.Error:
        return Description((), ())
    while len(ancestors) < _ANCESTORS:
        try:
            parent = process.parent()
            if parent is None:
                break
            ancestors.append(parent.exe())
        except psutil.Error:
            break  # process 1 can be unreadable even for root: the walk ends there
        process = parent
    return Description(command, tuple(ancestors))
