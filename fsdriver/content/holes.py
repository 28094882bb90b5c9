"""The hole runs of one file that are known so far, in whole chunks. No I/O.

A run is `start <= index < end`. Runs touch but never overlap. A *fresh* run is one whose marker on disk is missing or
names another length, so that the next commit has to write it; a run found on disk is not fresh and may be forgotten.
"""

from bisect import bisect_left, bisect_right
from threading import Lock

KNOWN_MAX = 65_536
"""Beyond this many, runs that can be found again on disk are forgotten."""


class Holes:
    """Sorted runs. Thread-safe for readers that add what they found; changes happen under the file's own lock."""

    __slots__ = ("_ends", "_starts", "fresh", "lock")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.fresh: set[int] = set()
        """Starts of fresh runs."""
        self.lock = Lock()

    def __len__(self) -> int:
        return len(self._starts)

    def end_of(self, start: int) -> int:
        """End of the run that begins at `start`."""
        return self._ends[bisect_left(self._starts, start)]

    def find(self, index: int) -> tuple[int, int] | None:
        """The known run that covers chunk `index`."""
        with self.lock:
            at = bisect_right(self._starts, index) - 1
            if at >= 0 and index < self._ends[at]:
                return self._starts[at], self._ends[at]
            return None

    def next_start(self, index: int) -> int | None:
        """Start of the first known run at or after chunk `index`."""
        with self.lock:
            at = bisect_left(self._starts, index)
            return self._starts[at] if at < len(self._starts) else None

    def found(self, start: int, end: int) -> None:
        """Remembers a run whose marker was read from disk."""
        with self.lock:
            if len(self._starts) > KNOWN_MAX:
                kept = [(s, e) for s, e in zip(self._starts, self._ends, strict=True) if s in self.fresh]
                self._starts, self._ends = [s for s, _ in kept], [e for _, e in kept]
            at = bisect_left(self._starts, start)
            if at == len(self._starts) or self._starts[at] != start:
                self._starts.insert(at, start)
                self._ends.insert(at, end)

    def add(self, start: int, end: int) -> None:
        """Makes a fresh run where no known run is."""
        self.found(start, end)
        self.fresh.add(start)

    def carve(self, first: int, last: int) -> None:
        """Takes chunks `first <= index < last` out of every known run; what is left of a run is fresh."""
        low = max(0, bisect_right(self._starts, first) - 1)
        high = bisect_left(self._starts, last)
        rest = []
        for start, end in zip(self._starts[low:high], self._ends[low:high], strict=True):
            if end <= first:
                rest.append((start, end))
                continue
            self.fresh.discard(start)
            if start < first:
                rest.append((start, first))
                self.fresh.add(start)
            if last < end:
                rest.append((last, end))
                self.fresh.add(last)
        with self.lock:
            self._starts[low:high] = [start for start, _ in rest]
            self._ends[low:high] = [end for _, end in rest]

    def clear(self) -> None:
        with self.lock:
            self._starts.clear()
            self._ends.clear()
        self.fresh.clear()
