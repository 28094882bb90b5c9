"""What this machine remembers of the key server's log: its newest checkpoint, which later ones must not contradict.

A log that became shorter, or has another root at the same size, was changed or put back. Checkpoints are C2SP
tlog-checkpoints in C2SP signed notes, signed with the Ed25519 key that enrolment named.
"""

import base64
import binascii
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["Checkpoint", "LogContradicted", "follow"]

_ED25519 = b"\x01"


class LogContradicted(Exception):
    """The checkpoint is not one of this company's log, or does not continue the one remembered."""


class Checkpoint(NamedTuple):
    """A signed checkpoint, verified."""

    size: int
    root: bytes
    note: str

    @classmethod
    def parse(cls, note: str, *, company: str, key: bytes) -> "Checkpoint":
        """Raises LogContradicted unless `note` is signed by the log's key."""
        text, found, signatures = note.partition("\n\n")
        lines = text.split("\n")
        origin = f"grantfs.invalid/log/{company}"
        if not found or len(lines) != 3 or lines[0] != origin:
            raise LogContradicted("not a checkpoint of this company's log")
        hint = sha256(origin.encode() + b"\n" + _ED25519 + key).digest()[:4]
        prefix = f"— {origin} "
        try:
            ours = (line[len(prefix) :] for line in signatures.splitlines() if line.startswith(prefix))
            signed = [base64.b64decode(each, validate=True) for each in ours]
            signature = next(each[4:] for each in signed if each[:4] == hint)
            Ed25519PublicKey.from_public_bytes(key).verify(signature, f"{text}\n".encode())
            return cls(int(lines[1]), base64.b64decode(lines[2], validate=True), note)
        except (StopIteration, InvalidSignature, ValueError, binascii.Error):
            raise LogContradicted("the checkpoint is not signed by this company's log") from None


def follow(remembered: Checkpoint | None, offered: Checkpoint) -> Checkpoint:
    """The checkpoint to remember from now on. Raises LogContradicted."""
    if remembered is not None:
        if offered.size < remembered.size:
            raise LogContradicted(f"the log has {offered.size} records, and had {remembered.size}")
        if offered.size == remembered.size and offered.root != remembered.root:
            raise LogContradicted(f"the log's first {offered.size} records are not those they were")
    return offered
