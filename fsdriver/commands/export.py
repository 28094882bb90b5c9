"""`fsdriver export`: take plaintext out of the drive, for who may have it with any program. Each file is recorded."""

import os
import sys
from pathlib import Path

import click

from fsdriver.commands.failure import CommandFailed
from fsdriver.commands.home import home_of
from fsdriver.control import ControlError, ask_for_bytes
from fsdriver.exitcodes import ExitCode


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path, allow_dash=True))
@click.pass_context
def export(context: click.Context, source: Path, target: Path) -> None:
    """Write the plaintext of SOURCE, a file or folder of the drive, to TARGET outside it ("-": standard output).

    Needs a rule that gives you plaintext with any program.
    """
    home = home_of(context).path
    source = source.absolute()
    try:
        if not source.is_dir():
            _export_file(home, source, target)
            return
        if str(target) == "-":
            raise CommandFailed("a folder cannot go to standard output", ExitCode.USAGE)
        for top, folders, names in os.walk(source):
            folders.sort()
            into = target / Path(top).relative_to(source)
            into.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in sorted(names):
                if not (Path(top) / name).is_symlink():
                    _export_file(home, Path(top) / name, into / name)
    except ControlError as exc:
        raise CommandFailed(str(exc), exc.code) from exc
    except FileExistsError as exc:
        raise CommandFailed(f"{exc.filename} exists already", ExitCode.CONFLICT) from exc
    except OSError as exc:
        raise CommandFailed(str(exc)) from exc


def _export_file(home: Path, source: Path, target: Path) -> None:
    """A target that could not be written whole is removed again."""
    blocks = ask_for_bytes(home, "export", file=str(source), to=str(target))
    if str(target) == "-":
        for block in blocks:
            sys.stdout.buffer.write(block)
        return
    first = next(blocks, b"")  # refused before the target is made
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as out:
            out.write(first)
            for block in blocks:
                out.write(block)
    except BaseException:
        target.unlink()
        raise
