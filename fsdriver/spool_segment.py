"""One file of the audit spool: a head, then frames. Bytes only; which records belong where is `audit_spool`'s.

    head   magic "GFSSPOOL" 8 | first seq u64 | chain before it 32 | crc32 of these u32
    frame  magic "GFRM" 4 | length of record u32 | crc32 of record and chain u32 | record | chain after it 32

Little-endian. chain_n = SHA-256(chain_{n-1} + record_n), 32 zero bytes before the first record of a machine. The magic
lets recovery find the next frame behind a damaged one.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

__all__ = [
    "CHAIN_SIZE",
    "CHAIN_START",
    "Frame",
    "SegmentDamaged",
    "SegmentHead",
    "frame",
    "frames",
    "leading",
    "link",
    "salvage",
]

CHAIN_SIZE = 32
CHAIN_START = bytes(CHAIN_SIZE)
MAX_RECORD = 64 * 1024
HEAD_SIZE = 52
_HEAD = struct.Struct("<8sQ32s")
_FRAME = struct.Struct("<4sII")
_HEAD_MAGIC = b"GFSSPOOL"
_FRAME_MAGIC = b"GFRM"
OVERHEAD = _FRAME.size + CHAIN_SIZE


class SegmentDamaged(Exception):
    """The segment's head, or the frame at `offset`, is not what was written."""

    def __init__(self, offset: int, *, torn: bool) -> None:
        super().__init__(f"damaged at byte {offset}")
        self.offset = offset
        self.torn = torn
        """The file ends inside the frame, as it does when a writer is killed in the middle of write(2)."""


@dataclass(frozen=True, slots=True)
class SegmentHead:
    first: int
    chain: bytes

    def encode(self) -> bytes:
        body = _HEAD.pack(_HEAD_MAGIC, self.first, self.chain)
        return body + struct.pack("<I", crc32(body))

    @classmethod
    def parse(cls, data: bytes) -> "SegmentHead":
        """Raises SegmentDamaged."""
        if len(data) < HEAD_SIZE:
            raise SegmentDamaged(0, torn=True)
        magic, first, chain = _HEAD.unpack_from(data)
        if magic != _HEAD_MAGIC or data[_HEAD.size : HEAD_SIZE] != struct.pack("<I", crc32(data[: _HEAD.size])):
            raise SegmentDamaged(0, torn=False)
        return cls(first, chain)

    def path(self, directory: Path) -> Path:
        return directory / f"{self.first:020d}.seg"


class Frame(NamedTuple):
    record: bytes
    chain: bytes
    end: int
    """Offset of the next frame."""


def link(chain: bytes, record: bytes) -> bytes:
    """The chain's next value."""
    return sha256(chain + record).digest()


def frame(record: bytes, chain: bytes) -> bytes:
    """The bytes of one frame; `chain` is the value after `record`."""
    body = record + chain
    return _FRAME.pack(_FRAME_MAGIC, len(record), crc32(body)) + body


def frames(data: bytes | memoryview, start: int, chain: bytes | None) -> Iterator[Frame]:
    """The frames of `data` from offset `start` on; `chain` is the value before the first (None: not checked).

    Raises SegmentDamaged at the first that does not verify.
    """
    offset, size = start, len(data)
    while offset < size:
        if size - offset < _FRAME.size:
            raise SegmentDamaged(offset, torn=True)
        magic, length, crc = _FRAME.unpack_from(data, offset)
        if magic != _FRAME_MAGIC or length > MAX_RECORD:
            raise SegmentDamaged(offset, torn=False)
        end = offset + OVERHEAD + length
        if end > size:
            raise SegmentDamaged(offset, torn=True)
        body = bytes(data[offset + _FRAME.size : end])
        record, after = body[:length], body[length:]
        if crc32(body) != crc or (chain is not None and link(chain, record) != after):
            raise SegmentDamaged(offset, torn=False)
        yield Frame(record, after, end)
        chain, offset = after, end


def leading(data: bytes, count: int, size: int) -> tuple[list[bytes], list[int]]:
    """The first records of `data`, which begins with a frame, and where the frame of each ends: at most `count`, within
    `size` bytes but for the first, up to one that is damaged or not all there.

    For who sends many and must not take long: looks at checksums, and leaves the chain to who receives them.
    """
    records: list[bytes] = []
    ends: list[int] = []
    offset, last = 0, len(data)
    while offset + _FRAME.size <= last and len(records) < count:
        magic, length, crc = _FRAME.unpack_from(data, offset)
        begin = offset + _FRAME.size
        end = begin + length + CHAIN_SIZE
        if magic != _FRAME_MAGIC or end > last or crc32(data[begin:end]) != crc:
            break
        records.append(data[begin : begin + length])
        ends.append(end)
        offset, last = end, min(size, len(data))
    return records, ends


def salvage(data: bytes, start: int) -> list[bytes]:
    """Every record from offset `start` on that still verifies by itself."""
    found: list[bytes] = []
    at = data.find(_FRAME_MAGIC, start)
    while at != -1:
        try:
            for whole in frames(data, at, None):
                found.append(whole.record)
                at = whole.end
            return found
        except SegmentDamaged:
            at = data.find(_FRAME_MAGIC, at + 1)
    return found
