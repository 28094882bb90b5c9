"""The home a command acts on: `--home`, else $KEYSERVER_HOME."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Concatenate, ParamSpec, TypeVar

import click

from keyserver.home import Home

P = ParamSpec("P")
R = TypeVar("R")


def pass_home(command: Callable[Concatenate[Home, P], R]) -> Callable[P, R]:
    """Gives the home as first argument. Only who runs a command must name one: `keyserver COMMAND --help` does not."""

    def with_home(*args: P.args, **kwargs: P.kwargs) -> R:
        context = click.get_current_context()
        if context.obj is None:
            raise click.UsageError("Missing option '--home'; KEYSERVER_HOME would do as well.", context.find_root())
        assert isinstance(context.obj, Home)
        return command(context.obj, *args, **kwargs)

    return update_wrapper(with_home, command)
