"""`keyserver policy`: the departments' rules in force."""

from pathlib import Path

import click

from keyserver.admin_client import AdminClient
from keyserver.commands.home import pass_home
from keyserver.commands.output import output_option, show_one
from keyserver.errors import Malformed
from keyserver.home import Home
from policy import load, read_files


@click.group()
def policy() -> None:
    """The departments' rules in force."""


@policy.command("upload")
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@output_option
@pass_home
def policy_upload(home: Home, folder: Path, output: str) -> None:
    """Put the policy in FOLDER in force on all machines."""
    files = policy_files(folder)
    load(files)
    show_one(AdminClient(home).post("/policy", {"files": files}), output)


@policy.command("show")
@output_option
@pass_home
def policy_show(home: Home, output: str) -> None:
    """The policy in force, as it was uploaded."""
    answer = AdminClient(home).get("/policy")
    if output != "table":
        show_one(answer, output)
        return
    files = answer.pop("files")
    show_one(answer, output)
    for name, text in files.items():
        click.echo(f"\n# {name}\n{text.rstrip()}")


def policy_files(folder: Path) -> dict[str, str]:
    """File name to text of a policy folder. Raises `PolicyError`, `Malformed` where there is none."""
    files = {Path(path).name: text for path, text in read_files([folder]).items()}
    if not files:
        raise Malformed(f"{folder} holds no policy: expected *.yaml")
    return files
