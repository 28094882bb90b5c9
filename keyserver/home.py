"""The folder that holds everything a key server keeps (`--home`): names, modes and the lock on it.

The folder is 0700 and every file in it 0600. Nothing in it opens anything by itself: the database holds keys only
wrapped under the root key, which lives in the secret store named in `config.json`.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from keyserver.errors import Conflict, NotReady
from keyserver.secret_store import SecretSettings


class HomeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`config.json`: what must be known before the database can be read."""

    company: str
    """Company id, 32 hex digits."""
    secrets: SecretSettings
    """The store that holds the root key."""


class Addresses(msgspec.Struct, frozen=True):
    """`addresses.json`: where the running server listens; written once both ports are open."""

    agent_url: str
    admin_url: str
    pid: int


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below one `--home`."""

    path: Path

    @property
    def database(self) -> Path:
        return self.path / "keyserver.db"

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def addresses_file(self) -> Path:
        return self.path / "addresses.json"

    @property
    def authority_file(self) -> Path:
        return self.path / "authority.pem"

    @property
    def log_key_file(self) -> Path:
        return self.path / "log-key.pub"

    @property
    def admin_token_file(self) -> Path:
        return self.path / "admin-token"

    @property
    def admin_password_file(self) -> Path:
        return self.path / "admin-password"

    def create(self) -> None:
        """Makes the folder, 0700. Raises `Conflict` where a server lives already, or the folder is not ours alone."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = self.path.stat()
        if facts.st_uid != os.geteuid():
            raise Conflict(f"{self.path} belongs to uid {facts.st_uid}: choose a folder of your own")
        if self.config_file.exists() or self.database.exists():
            raise Conflict(f"{self.path} already holds a key server: choose another folder")
        self.path.chmod(0o700)

    def config(self) -> HomeConfig:
        """Raises `NotReady` where `keyserver init` has not been run."""
        try:
            return msgspec.json.decode(self.config_file.read_bytes(), type=HomeConfig)
        except FileNotFoundError:
            raise NotReady(f"{self.path} holds no key server: run `keyserver --home {self.path} init`") from None
        except msgspec.MsgspecError as exc:
            raise NotReady(f"{self.config_file}: {exc}") from None

    def addresses(self) -> Addresses:
        """Raises `NotReady` when no server has announced itself."""
        try:
            return msgspec.json.decode(self.addresses_file.read_bytes(), type=Addresses)
        except (FileNotFoundError, msgspec.MsgspecError):
            raise NotReady(f"no server runs in {self.path}: start `keyserver --home {self.path} serve`") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process serves a home. Raises `Conflict` when another one does, `NotReady` where there is none."""
        self.config()
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise Conflict(f"another process serves {self.path}") from None
        finally:
            os.close(descriptor)
