"""Our two `keyring` backends: a file sealed with a passphrase, and systemd-creds. Opened through `secret_store`.

Both raise RuntimeError as their priority, so `keyring` never picks them, or anything through them, by itself; and both
ignore KEYRING_PROPERTY_* variables, which could otherwise point them elsewhere.
"""

import fcntl
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from keyring.backend import KeyringBackend
from keyring.compat import properties
from keyring.errors import KeyringError, PasswordDeleteError

from keyserver.atomic_file import replace_file

__all__ = ["SealedFileKeyring", "SystemdCredsKeyring"]


class _NamedOnly(KeyringBackend):
    @properties.classproperty
    def priority(cls) -> NoReturn:
        raise RuntimeError("used only where a config names it")

    def __init__(self) -> None:
        """Takes nothing from the environment, unlike the base's."""


class _Derivation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Argon2id parameters; the defaults are RFC 9106's second recommendation (64 MiB, 3 passes, 4 lanes)."""

    salt: bytes
    memory_kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 4

    def key(self, passphrase: str) -> AESGCM:
        # A tampered file must not make us allocate the machine's memory.
        if not (len(self.salt) >= 16 and 8 * self.lanes <= self.memory_kib <= 1 << 20 and 1 <= self.passes <= 64):
            raise KeyringError("the secret file asks for Argon2id parameters that make no sense")
        kdf = Argon2id(salt=self.salt, length=32, iterations=self.passes, lanes=self.lanes, memory_cost=self.memory_kib)
        return AESGCM(kdf.derive(passphrase.encode()))


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nonce: bytes
    sealed: bytes


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    derivation: _Derivation
    check: _Entry
    """The empty text sealed under the key: a wrong passphrase is noticed before anything is written with it."""
    entries: dict[str, _Entry]
    """"service/name" to sealed text."""


class SealedFileKeyring(_NamedOnly):
    """One 0600 JSON file; each entry AES-256-GCM under Argon2id of the passphrase, bound to its service and name.

    `passphrase` is called at most once. Processes exclude each other with a lock file while they write.
    """

    def __init__(self, path: Path, passphrase: Callable[[], str]) -> None:
        super().__init__()
        self._path = path
        self._passphrase = passphrase
        self._known: tuple[_Derivation, AESGCM] | None = None

    def get_password(self, service: str, username: str) -> str | None:
        content = self._read()
        entry = content and content.entries.get(_entry_name(service, username))
        if not content or not entry:
            return None
        return _open(self._unlocked(content), entry, _entry_name(service, username)).decode()

    def set_password(self, service: str, username: str, password: str) -> None:
        name = _entry_name(service, username)
        with self._writing():
            content = self._read() or self._new()
            entry = _seal(self._unlocked(content), password.encode(), name)
            self._write(msgspec.structs.replace(content, entries={**content.entries, name: entry}))

    def delete_password(self, service: str, username: str) -> None:
        name = _entry_name(service, username)
        with self._writing():
            content = self._read()
            if not content or name not in content.entries:
                raise PasswordDeleteError(f"no secret called {username!r}")
            self._unlocked(content)
            self._write(
                msgspec.structs.replace(content, entries={k: v for k, v in content.entries.items() if k != name})
            )

    def _new(self) -> _Content:
        derivation = _Derivation(salt=secrets.token_bytes(16))
        self._known = (derivation, derivation.key(self._ask()))
        return _Content(1, derivation, _seal(self._known[1], b"", "check"), {})

    def _ask(self) -> str:
        passphrase = self._passphrase()
        # A descriptor can be read once; the passphrase is kept so that a file made anew still opens.
        self._passphrase = lambda: passphrase
        return passphrase

    def _unlocked(self, content: _Content) -> AESGCM:
        if not self._known or self._known[0] != content.derivation:
            key = content.derivation.key(self._ask())
            try:
                _open(key, content.check, "check")
            except KeyringError:
                raise KeyringError(f"wrong passphrase for {self._path}, or the file is damaged") from None
            self._known = (content.derivation, key)
        return self._known[1]

    def _read(self) -> _Content | None:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as stream:
            facts = os.fstat(fd)
            if facts.st_mode & 0o077 or facts.st_uid not in (0, os.geteuid()):
                raise KeyringError(f"{self._path} must belong to this user with mode 0600")
            data = stream.read()
        try:
            content = msgspec.json.decode(data, type=_Content)
        except msgspec.DecodeError as exc:
            raise KeyringError(f"{self._path} is damaged: {exc}") from exc
        if content.format != 1:
            raise KeyringError(f"{self._path} has format {content.format}; this program knows 1")
        return content

    def _write(self, content: _Content) -> None:
        replace_file(self._path, msgspec.json.encode(content))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        lock = os.open(self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _entry_name(service: str, username: str) -> str:
    return f"{service}/{username}"


def _seal(key: AESGCM, value: bytes, name: str) -> _Entry:
    nonce = secrets.token_bytes(12)
    return _Entry(nonce, key.encrypt(nonce, value, f"grantfs-secret-v1 {name}".encode()))


def _open(key: AESGCM, entry: _Entry, name: str) -> bytes:
    try:
        return key.decrypt(entry.nonce, entry.sealed, f"grantfs-secret-v1 {name}".encode())
    except (InvalidTag, ValueError) as exc:
        raise KeyringError(f"the secret {name!r} does not open: damaged, or moved from another place") from exc


class SystemdCredsKeyring(_NamedOnly):
    """One file an entry, encrypted by systemd-creds to this machine (TPM 2 and host key, whichever it has). Root only.

    The secret goes to the program over stdin, never into argv or the environment.
    """

    DEADLINE = 30.0

    def __init__(self, directory: Path) -> None:
        super().__init__()
        program = shutil.which("systemd-creds", path="/usr/bin:/bin:/usr/sbin:/sbin")
        if program is None:
            raise KeyringError("there is no systemd-creds on this machine (systemd 250 or later)")
        if os.geteuid() != 0:
            raise KeyringError("systemd-creds needs root; as a plain user use secret-service or sealed-file")
        self._program = program
        self._directory = directory

    def get_password(self, service: str, username: str) -> str | None:
        path = self._path(service, username)
        try:
            encrypted = path.read_bytes()
        except FileNotFoundError:
            return None
        return self._run("decrypt", path.stem, encrypted).decode()

    def set_password(self, service: str, username: str, password: str) -> None:
        path = self._path(service, username)
        encrypted = self._run("encrypt", path.stem, password.encode())
        self._directory.mkdir(mode=0o700, exist_ok=True)
        replace_file(path, encrypted)

    def delete_password(self, service: str, username: str) -> None:
        try:
            self._path(service, username).unlink()
        except FileNotFoundError:
            raise PasswordDeleteError(f"no secret called {username!r}") from None

    def _path(self, service: str, username: str) -> Path:
        name = f"grantfs.{service}.{username}"
        if not re.fullmatch(r"[a-z0-9._-]{1,200}", name):
            raise KeyringError(f"{name!r} cannot be the name of a credential")
        return self._directory / f"{name}.cred"

    def _run(self, verb: str, name: str, data: bytes) -> bytes:
        try:
            done = subprocess.run(
                [self._program, verb, f"--name={name}", "-", "-"],
                input=data,
                capture_output=True,
                timeout=self.DEADLINE,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise KeyringError(f"systemd-creds {verb} did not answer within {self.DEADLINE:g} s") from None
        if done.returncode != 0:
            raise KeyringError(f"systemd-creds {verb} failed: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout
