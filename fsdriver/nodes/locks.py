"""POSIX and flock locks of one file, shared by both views. Pure: waiting is the caller's.

An owner is an opaque number (the kernel's `lock_owner`); POSIX locks of one owner merge and split by range, a flock
lock covers the file and belongs to an open file description. Semantics follow fcntl(2) and flock(2).
"""

import errno
from dataclasses import dataclass, replace

MOST = 4096
"""Ranges that one file's table holds: as many as anybody needs, and few enough to look through at every request."""
F_RDLCK, F_WRLCK, F_UNLCK = 0, 1, 2
END_OF_FILE = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Lock:
    """`start` to `end` inclusive, as in the kernel's struct fuse_file_lock."""

    start: int
    end: int
    kind: int
    owner: int
    pid: int
    untold: bool = False
    """Taken through a descriptor whose closing the kernel does not tell: `pid` is asked whether it still lives."""

    def overlaps(self, other: "Lock") -> bool:
        return self.start <= other.end and other.start <= self.end

    def touches(self, other: "Lock") -> bool:
        return self.start <= other.end + 1 and other.start <= self.end + 1


class LockTable:
    """The locks of one file and of one sort (POSIX or flock)."""

    __slots__ = ("_held", "flock")

    def __init__(self, *, flock: bool = False) -> None:
        self.flock = flock
        self._held: list[Lock] = []

    def __bool__(self) -> bool:
        return bool(self._held)

    def conflict(self, wanted: Lock) -> Lock | None:
        """The first lock of another owner that stands in the way."""
        for held in self._held:
            if held.owner != wanted.owner and held.overlaps(wanted) and F_WRLCK in (held.kind, wanted.kind):
                return held
        return None

    def apply(self, wanted: Lock) -> None:
        """Take, change or release (`F_UNLCK`) a range; the caller has seen that nothing conflicts.

        Errors: OSError ENOLCK."""
        kept: list[Lock] = []
        for held in self._held:
            if held.owner == wanted.owner and held.kind == wanted.kind and held.touches(wanted):
                wanted = replace(wanted, start=min(held.start, wanted.start), end=max(held.end, wanted.end))
                continue
            if held.owner != wanted.owner or not held.overlaps(wanted):
                kept.append(held)
                continue
            if held.start < wanted.start:
                kept.append(replace(held, end=wanted.start - 1))
            if held.end > wanted.end:
                kept.append(replace(held, start=wanted.end + 1))
        if wanted.kind != F_UNLCK:
            kept.append(wanted)
        if len(kept) > MOST:
            raise OSError(errno.ENOLCK, "the file has too many locked ranges")
        self._held = kept

    def strongest(self, start: int, end: int) -> list[Lock]:
        """What all owners together have of a range, inclusive, in order and without gaps: F_WRLCK, F_RDLCK, or F_UNLCK
        where nobody has anything. `owner` and `pid` mean nothing."""
        held = [lock for lock in self._held if lock.start <= end and start <= lock.end]
        edges = {start, *(lock.start for lock in held), *(lock.end + 1 for lock in held)}
        pieces: list[Lock] = []
        starts = sorted(edge for edge in edges if start <= edge <= end)
        for first, after in zip(starts, [*starts[1:], end + 1], strict=True):
            kinds = {lock.kind for lock in held if lock.start <= first <= lock.end}
            kind = F_WRLCK if F_WRLCK in kinds else F_RDLCK if F_RDLCK in kinds else F_UNLCK
            if pieces and pieces[-1].kind == kind:
                pieces[-1] = replace(pieces[-1], end=after - 1)
            else:
                pieces.append(Lock(first, after - 1, kind, 0, 0))
        return pieces

    def release_owner(self, owner: int) -> bool:
        """All locks of `owner` go, as close(2) demands. True if there were any."""
        kept = [held for held in self._held if held.owner != owner]
        changed = len(kept) != len(self._held)
        self._held = kept
        return changed
