"""Wrap slots: the file key, sealed under a label key, inside the header (docs/format.md 3.2).

A slot is bound to its file, company, label, key id and version: moved to another file, or under another label, it does
not open. The key server wraps and unwraps with the same layout where a label's keys never leave it.
"""

import os
import struct
from enum import IntEnum
from typing import NamedTuple, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fsdriver.content.keys import KEY_SIZE, FileKey
from fsdriver.content.offsets import NONCE_SIZE, TAG_SIZE, WRAP_SLOT_SIZE
from fsdriver.errors import HeaderDamaged

_FIELDS = struct.Struct(">HHI16s40x")
_RESERVED_AT = 24
_EMPTY = bytes(WRAP_SLOT_SIZE)
_CONTEXT = b"grantfs-wrap-v1"
_VERSION = struct.Struct(">I")
WRAPPED_SIZE = NONCE_SIZE + KEY_SIZE + TAG_SIZE
WRAPPED_MAX = WRAP_SLOT_SIZE - _FIELDS.size


class WrapAlgorithm(IntEnum):
    """How a slot's `wrapped` bytes were made. A reader skips slots whose algorithm it does not know."""

    EMPTY = 0
    LABEL_KEY = 1
    """AES-256-GCM under a version of the label's key: nonce 12, ciphertext 32, tag 16."""
    PUBLIC_KEY = 2
    """HPKE (ML-KEM-768 + X25519) to the label's public key; the header is signed by the machine."""


class WrapSlot(NamedTuple):
    """One wrapped file key. `key_id` (16 bytes) and `version` name the key that opens it."""

    algorithm: int
    key_id: bytes
    version: int
    wrapped: bytes

    def encode(self) -> bytes:
        """WRAP_SLOT_SIZE bytes."""
        fields = _FIELDS.pack(self.algorithm, len(self.wrapped), self.version, self.key_id)
        return (fields + self.wrapped).ljust(WRAP_SLOT_SIZE, b"\0")

    @classmethod
    def parse(cls, data: bytes) -> Self | None:
        """The slot in WRAP_SLOT_SIZE bytes, None for an empty one. Raises HeaderDamaged."""
        if data == _EMPTY:
            return None
        algorithm, length, version, key_id = _FIELDS.unpack_from(data)
        if algorithm == WrapAlgorithm.EMPTY:
            raise HeaderDamaged("an empty wrap slot holds something")
        end = _FIELDS.size + length
        reserved, padding = data[_RESERVED_AT : _FIELDS.size], data[end:]
        if not 0 < length <= WRAPPED_MAX or reserved != _EMPTY[: len(reserved)] or padding != _EMPTY[: len(padding)]:
            raise HeaderDamaged("a wrap slot is malformed")
        return cls(algorithm, key_id, version, data[_FIELDS.size : end])

    @classmethod
    def mend(cls, data: bytes) -> bytes:
        """Of a malformed slot, one that parses: without what is behind a key wrapped under a label key, or empty."""
        rest = data[_FIELDS.size : _FIELDS.size + WRAPPED_SIZE]
        mended = (data[:_RESERVED_AT].ljust(_FIELDS.size, b"\0") + rest).ljust(WRAP_SLOT_SIZE, b"\0")
        try:
            cls.parse(mended)
        except HeaderDamaged:
            return _EMPTY
        return mended


def wrap_context(file_id: bytes, company: bytes, label: bytes, key_id: bytes, version: int) -> bytes:
    """Associated data of a wrapped file key; the ids are 16 bytes each."""
    return _CONTEXT + file_id + company + label + key_id + _VERSION.pack(version)


def wrap(
    file_key: FileKey, label_key: bytes, *, file_id: bytes, company: bytes, label: bytes, key_id: bytes, version: int
) -> WrapSlot:
    """`file_key` sealed under `label_key` (32 bytes)."""
    nonce = os.urandom(NONCE_SIZE)
    context = wrap_context(file_id, company, label, key_id, version)
    sealed = AESGCM(label_key).encrypt(nonce, file_key.secret, context)
    return WrapSlot(WrapAlgorithm.LABEL_KEY, key_id, version, nonce + sealed)


def unwrap(slot: WrapSlot, label_key: bytes, *, file_id: bytes, company: bytes, label: bytes) -> FileKey:
    """The file key in `slot`. Raises HeaderDamaged when it does not open with this key for this file and label."""
    if slot.algorithm != WrapAlgorithm.LABEL_KEY or len(slot.wrapped) != WRAPPED_SIZE:
        raise HeaderDamaged("the file key is not wrapped under a label key")
    context = wrap_context(file_id, company, label, slot.key_id, slot.version)
    try:
        secret = AESGCM(label_key).decrypt(slot.wrapped[:NONCE_SIZE], slot.wrapped[NONCE_SIZE:], context)
    except InvalidTag:
        raise HeaderDamaged("the wrapped file key does not open: other key, other file or edited header") from None
    return FileKey(secret)
