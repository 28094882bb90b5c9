"""Long-lived secrets at rest (root key, machine keys), through `keyring` with a backend named in the config.

Nothing is ever chosen silently: `keyring` on its own picks a plaintext file where keyrings.alt is installed, so its
own selection is never asked. Backends (decision D9):

- `sealed-file`: one 0600 file, entries AES-256-GCM under Argon2id of a passphrase (`passphrase.py`);
- `systemd-creds`: one file an entry, encrypted by systemd-creds to this machine's TPM or host key; root only;
- `secret-service`: the desktop's keyring, for plain-user mounts and the admin's CLI; never for root.

Values are text, as `keyring` has it. Their bytes never appear in a message or a repr.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import keyring.errors
from keyring.backend import KeyringBackend
from msgspec import Struct

from keyserver.passphrase import PassphraseUnavailable, read_passphrase

__all__ = ["SecretSettings", "SecretStore", "SecretStoreError", "open_store"]

BACKENDS = ("sealed-file", "systemd-creds", "secret-service")


class SecretStoreError(Exception):
    """The secret store cannot be opened, read or written; the message says what to do."""


class SecretSettings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The part of a config that says where secrets are kept."""

    backend: Literal["sealed-file", "systemd-creds", "secret-service"]
    passphrase: str = ""
    """Where sealed-file's passphrase comes from: `fd:3`, `credential:NAME`, `file:/absolute/path` or `prompt`."""


class SecretStore:
    """The secrets of one service ("fsdriver", "keyserver") in one named backend."""

    def __init__(self, backend: KeyringBackend, service: str) -> None:
        self._backend = backend
        self._service = service

    def get(self, name: str) -> str | None:
        """The secret called `name`, or None. Raises SecretStoreError when the store cannot be read."""
        with _as_store_error():
            return self._backend.get_password(self._service, name)

    def require(self, name: str) -> str:
        """The secret called `name`; raises SecretStoreError when there is none."""
        value = self.get(name)
        if value is None:
            raise SecretStoreError(f"the secret store has no {name!r}")
        return value

    def set(self, name: str, value: str) -> None:
        """Keeps `value`, durably, before it returns. Raises SecretStoreError, and then the old value is still there."""
        with _as_store_error():
            self._backend.set_password(self._service, name, value)

    def delete(self, name: str) -> None:
        """Forgets the secret; one that is not there is an error."""
        with _as_store_error():
            self._backend.delete_password(self._service, name)

    def __repr__(self) -> str:
        return f"<SecretStore {type(self._backend).__name__} {self._service}>"


@contextlib.contextmanager
def _as_store_error() -> Iterator[None]:
    try:
        yield
    except (keyring.errors.KeyringError, OSError, PassphraseUnavailable) as exc:
        raise SecretStoreError(str(exc) or type(exc).__name__) from exc


def open_store(settings: SecretSettings, *, home: Path, service: str) -> SecretStore:
    """The store that `settings` names, its files below `home`. The passphrase is asked for at first use.

    Raises SecretStoreError for an unknown backend, and for one that does not work here.
    """
    return SecretStore(_backend(settings, home), service)


def _backend(settings: SecretSettings, home: Path) -> KeyringBackend:
    # Imported here: each needs things (D-Bus, systemd) that the other two can do without.
    match settings.backend:
        case "sealed-file":
            from keyserver.secret_backends import SealedFileKeyring

            return SealedFileKeyring(home / "secrets.sealed", lambda: read_passphrase(settings.passphrase, home))
        case "systemd-creds":
            from keyserver.secret_backends import SystemdCredsKeyring

            return SystemdCredsKeyring(home / "secrets")
        case "secret-service":
            from keyring.backends import SecretService

            if os.geteuid() == 0:
                raise SecretStoreError("secret-service is for plain users; as root use sealed-file or systemd-creds")
            try:
                SecretService.Keyring.priority  # noqa: B018  # asking for it is how keyring checks for D-Bus
            except RuntimeError as exc:
                raise SecretStoreError(f"secret-service does not work here: {exc}") from exc
            return SecretService.Keyring()  # type: ignore[no-untyped-call]  # keyring's base class
    raise SecretStoreError(f"unknown secret backend {settings.backend!r}: name one of {', '.join(BACKENDS)}")
