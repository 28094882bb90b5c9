"""Keys of single files: wrapped under a label's key, in the form a sealed file's wrap slot holds (docs/format.md 3.2).

The same bytes as `fsdriver.content.wraps`; a test compares the two.
"""

import os
import struct
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyserver.errors import Denied, Malformed
from keyserver.sealing import SecretKey

_CONTEXT = b"grantfs-wrap-v1"
_VERSION = struct.Struct(">I")
_NONCE = 12
WRAPPED_SIZE = _NONCE + 32 + 16


class WrapPlace(NamedTuple):
    """What a wrapped file key is bound to. Ids are 32 hex digits."""

    file: str
    company: str
    label: str
    key_id: str
    version: int

    def context(self) -> bytes:
        """The associated data. Raises `Malformed` for an id that is none."""
        try:
            ids = [bytes.fromhex(each) for each in self[:4]]
        except ValueError:
            raise Malformed("an id is not hexadecimal") from None
        if any(len(each) != 16 for each in ids) or not 0 < self.version < 2**32:
            raise Malformed("an id is not 16 bytes, or the version is out of range")
        return _CONTEXT + b"".join(ids) + _VERSION.pack(self.version)


def wrap(file_key: SecretKey, label_key: SecretKey, place: WrapPlace) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(bytes(label_key)).encrypt(nonce, bytes(file_key), place.context())


def unwrap(wrapped: bytes, label_key: SecretKey, place: WrapPlace) -> SecretKey:
    """Raises `Denied`: another file's, label's or company's key, or an edited header."""
    if len(wrapped) != WRAPPED_SIZE:
        raise Malformed(f"a wrapped file key has {WRAPPED_SIZE} bytes")
    try:
        plain = AESGCM(bytes(label_key)).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], place.context())
    except InvalidTag:
        raise Denied("the file key does not open: it belongs to another file or label, or was changed") from None
    return SecretKey(plain, f"file {place.file}")
