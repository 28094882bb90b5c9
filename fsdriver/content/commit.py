"""The commit record: which state of the file counts (docs/format.md 6).

One record of 512 bytes at byte 3072, one disk sector inside one page: a kill or a power cut leaves the old or the new
one. It is written after the chunks it counts.
"""

import os
import struct
from typing import NamedTuple, Self

from cryptography.exceptions import InvalidTag

from fsdriver.content.header import MAJOR, Header
from fsdriver.content.keys import FileKeys
from fsdriver.content.offsets import COMMIT_SIZE, MAX_SIZE, NONCE_SIZE, TAG_SIZE
from fsdriver.errors import FileDamaged

_RESERVED = bytes(COMMIT_SIZE - NONCE_SIZE - TAG_SIZE - 56)
_FIELDS = struct.Struct(f">QQQ32s{len(_RESERVED)}x")
_CONTEXT = struct.Struct(">17sHHI16s")
SUM_MODULUS = 1 << 256
SUM_MASK = SUM_MODULUS - 1


class Commit(NamedTuple):
    """A state of the file: `generation` counts commits, `size` is plain bytes, `seals` all chunks ever sealed under
    this file key, `sum` the chunk sum (docs/format.md 5.3)."""

    generation: int = 0
    size: int = 0
    seals: int = 0
    sum: int = 0

    def seal(self, header: Header, keys: FileKeys) -> bytes:
        """COMMIT_SIZE bytes."""
        plain = _FIELDS.pack(self.generation, self.size, self.seals, self.sum.to_bytes(32, "big"))
        nonce = os.urandom(NONCE_SIZE)
        return nonce + keys.commit.encrypt(nonce, plain, _context(header))

    @classmethod
    def open(cls, record: bytes, header: Header, keys: FileKeys) -> Self:
        """The commit in COMMIT_SIZE bytes. Raises FileDamaged."""
        try:
            plain = keys.commit.decrypt(record[:NONCE_SIZE], record[NONCE_SIZE:], _context(header))
        except InvalidTag:
            raise FileDamaged("the commit record does not verify") from None
        generation, size, seals, total = _FIELDS.unpack(plain)
        if not plain.endswith(_RESERVED) or size >= MAX_SIZE or (generation == 0 and (size or total.strip(b"\0"))):
            raise FileDamaged("the commit record is malformed")
        return cls(generation, size, seals, int.from_bytes(total, "big"))


def _context(header: Header) -> bytes:
    return _CONTEXT.pack(b"grantfs-commit-v1", header.suite, MAJOR, header.chunk_size, header.file_id)
