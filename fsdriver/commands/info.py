"""`fsdriver info`: what a sealed file says about itself. Works on any copy of it, with no key and no drive."""

import json
import os
from pathlib import Path
from typing import Any

import click

from fsdriver.commands.failure import reported
from fsdriver.commands.unseal import open_sealed
from fsdriver.content import HEADER_SIZE, Header
from fsdriver.content.facts import describe
from fsdriver.content.keyfile import KeyFile

INFO_ATTRIBUTE = "user.grantfs.info"
"""On a path in a mounted drive: the same facts as JSON, answered by the drive."""


@click.command("info")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key-file", type=click.Path(path_type=Path), help="With the file's key, sealed facts are shown too.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def info(file: Path, key_file: Path | None, output: str) -> None:
    """Show the facts of the sealed FILE: in the drive, or a copy of it anywhere."""
    with reported(str(file)):
        facts = _from_drive(file) or _from_file(file)
        if key_file is not None:
            facts |= _sealed_facts(file, KeyFile.load(key_file))
    if output == "json":
        click.echo(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:{width}}  {'-' if value is None else value}")


def _from_drive(path: Path) -> dict[str, Any] | None:
    """What the drive says, None where `path` is not in one."""
    try:
        facts = json.loads(os.getxattr(path, INFO_ATTRIBUTE))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def _from_file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        header = Header.parse(file.read(HEADER_SIZE))
        size = os.fstat(file.fileno()).st_size
    return describe(header, size)


def _sealed_facts(path: Path, keys: KeyFile) -> dict[str, Any]:
    sealed = open_sealed(path, keys)
    try:
        return {"generation": sealed.generation, "seals": sealed.seals, "plain_size": sealed.size}
    finally:
        sealed.close()
