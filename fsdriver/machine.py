"""A machine's home (`--home DIR`): what it was enrolled as, and what it keeps between two starts.

    config.json      settings, typed; an unknown key is refused
    machine.pem      this machine's certificate; the private keys are in the secret store, never here
    authority.pem    the company's authority, pinned when the machine joined
    last-sync.json   newest signed bundle, login mapping and server time, for a start without the server
    spool/           records the key server does not have yet

The directory is 0700 and its owner's. Leases are never written anywhere.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from keyserver.atomic_file import replace_file
from keyserver.messages import Mode, SignedBundle
from keyserver.sealing import SealingError, SealingKey
from keyserver.secret_store import SecretSettings, SecretStore, SecretStoreError, open_store

__all__ = ["Identity", "LastSync", "MachineConfig", "MachineError", "MachineHome"]

Content = TypeVar("Content", bound=msgspec.Struct)

SERVICE = "fsdriver"
MACHINE_KEY = "machine-key"
SEALING_KEY = "sealing-key"


class MachineError(Exception):
    """The home cannot be used; the message says what to do."""


class MachineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """config.json. Ids are lower-case hex, paths absolute."""

    company: str
    company_name: str
    machine: str
    name: str
    agent_url: str
    admin_url: str
    store: str
    drive: str
    mode: Mode
    secrets: SecretSettings
    bundle_key: bytes
    """Ed25519 public key that signs bundles."""
    log_key: bytes
    """Ed25519 public key that signs the log's checkpoints."""
    exec: bool = False
    """Programs may be run from the drive."""
    note: str = ""
    """What `fsdriver status` reminds people of."""


class LastSync(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the newest good sync said, but for the keys."""

    bundle: SignedBundle
    logins: dict[str, str]
    now: float
    checkpoint: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this machine is to the key server. The keys were made here and leave only into the secret store."""

    company: str
    machine: str
    key: EllipticCurvePrivateKey
    """P-256: TLS, renewals and receipts."""
    sealing_key: SealingKey
    """Leases and grants are sealed to it."""
    certificate: str
    authority: str


class MachineHome:
    """One home directory, open for use."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new home, or an empty one that is there. Raises MachineError when it is already a machine's."""
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise MachineError(f"cannot make {path}: {exc.strerror}") from exc
        home = cls(path)
        home._check_directory()
        if (path / "config.json").exists():
            raise MachineError(f"{path} is already the home of an enrolled machine; give another --home")
        return home

    @classmethod
    def open(cls, path: Path) -> Self:
        """The home of an enrolled machine. Raises MachineError."""
        home = cls(path)
        home._check_directory()
        home.config()
        return home

    def _check_directory(self) -> None:
        try:
            facts = self.path.lstat()
        except FileNotFoundError:
            raise MachineError(f"{self.path} does not exist: run `fsdriver enroll` first") from None
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise MachineError(f"{self.path} must be a directory of this user with mode 0700")

    # ---- what is in it -------------------------------------------------------------------------------------------

    def config(self) -> MachineConfig:
        """config.json as it is now. Raises MachineError naming the field that is wrong."""
        return self._read("config.json", MachineConfig, "run `fsdriver enroll` first")

    def write_config(self, config: MachineConfig) -> None:
        self._write("config.json", msgspec.json.format(msgspec.json.encode(config)))

    def last_sync(self) -> LastSync | None:
        """None before the first good sync, or when the file was damaged: then the server is asked."""
        try:
            return self._read("last-sync.json", LastSync, "")
        except MachineError:
            return None

    def write_last_sync(self, last: LastSync) -> None:
        self._write("last-sync.json", msgspec.json.encode(last))

    def write_certificate(self, certificate: str) -> None:
        self._write("machine.pem", certificate.encode())

    def write_authority(self, authority: str) -> None:
        self._write("authority.pem", authority.encode())

    @property
    def spool(self) -> Path:
        """The audit spool's directory."""
        return self.path / "spool"

    @property
    def states(self) -> Path:
        """What this machine left of each file of its store: a database of the drive's."""
        return self.path / "states.db"

    def secrets(self, settings: SecretSettings) -> SecretStore:
        """The secret store of this home. Raises MachineError when it does not work here."""
        try:
            return open_store(settings, home=self.path, service=SERVICE)
        except SecretStoreError as exc:
            raise MachineError(str(exc)) from exc

    def identity(self) -> Identity:
        """Keys and certificates. Asks the secret store, which may ask for a passphrase. Raises MachineError."""
        config = self.config()
        try:
            store = self.secrets(config.secrets)
            key = load_pem_private_key(store.require(MACHINE_KEY).encode(), None)
            sealing_key = SealingKey.from_private_bytes(bytes.fromhex(store.require(SEALING_KEY)))
        except (SecretStoreError, SealingError, ValueError) as exc:
            raise MachineError(f"the machine's keys cannot be read: {exc}") from exc
        if not isinstance(key, EllipticCurvePrivateKey):
            raise MachineError("the machine's key is not an elliptic-curve key")
        certificate, authority = self._text("machine.pem"), self._text("authority.pem")
        return Identity(config.company, config.machine, key, sealing_key, certificate, authority)

    def _text(self, name: str) -> str:
        try:
            return (self.path / name).read_text()
        except (OSError, UnicodeDecodeError) as exc:
            raise MachineError(f"{self.path / name} cannot be read: {exc}") from exc

    def _read(self, name: str, kind: type[Content], hint: str) -> Content:
        try:
            return msgspec.json.decode((self.path / name).read_bytes(), type=kind)
        except FileNotFoundError:
            raise MachineError(f"{self.path} has no {name}: {hint}") from None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise MachineError(f"{self.path / name}: {exc}") from exc

    def _write(self, name: str, data: bytes) -> None:
        replace_file(self.path / name, data)
