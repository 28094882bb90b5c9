"""Where the passphrase of a sealed file comes from. Named in the config, never guessed, never on a command line."""

import getpass
import os
import stat
from pathlib import Path

__all__ = ["PassphraseUnavailable", "read_passphrase"]

MAX_SIZE = 4096


class PassphraseUnavailable(Exception):
    """No passphrase where the config says it comes from."""


def read_passphrase(source: str, home: Path) -> str:
    """The passphrase from `source`, without the line end it may have. A descriptor is read once and closed.

    - `fd:N`: file descriptor N, inherited;
    - `credential:NAME`: the file NAME in $CREDENTIALS_DIRECTORY (systemd LoadCredential=);
    - `file:/absolute/path`: a file of this user, mode 0600 or 0400, that lies outside `home`, so that a copy of the
      home is not a copy of the passphrase;
    - `prompt`: asked for on the terminal.

    Raises PassphraseUnavailable.
    """
    kind, _, where = source.partition(":")
    try:
        match kind:
            case "fd":
                with os.fdopen(int(where), "rb") as stream:
                    data = stream.read(MAX_SIZE + 1)
            case "credential":
                data = _read(_credential(where))
            case "file":
                data = _read_private(Path(where), home)
            case "prompt" if not where:
                data = getpass.getpass("Passphrase of the secret store: ").encode()
            case _:
                raise PassphraseUnavailable(
                    f"passphrase source {source!r} is not one of fd:N, credential:NAME, file:/path, prompt"
                )
    except (OSError, ValueError, EOFError) as exc:
        raise PassphraseUnavailable(f"no passphrase from {source!r}: {exc}") from exc
    if len(data) > MAX_SIZE:
        raise PassphraseUnavailable(f"the passphrase from {source!r} is longer than {MAX_SIZE} bytes")
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if not data:
        raise PassphraseUnavailable(f"the passphrase from {source!r} is empty")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise PassphraseUnavailable(f"the passphrase from {source!r} is not UTF-8 text") from None


def _credential(name: str) -> Path:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise PassphraseUnavailable("no CREDENTIALS_DIRECTORY: start this through a systemd unit with LoadCredential=")
    if not name or "/" in name or name.startswith("."):
        raise PassphraseUnavailable(f"{name!r} is not the name of a credential")
    return Path(directory, name)


def _read(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(MAX_SIZE + 1)


def _read_private(path: Path, home: Path) -> bytes:
    if not path.is_absolute():
        raise PassphraseUnavailable(f"the passphrase file {str(path)!r} must be given by its absolute path")
    if path.resolve().is_relative_to(home.resolve()):
        raise PassphraseUnavailable(
            f"the passphrase file {path} lies inside {home}: move it out, or a copy opens itself"
        )
    with path.open("rb") as stream:
        facts = os.fstat(stream.fileno())
        if not stat.S_ISREG(facts.st_mode) or facts.st_mode & 0o077 or facts.st_uid not in (0, os.geteuid()):
            raise PassphraseUnavailable(f"{path} must be a regular file of this user with mode 0600")
        return stream.read(MAX_SIZE + 1)
