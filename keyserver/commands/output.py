"""How commands print: `-o table|json|jsonl`, the same everywhere."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click
import msgspec

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = ("table", "json", "jsonl")


def output_option(command: F) -> F:
    """Adds `-o`; the command takes it as `output`."""
    kind = click.Choice(FORMATS)
    return click.option("-o", "--output", type=kind, default="table", show_default=True, help="How to print.")(command)


def show(rows: Iterable[Mapping[str, Any]], output: str) -> None:
    """A list of objects."""
    if output == "table":
        _table(list(rows))
    elif output == "json":
        click.echo(msgspec.json.encode(list(rows)).decode())
    else:
        for row in rows:
            click.echo(msgspec.json.encode(row).decode())


def show_one(row: Mapping[str, Any], output: str) -> None:
    """One object."""
    if output == "table":
        width = max(map(len, row))
        for name, value in row.items():
            click.echo(f"{name.replace('_', ' '):<{width}}  {_cell(value)}")
    else:
        click.echo(msgspec.json.encode(row).decode())


def _table(rows: list[Mapping[str, Any]]) -> None:
    if not rows:
        return
    names = list(rows[0])
    cells = [
        [name.replace("_", " ").upper() for name in names],
        *([_cell(row[name]) for name in names] for row in rows),
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    """One line, nothing a terminal would obey."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        value = ",".join(f"{key}={each}" for key, each in value.items())
    elif isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))
