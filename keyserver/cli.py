"""`keyserver`: the only code that reads argv or exits."""

import sys
from pathlib import Path
from typing import Any

import click

from keyserver.commands.audit import audit
from keyserver.commands.nouns import key, label, lease, machine, policy, token, user
from keyserver.commands.server import init, serve
from keyserver.errors import KeyServerError
from keyserver.home import Home
from keyserver.secret_store import SecretStoreError
from policy import PolicyError


class _Guarded(click.Group):
    """Turns named failures into one line on stderr and their exit code."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyServerError as exc:
            click.echo(f"keyserver: {exc}", err=True)
            context.exit(exc.exit_code)
        except PolicyError as exc:
            click.echo(str(exc), err=True)
            context.exit(1)
        except SecretStoreError as exc:
            click.echo(f"keyserver: {exc}", err=True)
            context.exit(6)


@click.group(cls=_Guarded)
@click.option(
    "--home",
    required=True,
    envvar="KEYSERVER_HOME",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that holds the server's state.",
)
@click.version_option(package_name="grantfs")
@click.pass_context
def cli(context: click.Context, home: Path) -> None:
    """The GrantFS key server."""
    context.obj = Home(home.absolute())


for command in (init, serve, token, machine, user, policy, lease, label, key, audit):
    cli.add_command(command)


def main() -> None:
    """Entry point of the `keyserver` command."""
    sys.exit(cli(prog_name="keyserver"))
