"""`fsdriver`: the only code that reads argv or exits."""

import logging
import os
import sys
from pathlib import Path

import click

from fsdriver.commands.accept import accept
from fsdriver.commands.demo import demo
from fsdriver.commands.enroll import enroll
from fsdriver.commands.export import export
from fsdriver.commands.fsck import fsck
from fsdriver.commands.home import default_home
from fsdriver.commands.importing import import_
from fsdriver.commands.info import info
from fsdriver.commands.mount import mount, umount
from fsdriver.commands.salvage import salvage
from fsdriver.commands.status import status
from fsdriver.commands.unseal import unseal
from fsdriver.commands.why import why


@click.group()
@click.option(
    "--home",
    envvar="FSDRIVER_HOME",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that holds this machine's state.",
)
@click.version_option(package_name="grantfs")
@click.pass_context
def cli(context: click.Context, home: Path | None) -> None:
    """The GrantFS drive."""
    logging.basicConfig(
        level=os.environ.get("FSDRIVER_LOG", "WARNING").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    context.obj = (home or default_home()).absolute()


for command in (enroll, mount, umount, status, why, info, import_, export, accept, unseal, fsck, salvage, demo):
    cli.add_command(command)


def main() -> None:
    """Entry point of the `fsdriver` command."""
    sys.exit(cli(prog_name="fsdriver"))
