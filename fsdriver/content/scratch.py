"""Buffers for sealed bytes on their way between the backing file and a request, reused so that none is zeroed twice."""

from collections import deque

SIZE = (1 << 20) + (68 << 10)
"""Room for a request of 1 MiB that does not begin at a chunk's start, or for one chunk of the largest size."""

_free: deque[memoryview] = deque()


def take() -> memoryview:
    """A writable buffer of SIZE bytes with unspecified content."""
    try:
        return _free.pop()
    except IndexError:
        return memoryview(bytearray(SIZE))


def give(buffer: memoryview) -> None:
    """Gives a buffer back; there are at most as many as threads ever used one at a time."""
    _free.append(buffer)
