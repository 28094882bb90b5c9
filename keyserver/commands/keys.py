"""`keyserver key`: new versions of the labels' keys, and copies of them for when there is no server."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from keyserver.admin_client import AdminClient
from keyserver.commands.home import pass_home
from keyserver.commands.output import output_option, show_one
from keyserver.errors import Conflict, NotFound
from keyserver.home import Home
from keyserver.keys.labels import LabelKeys
from keyserver.service import unseal
from keyserver.store.database import Store


@click.group()
def key() -> None:
    """The labels' keys."""


@key.command("rotate")
@click.argument("label", metavar="LABEL")
@output_option
@pass_home
def key_rotate(home: Home, label: str, output: str) -> None:
    """Give LABEL (its name or id) a new key version, which new files take."""
    client = AdminClient(home)
    show_one(client.post(f"/labels/{_label(client, label)['id']}/rotate"), output)


@key.command("export")
@click.argument("label", metavar="LABEL")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new file, 0600.")
@output_option
@pass_home
def key_export(home: Home, label: str, out: Path, output: str) -> None:
    """Write all versions of the key of LABEL (its name or id) to a file for `fsdriver unseal --key-file`.

    Who has this file can open every file of the label made so far, whatever policy says, for ever; nothing takes it
    back. The export is in the log before the file has a key in it. Needs the running server and, again, what unseals
    its root key: the keys come from the database and do not pass through the network.
    """
    client = AdminClient(home)
    wanted = _label(client, label)
    with _new_file(out) as file:
        root = unseal(home)
        exported = client.post(f"/labels/{wanted['id']}/exports")
        store = Store(home.database, read_only=True)
        try:
            with store.read() as rows:
                file.write(LabelKeys(root, rows).key_file(wanted["id"], exported["versions"]))
        finally:
            store.close()
    click.echo(f"{out} opens every file of {exported['name']} made so far: keep it as you keep the root key.", err=True)
    show_one(exported | {"file": str(out)}, output)


def _label(client: AdminClient, label: str) -> dict[str, Any]:
    for each in client.get("/labels"):
        if label in (each["id"], each["name"]):
            found: dict[str, Any] = each
            return found
    raise NotFound(f"there is no label {label}")


@contextmanager
def _new_file(path: Path) -> Iterator[Any]:
    """A new file, on the disk after the block; gone again if the block fails. Raises `Conflict` where one is there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} is there already: choose another name") from None
    except OSError as exc:
        raise NotFound(f"{path} cannot be made: {exc.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        raise
