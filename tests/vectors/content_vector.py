"""The form of the golden vectors in tests/vectors/content: one sealed file and what a reader must make of it.

A vector is text: `name: value` lines, then the file's bytes as `at OFFSET` blocks of base64 (the rest is zeros).

    expect: ok | HeaderDamaged | FormatUnknown | ChunkForged | FileDamaged | OtherCompany
    comment: what was done to the file
    company, label_key_id, label_key_version, label_key: what the reader has
    size: plain bytes                  (expect ok)
    generation: of the commit          (expect ok)
    released: SHA-256 of the content handed out, chunk by chunk, before the end or the failure
    sealed_size: length of the file
"""

import base64
import hashlib
import os
import textwrap
from dataclasses import dataclass, fields
from typing import Self

from fsdriver.content import Header, SealedFile
from fsdriver.content.keyfile import KeyFile
from fsdriver.errors import FsError

_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What the one who opens the file has."""

    company: bytes
    label_key_id: bytes
    label_key_version: int
    label_key: bytes


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of reading a file from start to end."""

    expect: str
    size: int
    generation: int
    released: str


def read_whole(sealed: bytes, reader: Reader) -> Outcome:
    """Opens and verifies `sealed` and reads it chunk by chunk, as far as that goes."""
    fd = os.memfd_create("vector")
    os.write(fd, sealed)
    keys = KeyFile({(reader.label_key_id, reader.label_key_version): reader.label_key}, {})
    released = hashlib.sha256()

    def unlock(header: Header):
        header.require_company(reader.company)
        return keys.unlock(header)

    try:
        file = SealedFile.open(fd, unlock)
    except FsError as exc:
        os.close(fd)
        return Outcome(expect=type(exc).__name__, size=0, generation=0, released=released.hexdigest())
    try:
        for offset in range(0, file.size, file.header.chunk_size):
            released.update(file.read(offset, file.header.chunk_size))
        file.verify()
    except FsError as exc:
        return Outcome(expect=type(exc).__name__, size=0, generation=0, released=released.hexdigest())
    finally:
        file.close()
    return Outcome(expect="ok", size=file.size, generation=file.generation, released=released.hexdigest())


@dataclass(frozen=True, kw_only=True)
class Vector:
    comment: str
    reader: Reader
    outcome: Outcome
    sealed: bytes

    def encode(self) -> str:
        lines = [f"expect: {self.outcome.expect}", f"comment: {self.comment}"]
        for field in fields(Reader):
            value = getattr(self.reader, field.name)
            lines.append(f"{field.name}: {value.hex() if isinstance(value, bytes) else value}")
        if self.outcome.expect == "ok":
            lines += [f"size: {self.outcome.size}", f"generation: {self.outcome.generation}"]
        lines += [f"released: {self.outcome.released}", f"sealed_size: {len(self.sealed)}"]
        for start, data in _extents(self.sealed):
            lines += [f"at {start}", *textwrap.wrap(base64.b64encode(data).decode(), 120)]
        return "\n".join(lines) + "\n"

    @classmethod
    def decode(cls, text: str) -> Self:
        head, *blocks = text.split("\nat ")
        facts = dict(line.split(": ", 1) for line in head.splitlines())
        sealed = bytearray(int(facts["sealed_size"]))
        for block in blocks:
            start, _, encoded = block.partition("\n")
            data = base64.b64decode(encoded)
            sealed[int(start) : int(start) + len(data)] = data
        reader = Reader(
            company=bytes.fromhex(facts["company"]),
            label_key_id=bytes.fromhex(facts["label_key_id"]),
            label_key_version=int(facts["label_key_version"]),
            label_key=bytes.fromhex(facts["label_key"]),
        )
        outcome = Outcome(
            expect=facts["expect"],
            size=int(facts.get("size", 0)),
            generation=int(facts.get("generation", 0)),
            released=facts["released"],
        )
        return cls(comment=facts["comment"], reader=reader, outcome=outcome, sealed=bytes(sealed))


def _extents(sealed: bytes) -> list[tuple[int, bytes]]:
    """Runs of blocks that are not all zeros."""
    found: list[tuple[int, bytes]] = []
    for start in range(0, len(sealed), _BLOCK):
        block = sealed[start : start + _BLOCK]
        if not any(block):
            continue
        if found and found[-1][0] + len(found[-1][1]) == start:
            found[-1] = (found[-1][0], found[-1][1] + block)
        else:
            found.append((start, block))
    return found
