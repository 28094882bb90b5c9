"""Sealed bytes that an opening read brought along, kept for the first whole read, within one limit for all files."""

from threading import Lock

LIMIT = 16 << 20

_lock = Lock()
_size = 0


class Kept:
    """The sealed bytes of one file, or None where the limit is reached or they were dropped."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        global _size
        with _lock:
            fits = _size + len(data) <= LIMIT
            if fits:
                _size += len(data)
        self.data = memoryview(data) if fits else None

    def drop(self) -> None:
        """Forgets the bytes. Doing it twice is harmless."""
        global _size
        with _lock:
            if self.data is not None:
                _size -= len(self.data)
                self.data = None
