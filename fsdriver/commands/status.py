"""`fsdriver status`: how the drive is doing."""

import json
import time
from typing import Any

import click

from fsdriver.commands.failure import CommandFailed
from fsdriver.commands.home import home_of
from fsdriver.control import ControlError, ask


@click.command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def status(context: click.Context, output: str) -> None:
    """Show the running drive of this home: server, policy, leases, records waiting, who holds files."""
    try:
        facts = ask(home_of(context).path, "status")
    except ControlError as exc:
        raise CommandFailed(str(exc), exc.code) from exc
    if output == "json":
        click.echo(json.dumps(facts, indent=2))
        return
    for name, value in _rows(facts):
        click.echo(f"{name:12}  {value}")


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    server, spool = facts["server"], facts["spool"]
    rows = [
        ("drive", f"{facts['drive']} over {facts['store']} ({facts['transport']}, {facts['mode']} mount)"),
        ("company", f"{facts['company']}, machine {facts['machine']}"),
        ("server", f"{server['url']}: {server['state']}" + (f", {server['problem']}" if server["problem"] else "")),
        ("policy", f"number {facts['policy']}"),
        ("records", f"{spool['waiting']} waiting" + (f": {spool['problem']}" if spool["problem"] else "")),
    ]
    if facts["shared_with"]:
        rows.append(("shared", f"the store is mounted by {', '.join(facts['shared_with'])} as well"))
    if facts["log_problem"]:
        rows.append(("log", facts["log_problem"]))
    if facts["clock_rolled_back"]:
        rows.append(("clock", "was turned back: no key is used beyond its term without the server"))
    if facts["note"]:
        rows.append(("note", facts["note"]))
    now = time.time()
    rows += [("lease", f"{lease['label']}: {max(0, lease['usable_until'] - now):.0f} s") for lease in facts["leases"]]
    rows += [("open", f"{holder}: {count}") for holder, count in sorted(facts["holders"].items())]
    return rows
