"""`fsdriver salvage`: what is left of a damaged sealed file. Needs a key, and neither drive nor server."""

import json
import os
import sys
from contextlib import closing
from pathlib import Path

import click

from fsdriver.commands.failure import CommandFailed, reported
from fsdriver.commands.newfile import about, new_file
from fsdriver.commands.shown import ranges_shown, shown
from fsdriver.commands.unseal import open_regular
from fsdriver.content.backing import write_all
from fsdriver.content.keyfile import KeyFile
from fsdriver.content.salvaging import Salvage
from fsdriver.exitcodes import ExitCode

_SHOWN = 100
"""Lost ranges that are listed for people."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key-file", required=True, type=click.Path(path_type=Path), help="JSON file with label or file keys.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The new file to write to.")
@click.option("--report", type=click.Choice(["json"]), help="Also say on standard output what was lost.")
@click.pass_context
def salvage(context: click.Context, file: Path, key_file: Path, output: Path, report: str | None) -> None:
    """Save what verifies of the damaged sealed FILE; what does not becomes zeros, and is listed.

    Ends with 0 only if the whole content is there: nothing was lost, and all of it is of one commit, the last. Damage
    to the header alone, or bytes behind the end, are said and cost nothing. Ends with 7 if bytes are lost, or if it is
    not certain that the pieces belong together: each is what the drive once wrote there, at different times perhaps.
    If nothing of the content verifies, no output is made, which also ends with 7. All other codes mean that it was not
    tried or could not be finished; no output is made then.
    """
    with reported(str(file)):
        keys = KeyFile.load(key_file)
        fd = open_regular(file)
        try:
            found = Salvage(fd, keys.unlock)
            with new_file(output) as out:
                _write(found, out, output)
                if found.size and not found.saved:
                    raise CommandFailed(f"{shown(file)}: no chunk of it verifies; nothing was written", _DAMAGED)
        finally:
            os.close(fd)
    for line in _lines(found):
        click.echo(shown(f"{file}: {line}"), err=True)
    if report == "json":
        click.echo(json.dumps(_facts(found), indent=2))
    if not found.together:
        context.exit(_DAMAGED)


_DAMAGED = ExitCode.VERIFICATION_FAILED


def _write(found: Salvage, out: int, output: Path) -> None:
    with about(output):
        os.ftruncate(out, found.size)
    bar = click.progressbar(length=found.size, label="salvage", file=sys.stderr, hidden=not sys.stderr.isatty())
    with bar, closing(found.pieces()) as pieces:
        for piece in pieces:
            if piece.data is not None:
                with about(output):
                    write_all(out, piece.data, piece.start)
            bar.update(piece.end - piece.start)


def _lines(found: Salvage) -> list[str]:
    lines = list(found.notes)
    lines += [f"lost: {line}" for line in ranges_shown(found.lost, _SHOWN)]
    lines += [f"newer than the last commit: {line}" for line in ranges_shown(found.newer, _SHOWN)]
    if max(len(found.lost), len(found.newer)) > _SHOWN:
        lines.append("--report json has all ranges")
    if not found.together:
        lines.append(f"{found.saved} of {found.size} bytes saved: each piece verifies, but perhaps not all together")
    return lines


def _facts(found: Salvage) -> dict[str, object]:
    return {
        "size": found.size,
        "saved": found.saved,
        "lost": found.lost,
        "newer": found.newer,
        "together": found.together,
        "generation": found.commit.generation if found.commit else None,
        "notes": found.notes,
    }
