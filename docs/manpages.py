"""Write the manual pages of the three commands into man/, from the commands' own help.

    python docs/manpages.py [--check]

`--check` writes nothing and fails if a page is not what the commands say now.
"""

import argparse
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click

from fsdriver.cli import cli as fsdriver
from keyserver.cli import cli as keyserver
from policy.cli import main as policy

PAGES = {"fsdriver": fsdriver, "keyserver": keyserver, "policy": policy}
MAN = Path(__file__).parents[1] / "man"
EXIT_CODES = (
    "0 ok, 1 failed, 2 usage, 3 denied, 4 not found, 5 conflict, 6 sealed or not ready, 7 verification failed, "
    "8 waiting for approval."
)


def page(name: str, command: click.Command) -> str:
    """The whole page, in man(7) macros."""
    context = click.Context(command, info_name=name)
    lines = [f'.TH {name.upper()} 1 "" "GrantFS {version("grantfs")}" "GrantFS"']
    lines += [".SH NAME", f"{name} \\- {_escaped(command.get_short_help_str(100).rstrip('.'))}"]
    lines += [".SH SYNOPSIS", f".B {name}", _escaped(" ".join(command.collect_usage_pieces(context)))]
    lines += [".SH OPTIONS", *_options(command, context)]
    lines += [".SH COMMANDS"]
    for path, sub, below in _commands(command, context):
        usage = _escaped(" ".join([path, *sub.collect_usage_pieces(below)]))
        lines += [f".SS {usage}", *_text(sub.help or ""), *_options(sub, below)]
    lines += [".SH EXIT STATUS", EXIT_CODES]
    lines += [".SH SEE ALSO", ", ".join(f"{other}(1)" for other in PAGES if other != name)]
    return "\n".join(lines) + "\n"


def _commands(group: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    """All commands below `group` that do something, with their names as they are typed."""
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        below = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            for path, sub, deeper in _commands(command, below):
                yield f"{name} {path}", sub, deeper
        else:
            yield name, command, below


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in parameter.opts:
            yield ".TP"
            yield f".B {_escaped(record[0])}"
            yield _escaped(record[1]) or "\\&"


def _text(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield _escaped(" ".join(paragraph.split()))
        yield ".PP"


def _escaped(text: str) -> str:
    """Text that man(7) does not take for a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    MAN.mkdir(exist_ok=True)
    stale = []
    for name, command in PAGES.items():
        path = MAN / f"{name}.1"
        text = page(name, command)
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(str(path.relative_to(MAN.parent)))
    if stale:
        sys.stderr.write(f"not what the commands say now: {', '.join(stale)}; run: make docs\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
