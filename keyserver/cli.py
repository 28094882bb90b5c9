"""`keyserver`: the only code that reads argv or exits."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from keyserver.errors import KeyServerError
from keyserver.home import Home
from keyserver.secret_store import SecretStoreError
from policy import PolicyError

_COMMANDS = {
    "init": "server",
    "serve": "server",
    "token": "nouns",
    "machine": "nouns",
    "user": "nouns",
    "policy": "policies",
    "lease": "nouns",
    "label": "nouns",
    "key": "keys",
    "audit": "audit",
}
"""Command to the file in `commands/` that has it; imported when it is asked for, which saves most half a second."""


class _Commands(click.Group):
    """Finds commands, and turns named failures into one line on stderr and their exit code."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command = getattr(import_module(f"keyserver.commands.{_COMMANDS[name]}"), name)
        assert isinstance(command, click.Command)
        return command

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


@click.group(cls=_Commands)
@click.option(
    "--home",
    envvar="KEYSERVER_HOME",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that holds the server's state; also $KEYSERVER_HOME.",
)
@click.version_option(package_name="grantfs")
@click.pass_context
def cli(context: click.Context, home: Path | None) -> None:
    """The GrantFS key server."""
    context.obj = Home(home.absolute()) if home is not None else None


def main() -> None:
    """Entry point of the `keyserver` command."""
    sys.exit(cli(prog_name="keyserver"))
