"""Which bytes of a file are taken already."""

from bisect import bisect_left, bisect_right

Range = tuple[int, int]
"""First byte, and the one after the last."""


class Covered:
    """A set of bytes, given as ranges."""

    def __init__(self) -> None:
        self._edges: list[int] = []
        """Where a covered range begins, ends, the next one begins, and so on."""

    def cover(self, start: int, end: int) -> list[Range]:
        """Add a range; the parts of it that were not covered before, in order."""
        if start >= end:
            return []
        edges = self._edges
        first, after = bisect_left(edges, start), bisect_right(edges, end)
        begins, ends = [start] * (first % 2 == 0), [end] * (after % 2 == 0)
        gaps = [*begins, *edges[first:after], *ends]
        edges[first:after] = begins + ends
        return [(low, high) for low, high in zip(gaps[::2], gaps[1::2], strict=True) if low < high]
