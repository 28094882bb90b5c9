"""What a spool directory holds after a crash, brought into order before the first append.

- A frame that ends with the file is the work of a writer that was killed: its append never returned. It is cut off.
- Anything else that does not verify is damage. The files from there on are copied to `damaged/`; what still verifies in
  them is appended again under new numbers, behind a `damaged` record that says so. Nothing goes without a trace.
- What the key server has acknowledged needs no file.

Each step may be interrupted and is then repeated or finished by the next start: the new content of a damaged spool is
one file, `FIRST.seg.new`, that counts from the moment it is whole.
"""

import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import msgspec

from fsdriver.spool_segment import (
    CHAIN_START,
    HEAD_SIZE,
    SegmentDamaged,
    SegmentHead,
    frame,
    frames,
    link,
    salvage,
)
from keyserver.atomic_file import replace_file
from keyserver.messages import Record

__all__ = ["ACKNOWLEDGED_SIZE", "Acknowledged", "Recovered", "recover"]

ACKNOWLEDGED_SIZE = 44


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The last record the key server has, and the chain's value after it."""

    seq: int = 0
    chain: bytes = CHAIN_START

    def encode(self) -> bytes:
        body = struct.pack("<Q32s", self.seq, self.chain)
        return body + struct.pack("<I", crc32(body))

    @classmethod
    def read(cls, path: Path) -> "Acknowledged":
        """A missing or torn file is no loss: the server says again what it has."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return cls()
        if len(data) != ACKNOWLEDGED_SIZE or struct.unpack_from("<I", data, 40)[0] != crc32(data[:40]):
            return cls()
        return cls(*struct.unpack_from("<Q32s", data))


@dataclass(slots=True)
class Recovered:
    """The spool as it can be continued: the record after `last` follows `chain`."""

    last: int
    chain: bytes
    segments: list[SegmentHead]
    """Oldest first; the last one may be appended to."""
    notes: list[str] = field(default_factory=list)
    """What had to be cut off, for the restart record."""


def recover(directory: Path, damaged_record: Callable[[int, str], Record]) -> Recovered:
    """Puts `directory` in order. `damaged_record(seq, detail)` makes the record of damage. Raises OSError."""
    _finish_replacement(directory)
    state, damage = _scan(directory)
    if damage is not None:
        _replace_damaged(directory, state, damage, damaged_record)
        _finish_replacement(directory)
        notes = state.notes
        state, damage = _scan(directory)
        if damage is not None:
            raise OSError(
                5, f"the audit spool {directory} is damaged again right after it was written: {damage.reason}"
            )
        state.notes[:0] = notes
    return state


@dataclass(slots=True)
class _Damage:
    path: Path
    offset: int
    reason: str


def _segment_paths(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.seg"))


def _scan(directory: Path) -> tuple[Recovered, _Damage | None]:
    """Reads all segments up to the first damage. Cuts a torn end, and removes what is acknowledged."""
    acknowledged = Acknowledged.read(directory / "acknowledged")
    state = Recovered(acknowledged.seq, acknowledged.chain, [])
    paths = _segment_paths(directory)
    damage = None
    last, chain = -1, b""
    for path in paths:
        data = path.read_bytes()
        try:
            head = SegmentHead.parse(data)
            follows = ((last + 1, chain), (acknowledged.seq + 1, acknowledged.chain))
            if last >= 0 and (head.first, head.chain) not in follows:
                damage = _Damage(path, 0, f"record {last + 1} is missing before {path.name}")
                break
            if last < 0 and head.first > acknowledged.seq + 1:
                damage = _Damage(path, 0, f"records {acknowledged.seq + 1} to {head.first - 1} are missing")
                break
            last, chain = head.first - 1, head.chain
            state.segments.append(head)
            for whole in frames(data, HEAD_SIZE, chain):
                last, chain = last + 1, whole.chain
        except SegmentDamaged as exc:
            if not (exc.torn and path is paths[-1]) or salvage(data, exc.offset + 1):
                damage = _Damage(path, exc.offset, f"{path.name} is damaged at byte {exc.offset}, after record {last}")
                break
            if exc.offset == 0:
                path.unlink()  # killed between creating the segment and writing its head: it never held a record
            else:
                kept = _set_aside(directory, path, data[exc.offset :], f"{path.stem}-{exc.offset}.tail")
                os.truncate(path, exc.offset)
                state.notes.append(f"an unfinished record of {len(data) - exc.offset} bytes was cut off ({kept.name})")
    if last > state.last:
        state.last, state.chain = last, chain
    elif damage is None:
        # Everything here is acknowledged. The server may even have more (a power cut took what it had already got):
        # numbers go on behind that.
        for path in paths:
            path.unlink(missing_ok=True)
        state.segments = []
    return state, damage


def _set_aside(directory: Path, path: Path, data: bytes, name: str) -> Path:
    aside = directory / "damaged"
    aside.mkdir(mode=0o700, exist_ok=True)
    target = aside / name
    replace_file(target, data)
    shutil.copystat(path, target)
    return target


def _replace_damaged(
    directory: Path, state: Recovered, damage: _Damage, damaged_record: Callable[[int, str], Record]
) -> None:
    """Copies what is damaged aside and writes the new content from there on."""
    paths = [path for path in _segment_paths(directory) if path >= damage.path]
    found: list[bytes] = []
    for path in paths:
        data = path.read_bytes()
        _set_aside(directory, path, data, path.name)
        found += salvage(data, damage.offset + 1 if path == damage.path and damage.offset else HEAD_SIZE)
    records = [record for raw in found if (record := _readable(raw)) and record.seq > state.last]

    first, chain = state.last + 1, state.chain
    content = SegmentHead(first, chain).encode()
    names = ", ".join(path.name for path in paths)
    detail = f"audit spool: {damage.reason}; {len(records)} later records follow again; {names} kept in damaged/"
    renumbered = [damaged_record(first, detail)] + [
        msgspec.structs.replace(record, seq=seq, detail=f"{record.detail} (was record {record.seq})".strip())
        for seq, record in enumerate(records, first + 1)
    ]
    for record in renumbered:
        raw = msgspec.json.encode(record)
        chain = link(chain, raw)
        content += frame(raw, chain)
    replace_file(directory / f"{first:020d}.seg.new", content)


def _readable(raw: bytes) -> Record | None:
    try:
        return msgspec.json.decode(raw, type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _finish_replacement(directory: Path) -> None:
    """Lets `FIRST.seg.new` take the place of everything from record FIRST on. Repeatable."""
    for new in directory.glob("*.seg.new"):
        first = int(new.name.partition(".")[0])
        target = new.with_suffix("")
        for path in _segment_paths(directory):
            if int(path.stem) >= first:
                path.unlink()
            else:
                _cut(path, first)
        new.rename(target)


def _cut(path: Path, first: int) -> None:
    """Leaves only the records before `first`, up to the first that does not verify."""
    data = path.read_bytes()
    end = 0
    try:
        head = SegmentHead.parse(data)
        end, seq = HEAD_SIZE, head.first
        for whole in frames(data, HEAD_SIZE, head.chain):
            if seq >= first:
                break
            end, seq = whole.end, seq + 1
    except SegmentDamaged:
        pass
    if end <= HEAD_SIZE:
        path.unlink()
    elif end < len(data):
        os.truncate(path, end)
