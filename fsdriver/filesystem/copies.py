"""Which file went where: copies, seen as a file that is read and another that the same process writes.

FUSE has no message for a copy. Inside the drive both sides are ours: while a process has one handle it has read from
and another it has written to, the pair is a copy, told once, when the first of the two closes. Outside the drive only
the process's own descriptors tell where to: they are read at the first READ of a handle.
"""

import os
import stat
import threading
from collections import Counter

from fsdriver.nodes.openfile import Handle

_REMEMBERED = 1024
_TOLD = 32
"""Of the copies that may end with one handle: a process with thousands of files open makes no millions of records."""
_LOOKED_AT = 1024
"""Descriptors of one process, at its READ: whoever has more is not looked through while others wait."""


class Copies:
    """The read-write pairs of all processes. Thread-safe."""

    def __init__(self, mount_point: str) -> None:
        self._inside = mount_point.rstrip("/") + "/"
        self._lock = threading.Lock()
        self._holding: dict[int, Counter[bytes]] = {}
        """Process -> label id -> how many of its handles show it plaintext of that label."""
        self._reading: dict[int, set[Handle]] = {}
        self._writing: dict[int, set[Handle]] = {}
        self._nowhere: dict[int, int] = {}

    def opens(self, handle: Handle) -> None:
        """`handle` shows its process plaintext of its label."""
        assert handle.label is not None
        handle.shows = handle.label.id
        with self._lock:
            self._holding.setdefault(handle.caller.pid, Counter())[handle.shows] += 1

    def held(self, pid: int) -> list[bytes]:
        """Ids of the labels whose plaintext `pid` has open."""
        with self._lock:
            return list(self._holding.get(pid, ()))

    def reads(self, handle: Handle) -> None:
        """`handle` has been read from for the first time."""
        with self._lock:
            self._reading.setdefault(handle.caller.pid, set()).add(handle)
        pid = handle.caller.pid
        try:
            descriptors = os.stat(f"/proc/{pid}/fd").st_size  # how many there are, since Linux 6.2; 0 before
        except OSError:
            return
        # A process that reads file after file, with as many descriptors as when it last had none outside, has none.
        if descriptors and self._nowhere.get(pid) == descriptors:
            return
        outside = self._open_elsewhere(pid, descriptors)
        handle.outside.update(outside)
        if len(self._nowhere) > _REMEMBERED:
            self._nowhere.clear()
        self._nowhere[pid] = 0 if outside else descriptors

    def writes(self, handle: Handle) -> None:
        """`handle` has been written to for the first time."""
        with self._lock:
            self._writing.setdefault(handle.caller.pid, set()).add(handle)

    def feeds(self, pid: int, path: str) -> None:
        """`pid` writes to `path` through a descriptor that another process opened: a redirect."""
        with self._lock:
            for handle in self._reading.get(pid, ()):
                if len(handle.outside) < _TOLD and handle.path != path:
                    handle.outside.add(path)

    def closes(self, handle: Handle) -> list[tuple[Handle, str]]:
        """The (source, destination) pairs that end with `handle`, the destination by its path; beyond the first few the
        last destination says how many more there are."""
        pid = handle.caller.pid
        with self._lock:
            pairs = []
            self._shows_no_more(handle)
            if self._leave(self._reading, pid, handle):
                pairs += [(handle, other) for other in self._writing.get(pid, ())]
            if self._leave(self._writing, pid, handle):
                pairs += [(other, handle) for other in self._reading.get(pid, ())]
        pairs = [(source, target) for source, target in pairs if source.file is not target.file]
        told = [(source, target.path) for source, target in pairs[:_TOLD]]
        if more := len(pairs) - len(told):
            told.append((pairs[_TOLD][0], f"{pairs[_TOLD][1].path} (and {more - 1} more copies by this process)"))
        return told

    def _shows_no_more(self, handle: Handle) -> None:
        pid, label = handle.caller.pid, handle.shows
        if label is None:
            return
        handle.shows = None
        held = self._holding[pid]
        held[label] -= 1
        if not held[label]:
            del held[label]
        if not held:
            del self._holding[pid]

    @staticmethod
    def _leave(table: dict[int, set[Handle]], pid: int, handle: Handle) -> bool:
        handles = table.get(pid)
        if handles is None or handle not in handles:
            return False
        handles.discard(handle)
        if not handles:
            del table[pid]
        return True

    def _open_elsewhere(self, pid: int, descriptors: int) -> list[str]:
        """Files outside the drive that `pid` has open for writing. `descriptors`: how many it has, 0 for unknown."""
        if descriptors > _LOOKED_AT:
            return [_unknown(pid, descriptors)]
        try:
            table = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return []
        try:
            return self._open_in(table, pid)
        except OSError:
            return []
        finally:
            os.close(table)

    def _open_in(self, table: int, pid: int) -> list[str]:
        """`table` is a descriptor of the process's /proc/PID/fd."""
        found: list[str] = []
        numbers = os.listdir(table)
        if len(numbers) > _LOOKED_AT:
            return [_unknown(pid, len(numbers))]
        for number in numbers:
            if len(found) == _TOLD:
                break
            try:
                # The link's own permission bits say how the descriptor was opened: no need to read fdinfo.
                if not os.stat(number, dir_fd=table, follow_symlinks=False).st_mode & stat.S_IWUSR:
                    continue
                target = os.readlink(number, dir_fd=table)
                if not target.startswith("/") or target.startswith(("/dev/", "/proc/")):
                    continue
                # The target itself is never asked about: through a bind mount it may be the drive, which waits for us.
                if not target.startswith(self._inside):
                    found.append(target)
            except OSError:
                continue
        return found


def _unknown(pid: int, descriptors: int) -> str:
    return f"unknown: process {pid} has {descriptors} descriptors"
