"""Which policy bundles this machine believes: signed by its company's server, and never an older one."""

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keyserver.messages import SignedBundle
from policy import Bundle, PolicyError

__all__ = ["BundleRefused", "verified_bundle"]

CONTEXT = b"grantfs-bundle-v1\n"


class BundleRefused(Exception):
    """The bundle is not believed; the one held stays."""


def verified_bundle(signed: SignedBundle, *, key: bytes, company: str, held: int) -> Bundle:
    """The bundle in `signed`.

    `key` is the Ed25519 key from enrolment, `held` the number of the bundle held, 0 for none. Raises BundleRefused.
    """
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signed.signature, CONTEXT + signed.document)
    except (InvalidSignature, ValueError):
        raise BundleRefused(f"policy {signed.number} is not signed by this company's key server") from None
    try:
        bundle = Bundle.from_document(msgspec.json.decode(signed.document))
    except (PolicyError, msgspec.DecodeError) as exc:
        raise BundleRefused(f"policy {signed.number} is not one this program understands: {exc}") from exc
    if bundle.number != signed.number or bundle.company != company:
        raise BundleRefused(f"policy {signed.number} is signed as another number or for another company")
    if bundle.number < held:
        raise BundleRefused(f"the server offers policy {bundle.number}, older than {held}: was a backup restored?")
    return bundle
