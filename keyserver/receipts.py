"""Machines sign that they forgot the keys of leases that ended; the receipt goes into the log."""

import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keyserver.changes import Change
from keyserver.errors import Denied, Malformed
from keyserver.messages import Receipt

CONTEXT = b"grantfs-receipt-v1\n"
MAX_LEASES = 1000

_LEASE = re.compile(r"[0-9a-f]{1,64}")


def signed_text(leases: tuple[str, ...], at: float) -> bytes:
    """What the machine's TLS key signs (ECDSA with SHA-256)."""
    return CONTEXT + "\n".join(leases).encode() + b"\n" + repr(at).encode()


def check(receipt: Receipt, public_key: bytes) -> None:
    """Raises `Denied` unless the key of the connection's certificate (SubjectPublicKeyInfo, DER) signed it."""
    if not 0 < len(receipt.leases) <= MAX_LEASES:
        raise Malformed(f"a receipt names 1 to {MAX_LEASES} leases")
    if not all(map(_LEASE.fullmatch, receipt.leases)):
        raise Malformed("a lease's id is hexadecimal")
    key = load_der_public_key(public_key)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        key.verify(receipt.signature, signed_text(receipt.leases, receipt.at), ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise Denied("the receipt is not signed by this machine's key") from None


def keep(change: Change, machine: str, receipt: Receipt) -> None:
    """Into the log: which leases' keys are gone, and when the machine says it forgot them."""
    leases = ",".join(receipt.leases)
    detail = f"machine={machine} lease={leases} at={receipt.at!r} handles_refused={receipt.handles_refused}"
    change.record("forgotten", detail=detail)
