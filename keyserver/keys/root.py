"""The root key: made once, kept in the secret store, and what every other secret of the server is wrapped under.

Wrapping is AES-256-GCM with a random nonce. The associated data says what is wrapped, for whom, and as what, so no
wrapped key can take another's place.
"""

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyserver.errors import NotReady
from keyserver.sealing import SecretKey
from keyserver.secret_store import SecretStore, SecretStoreError

SERVICE = "keyserver"
_NONCE = 12
_SUITE = b"\x01"


class WrapBroken(NotReady):
    """A wrapped key does not open: another root key's, damaged, or moved from another place."""


class RootKey:
    """Wraps and unwraps. Holds no key that could be read from it."""

    def __init__(self, key: SecretKey, company: str) -> None:
        self._cipher = AESGCM(bytes(key))
        self._company = company

    def wrap(self, plain: bytes, purpose: str) -> bytes:
        """`purpose` names what is wrapped, e.g. "label-key <label> <key id> 3"."""
        nonce = os.urandom(_NONCE)
        return _SUITE + nonce + self._cipher.encrypt(nonce, plain, self._context(purpose))

    def unwrap(self, wrapped: bytes, purpose: str) -> bytes:
        """Raises `WrapBroken`."""
        if wrapped[:1] != _SUITE:
            raise WrapBroken(f"{purpose} is wrapped in a way this version does not know")
        nonce, sealed = wrapped[1 : 1 + _NONCE], wrapped[1 + _NONCE :]
        try:
            return self._cipher.decrypt(nonce, sealed, self._context(purpose))
        except (InvalidTag, ValueError):
            raise WrapBroken(f"{purpose} does not open under this root key") from None

    def _context(self, purpose: str) -> bytes:
        return f"grantfs-root-v1\n{self._company}\n{purpose}".encode()

    def __repr__(self) -> str:
        return "<RootKey>"


def create_root_key(store: SecretStore, company: str) -> RootKey:
    """Makes a root key and keeps it. Raises `NotReady` when the store refuses it, or holds one for this company."""
    name = _name(company)
    key = SecretKey.generate("root")
    try:
        if store.get(name) is not None:
            raise NotReady(f"the secret store already holds {name}: it is never replaced")
        store.set(name, base64.b64encode(bytes(key)).decode())
    except SecretStoreError as exc:
        raise NotReady(f"the root key cannot be kept: {exc}") from None
    return RootKey(key, company)


def load_root_key(store: SecretStore, company: str) -> RootKey:
    """Raises `NotReady`: the server stays sealed without it."""
    try:
        key = SecretKey(base64.b64decode(store.require(_name(company)), validate=True), "root")
    except (SecretStoreError, binascii.Error) as exc:
        raise NotReady(f"the root key cannot be read: {exc}") from None
    return RootKey(key, company)


def _name(company: str) -> str:
    return f"root-key.{company}"
