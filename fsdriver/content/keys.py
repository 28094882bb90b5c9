"""The keys of one file: what is drawn from its file key, and nothing else (docs/format.md 4).

`FileKey` is the 32 bytes that wrap slots carry. One HKDF expansion gives all subkeys and the commitment, which ties a
header to exactly one key (AES-GCM alone does not). No repr shows key bytes.
"""

import os
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_SIZE = 32
_INFO = b"grantfs-file-v1"
_SHA256 = SHA256()


@dataclass(frozen=True, slots=True)
class FileKey:
    """The key of one file."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_SIZE:
            raise ValueError(f"a file key has {KEY_SIZE} bytes, not {len(self.secret)}")

    @classmethod
    def generate(cls) -> Self:
        return cls(os.urandom(KEY_SIZE))


class FileKeys:
    """Subkeys of one file key, ready for use."""

    __slots__ = ("chunk", "commit", "drawn", "sum")

    def __init__(self, drawn: bytes) -> None:
        """`drawn`: what `draw` gave."""
        self.drawn = drawn
        self.commit = AESGCM(drawn[64:96])
        self.chunk = AESGCM(drawn[96:128])
        self.sum = blake2b(key=drawn[128:160], digest_size=32)
        """Prototype: copy it, feed it, take its digest."""

    @classmethod
    def draw(cls, file_key: FileKey, file_id: bytes, suite: int) -> Self:
        """From a file key, with the file id as salt."""
        info = _INFO + suite.to_bytes(2, "big")
        return cls(HKDF(_SHA256, 6 * KEY_SIZE, salt=file_id, info=info).derive(file_key.secret))

    @property
    def commitment(self) -> bytes:
        """Stands in the header in clear."""
        return self.drawn[0:32]

    @property
    def header_tag(self) -> bytes:
        return self.drawn[32:64]

    @property
    def xattr(self) -> AESGCM:
        return AESGCM(self.drawn[160:192])
