"""How a command ends when it cannot do what was asked: one sentence on stderr and a published exit code."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from fsdriver.commands.shown import shown
from fsdriver.content.keyfile import KeyFileError
from fsdriver.errors import ChunkForged, FileDamaged, FormatUnknown, FsError, HeaderDamaged
from fsdriver.exitcodes import ExitCode


class CommandFailed(click.ClickException):
    """Ends the command with `code` after printing "Error: message"."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.exit_code = int(code)  # type: ignore[misc]  # click declares it per class, and reads it per instance


@contextmanager
def reported(path: str) -> Iterator[None]:
    """Turns what goes wrong with the sealed file at `path` into a CommandFailed."""
    try:
        yield
    except (HeaderDamaged, ChunkForged, FileDamaged) as exc:
        raise CommandFailed(f"{shown(path)}: {exc}", ExitCode.VERIFICATION_FAILED) from exc
    except FormatUnknown as exc:
        raise CommandFailed(f"{shown(path)}: {exc}") from exc
    except FsError as exc:
        raise CommandFailed(f"{shown(path)}: {exc}", ExitCode.DENIED) from exc
    except KeyFileError as exc:
        raise CommandFailed(str(exc), ExitCode.USAGE) from exc
    except FileNotFoundError as exc:
        raise CommandFailed(f"{shown(exc.filename or path)}: no such file", ExitCode.NOT_FOUND) from exc
    except FileExistsError as exc:
        raise CommandFailed(f"{shown(exc.filename or path)} exists already", ExitCode.CONFLICT) from exc
    except PermissionError as exc:
        raise CommandFailed(f"{shown(exc.filename or path)}: permission denied", ExitCode.DENIED) from exc
    except OSError as exc:
        raise CommandFailed(f"{shown(exc.filename or path)}: {exc.strerror or exc}") from exc
