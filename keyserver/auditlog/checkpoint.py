"""Checkpoints: the tree's size and root, signed, as C2SP tlog-checkpoint in a C2SP signed note (Ed25519, type 1)."""

import base64
import binascii
import re
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ED25519 = b"\x01"
_NOTE = re.compile(
    r"(?P<text>(?P<origin>[^\n]+)\n(?P<size>0|[1-9]\d*)\n(?P<root>[A-Za-z0-9+/=]+)\n)\n(?P<signatures>(?:— [^\n]+\n)+)"
)


class CheckpointInvalid(Exception):
    """A checkpoint is malformed, of another log, or not signed by the log's key."""


class Checkpoint(NamedTuple):
    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def origin(company: str) -> str:
    """Names the log; also the name of the key that signs it."""
    return f"grantfs.invalid/log/{company}"


def key_id(name: str, public_key: bytes) -> bytes:
    """Four bytes that tell keys of one name apart (C2SP signed-note)."""
    return sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:4]


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """The signed note."""
    text = checkpoint.text()
    identity = key_id(checkpoint.origin, key.public_key().public_bytes_raw())
    signature = base64.b64encode(identity + key.sign(text.encode())).decode()
    return f"{text}\n— {checkpoint.origin} {signature}\n"


def verify(note: str, company: str, public_key: bytes) -> Checkpoint:
    """The checkpoint in `note`, signed by the log's key. Other signatures (witnesses') are left to who knows them.

    Raises `CheckpointInvalid`.
    """
    match = _NOTE.fullmatch(note)
    if match is None:
        raise CheckpointInvalid("not a checkpoint")
    name = origin(company)
    if match["origin"] != name:
        raise CheckpointInvalid(f"a checkpoint of {match['origin']}, not of {name}")
    try:
        checkpoint = Checkpoint(name, int(match["size"]), base64.b64decode(match["root"], validate=True))
    except binascii.Error:
        raise CheckpointInvalid("its root is not base64") from None
    if len(checkpoint.root) != 32 or checkpoint.text() != match["text"]:
        raise CheckpointInvalid("its root is not 32 bytes")
    identity = key_id(name, public_key)
    for line in match["signatures"].splitlines():
        signer, _, encoded = line.removeprefix("— ").rpartition(" ")
        try:
            signature = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise CheckpointInvalid("a signature is not base64") from None
        if signer == name and signature[:4] == identity:
            try:
                Ed25519PublicKey.from_public_bytes(public_key).verify(signature[4:], match["text"].encode())
            except InvalidSignature:
                raise CheckpointInvalid("its signature is not the log's") from None
            return checkpoint
    raise CheckpointInvalid("it carries no signature by the log's key")
