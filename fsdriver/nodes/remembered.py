"""Labels of files whose nodes the kernel has forgotten: what their headers said, for as long as they are unchanged.

A header is read to decide about a file (who may delete it, which view a name means). For a file that was read before,
the store's inode number and ctime say that nothing has touched it since, and the read, which would go to the disk, can
be spared. A hint only: whatever gives content reads and verifies the header itself. One table of fixed size; a file
that falls into another's place takes it.
"""

import struct
import threading
from typing import NamedTuple

_ENTRY = struct.Struct("=QQ16s16s")
"""Inode number, st_ctime_ns, label id, file id."""
_PLACES = 1 << 15


class Remembered(NamedTuple):
    """Whose a file is, by its header. Ids are 16 bytes."""

    label_id: bytes
    file_id: bytes


class RememberedLabels:
    """1.5 MiB. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table = bytearray(_ENTRY.size * _PLACES)

    def put(self, ino: int, ctime_ns: int, label_id: bytes, file_id: bytes) -> None:
        """Remember the header of the file that has these numbers now."""
        with self._lock:
            _ENTRY.pack_into(self._table, ino % _PLACES * _ENTRY.size, ino, ctime_ns, label_id, file_id)

    def get(self, ino: int, ctime_ns: int) -> Remembered | None:
        """What was remembered of this file in this state."""
        with self._lock:
            known, changed, label_id, file_id = _ENTRY.unpack_from(self._table, ino % _PLACES * _ENTRY.size)
        return Remembered(label_id, file_id) if (known, changed) == (ino, ctime_ns) else None
