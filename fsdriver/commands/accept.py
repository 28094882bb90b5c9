"""`fsdriver accept`: an old copy, or a file that was changed behind the drive's back, is the one to go on from."""

import json
from pathlib import Path

import click

from fsdriver.commands.failure import CommandFailed
from fsdriver.commands.home import home_of
from fsdriver.control import ControlError, ask


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def accept(context: click.Context, path: Path, output: str) -> None:
    """Take what lies at PATH, a file or folder of the drive, as what this machine goes on from.

    After a restore from a backup: files under a label that says `rollback: refuse` read as an error until then. Needs
    the right to delete the files; each is recorded.
    """
    try:
        accepted = ask(home_of(context).path, "accept", file=str(path.absolute()))
    except ControlError as exc:
        raise CommandFailed(str(exc), exc.code) from exc
    if output == "json":
        click.echo(json.dumps({"accepted": accepted}, indent=2, ensure_ascii=False))
        return
    for one in accepted:
        click.echo(one)
    click.echo(f"{len(accepted)} accepted", err=True)
