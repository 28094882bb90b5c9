"""Chunks and hole markers, sealed and opened in their slots (docs/format.md 5). No I/O.

A slot's first 8 bytes are its *word*: the generation, with the top bit set for the marker of a hole. The word, the
index, the file id and the suite are associated data, so a chunk opens in its own place only.
"""

import os
import struct
from collections.abc import Callable
from hashlib import blake2b

from cryptography.exceptions import InvalidTag

from fsdriver.content.header import MAJOR, Header
from fsdriver.content.keys import FileKeys
from fsdriver.content.offsets import MARKER_SIZE, NONCE_SIZE, OVERHEAD, PREFIX_SIZE, TAG_SIZE
from fsdriver.errors import ChunkForged

Buffer = bytes | bytearray | memoryview

HOLE = 1 << 63
GENERATION_MASK = HOLE - 1

_WORD = struct.Struct(">Q")
_PREFIX = struct.Struct(f">Q{NONCE_SIZE}s")
_PLACE = struct.Struct(">QQ")
_LENGTH = struct.Struct(">Q")
word_at: Callable[[Buffer, int], tuple[int]] = _WORD.unpack_from


class ChunkSealer:
    """Seals and opens the slots of one file. Thread-safe: it has no state but the keys."""

    __slots__ = ("_aead", "_context", "_sum")

    def __init__(self, header: Header, keys: FileKeys) -> None:
        self._aead = keys.chunk
        self._sum: blake2b = keys.sum
        self._context = struct.pack(">HH16s", header.suite, MAJOR, header.file_id)

    def seal_into(self, slots: memoryview, at: int, index: int, generation: int, pieces: list[Buffer]) -> int:
        """Seals consecutive chunks `index`, ... into consecutive slots from `slots[at]`; what they add to the sum.

        Every piece but the last is a whole chunk, so that the slots touch.
        """
        encrypt, context, place = self._aead.encrypt_into, self._context, _PLACE.pack
        nonces = os.urandom(NONCE_SIZE * len(pieces))
        nonce_at = total = 0
        for piece in pieces:
            nonce = nonces[nonce_at : nonce_at + NONCE_SIZE]
            end = at + OVERHEAD + len(piece)
            where = place(index, generation)
            _PREFIX.pack_into(slots, at, generation, nonce)
            encrypt(nonce, piece, context + where, slots[at + PREFIX_SIZE : end])
            digest = self._sum.copy()
            digest.update(b"".join((where, nonce, slots[end - TAG_SIZE : end])))
            total += int.from_bytes(digest.digest(), "big")
            nonce_at += NONCE_SIZE
            index += 1
            at = end
        return total

    def seal_marker(self, index: int, generation: int, length: int) -> tuple[bytes, int]:
        """The marker (MARKER_SIZE bytes) of a hole of `length` chunks from `index`, and what it adds to the sum."""
        slot = memoryview(bytearray(MARKER_SIZE))
        added = self.seal_into(slot, 0, index, generation | HOLE, [_LENGTH.pack(length)])
        return bytes(slot), added

    def open_into(self, slot: memoryview, index: int, out: memoryview) -> None:
        """Opens a whole data slot into `out`, which is as long as its content. Raises ChunkForged."""
        try:
            self._aead.decrypt_into(
                slot[8:PREFIX_SIZE], slot[PREFIX_SIZE:], b"".join((self._context, _WORD.pack(index), slot[:8])), out
            )
        except InvalidTag:
            # OpenSSL decrypts before it has seen the tag; nobody is to find that.
            out[:] = bytes(len(out))
            raise forged(index) from None

    def open(self, slot: memoryview, index: int) -> bytes:
        """The content of a whole slot, data or marker. Raises ChunkForged."""
        try:
            return self._aead.decrypt(
                slot[8:PREFIX_SIZE], slot[PREFIX_SIZE:], b"".join((self._context, _WORD.pack(index), slot[:8]))
            )
        except InvalidTag:
            raise forged(index) from None

    def open_marker(self, slot: memoryview, index: int) -> int:
        """How many chunks the hole that begins in this slot has, at least 1. Raises ChunkForged."""
        length: int = _LENGTH.unpack(self.open(slot[:MARKER_SIZE], index))[0]
        if length < 1:
            raise forged(index)
        return length

    def added(self, index: int, prefix: Buffer, tag: Buffer) -> int:
        """What a slot with this word and nonce (`prefix`, PREFIX_SIZE bytes) and `tag` adds to the sum."""
        digest = self._sum.copy()
        digest.update(b"".join((_WORD.pack(index), prefix, tag)))
        return int.from_bytes(digest.digest(), "big")


def forged(index: int) -> ChunkForged:
    return ChunkForged(f"chunk {index} does not verify in its place")
