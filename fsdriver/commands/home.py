"""The home a command acts on: `--home`, else $FSDRIVER_HOME, else /var/lib/grantfs (root) or ~/.local/share/grantfs."""

import os
from pathlib import Path

import click

from fsdriver.commands.failure import CommandFailed
from fsdriver.exitcodes import ExitCode
from fsdriver.machine import MachineError, MachineHome


def default_home() -> Path:
    """Where this user's machine home is unless told."""
    return Path("/var/lib/grantfs") if os.geteuid() == 0 else Path.home() / ".local/share/grantfs"


def home_path(context: click.Context) -> Path:
    path: Path = context.obj
    return path


def home_of(context: click.Context) -> MachineHome:
    """The enrolled home of this command. Raises CommandFailed."""
    try:
        return MachineHome.open(home_path(context))
    except MachineError as exc:
        raise CommandFailed(str(exc), ExitCode.NOT_READY) from exc
