"""`fsdriver why`: which rule decides about a file, in one sentence, and how it came to that."""

import json
import os
from pathlib import Path

import click

from fsdriver.commands.failure import CommandFailed
from fsdriver.commands.home import home_of
from fsdriver.control import ControlError, ask

_CHINESE = ("zh",)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--program", metavar="PATH", help="The program that would use it; an unlisted one unless given.")
@click.option("--user", metavar="NAME", help="The person; the one you are unless given.")
@click.option("--action", type=click.Choice(["read", "write", "create", "rename", "delete"]), default="read")
@click.option(
    "--lang", type=click.Choice(["en", "zh"]), help="Language of the answer; that of the session unless given."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def why(
    context: click.Context,
    file: Path,
    program: str | None,
    user: str | None,
    action: str,
    lang: str | None,
    output: str,
) -> None:
    """Say why FILE is seen as it is."""
    language = lang or ("zh" if os.environ.get("LC_ALL", os.environ.get("LANG", "")).startswith(_CHINESE) else "en")
    try:
        answer = ask(
            home_of(context).path,
            "why",
            file=str(file.absolute()),
            program=program,
            user=user,
            action=action,
            language=language,
        )
    except ControlError as exc:
        raise CommandFailed(str(exc), exc.code) from exc
    if output == "json":
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    click.echo(answer["sentence"])
    for step in answer["trace"]:
        click.echo(f"  {step['rule']}: {step['text']}")
