"""`keyserver audit`: reads the database directly, so it works while the server runs and when it is stopped."""

import base64
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from keyserver.auditlog.checkpoint import verify as open_checkpoint
from keyserver.auditlog.proof import prove_consistency, prove_inclusion
from keyserver.auditlog.reader import read_bodies, read_records
from keyserver.auditlog.records import rfc3339
from keyserver.auditlog.verify import verify_log
from keyserver.commands.home import pass_home
from keyserver.commands.output import output_option, show, show_one
from keyserver.errors import Malformed, NotReady
from keyserver.home import Home
from keyserver.messages import Record
from keyserver.store.database import Store
from keyserver.store.records import RecordFilter
from keyserver.store.rows import Rows

_AGO = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TIME = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,6})?)?Z?)?")
_PROGRESS_EVERY = 10_000


@click.group()
def audit() -> None:
    """The log of everything."""


@audit.command("list")
@click.option("--machine", help="Machine id or its beginning, or `server`.")
@click.option("--user", help="Person, or admin for the server's own records.")
@click.option("--event")
@click.option("--since", metavar="TIME", help="UTC, 2026-01-31T08:00Z, or how long ago: 30s, 15m, 2h, 7d.")
@click.option("--file", help="Path in the drive, or file id.")
@click.option("--limit", type=click.IntRange(1), help="Only the newest so many.")
@output_option
@pass_home
def audit_list(
    home: Home,
    machine: str | None,
    user: str | None,
    event: str | None,
    since: str | None,
    file: str | None,
    limit: int | None,
    output: str,
) -> None:
    """Records, oldest first. `-o jsonl` prints them exactly as they were recorded."""
    wanted = RecordFilter(machine, user, event, _since(since, time.time()) if since else None, file, limit)
    with _reading(home) as rows:
        if output == "table":
            show(map(_columns, read_records(rows, wanted)), output)
        elif output == "jsonl":
            for body in read_bodies(rows, wanted):
                click.echo(body)
        else:
            click.echo(f"[{','.join(read_bodies(rows, wanted))}]")


@audit.command("verify")
@click.option("--checkpoint", type=click.File(), help="A checkpoint that someone else kept: the log must continue it.")
@click.option(
    "--log-key", type=click.Path(exists=True, path_type=Path), help="The log's public key, hex, kept elsewhere."
)
@output_option
@pass_home
def audit_verify(home: Home, checkpoint: Any, log_key: Path | None, output: str) -> None:
    """Check every record, chain, tree and signature. Exit code 7 and the first bad row where something is wrong."""
    kept = checkpoint.read() if checkpoint else None
    show_progress = sys.stderr.isatty()

    def progress(count: int) -> None:
        if show_progress and count % _PROGRESS_EVERY == 0:
            click.echo(f"\r{count} records", nl=False, err=True)

    with _reading(home) as rows:
        found = verify_log(rows, home.config().company, _log_key(home, log_key), kept=kept, progress=progress)
    if show_progress:
        click.echo("\r", nl=False, err=True)
    show_one(found._asdict(), output)


@audit.command("checkpoint")
@pass_home
def audit_checkpoint(home: Home) -> None:
    """The newest signed checkpoint. Keep it elsewhere: `audit verify --checkpoint` holds the log to it."""
    with _reading(home) as rows:
        note = rows.records.newest_checkpoint()
    if not note:
        raise NotReady("no checkpoint was signed yet")
    click.echo(note, nl=False)


@audit.command("proof")
@click.argument("position", type=click.IntRange(0))
@output_option
@pass_home
def audit_proof(home: Home, position: int, output: str) -> None:
    """Prove that the record at POSITION (from 0) is in the newest checkpoint's tree (RFC 9162 2.1.3)."""
    with _reading(home) as rows:
        note, size = _newest(home, rows)
        path = prove_inclusion(rows, position, size)
        leaf = rows.records.leaves(position, 1)[0]
    show_one(
        {"position": position, "leaf_hash": _base64(leaf), "proof": list(map(_base64, path)), "checkpoint": note},
        output,
    )


@audit.command("consistency")
@click.argument("size", type=click.IntRange(1))
@output_option
@pass_home
def audit_consistency(home: Home, size: int, output: str) -> None:
    """Prove that the newest checkpoint's tree continues that of the first SIZE records (RFC 9162 2.1.4)."""
    with _reading(home) as rows:
        note, newest = _newest(home, rows)
        path = prove_consistency(rows, size, newest)
    show_one({"size": size, "proof": list(map(_base64, path)), "checkpoint": note}, output)


def _newest(home: Home, rows: Rows) -> tuple[str, int]:
    """The newest checkpoint and its size, 0 before the first."""
    note = rows.records.newest_checkpoint()
    return note, open_checkpoint(note, home.config().company, _log_key(home, None)).size if note else 0


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@contextmanager
def _reading(home: Home) -> Iterator[Rows]:
    home.config()
    store = Store(home.database, read_only=True)
    try:
        store.require_current()
        with store.read() as rows:
            yield rows
    finally:
        store.close()


def _log_key(home: Home, elsewhere: Path | None) -> bytes:
    path = elsewhere or home.log_key_file
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as exc:
        raise NotReady(f"no log key in {path}: {exc}") from None
    if len(key) != 32:
        raise NotReady(f"{path} does not hold an Ed25519 public key")
    return key


def _since(text: str, now: float) -> str:
    """As records say times; text order is time order."""
    if ago := _AGO.fullmatch(text):
        return rfc3339(now - int(ago[1]) * _UNITS[ago[2]])
    if not _TIME.fullmatch(text):
        raise Malformed(f"{text!r} is not a time such as 2026-01-31T08:00Z, nor one such as 15m")
    return text.removesuffix("Z")


def _columns(record: Record) -> dict[str, Any]:
    return {
        "time": record.time,
        "machine": record.machine[:8],
        "seq": record.seq,
        "event": record.event,
        "user": record.user,
        "file": record.file.path if record.file else "",
        "program": record.program.path if record.program else "",
        "view": record.view,
        "rule": record.rule,
        "detail": record.detail,
    }
