"""Commands that ask the running server: token, machine, user, lease, label."""

from urllib.parse import quote

import click

from keyserver.admin_client import AdminClient
from keyserver.commands.home import pass_home
from keyserver.commands.output import output_option, show, show_one
from keyserver.home import Home


@click.group()
def token() -> None:
    """Join tokens."""


@token.command("create")
@click.option("--person", "persons", multiple=True, metavar="UID=NAME", help="Who a uid of the machine is; repeatable.")
@click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(0, 1440, min_open=True))
@output_option
@pass_home
def token_create(home: Home, persons: tuple[str, ...], minutes: float, output: str) -> None:
    """Make a token with which one machine can join, once."""
    client = AdminClient(home)
    logins = dict(_login(text) for text in persons)
    made = client.post("/tokens", {"logins": logins, "seconds": minutes * 60})
    if output == "table":
        click.echo(made["token"])
        click.echo(f"The machine joins at {client.url} within {minutes:g} minutes.", err=True)
    else:
        show_one(made | {"server": client.url}, output)


@click.group()
def machine() -> None:
    """Machines that have joined."""


@machine.command("list")
@output_option
@pass_home
def machine_list(home: Home, output: str) -> None:
    """All machines."""
    show(AdminClient(home).get("/machines"), output)


@machine.command("ban")
@click.argument("machine_id", metavar="ID")
@output_option
@pass_home
def machine_ban(home: Home, machine_id: str, output: str) -> None:
    """Take a machine's keys away, at once and for good."""
    show_one(AdminClient(home).post(f"/machines/{quote(machine_id, safe='')}/ban"), output)


@machine.command("map")
@click.argument("machine_id", metavar="ID")
@click.argument("login", metavar="UID=NAME")
@output_option
@pass_home
def machine_map(home: Home, machine_id: str, login: str, output: str) -> None:
    """Say which person a uid of a machine is, from now on."""
    uid, person = _login(login)
    answer = AdminClient(home).post(f"/machines/{quote(machine_id, safe='')}/logins", {"uid": uid, "person": person})
    show_one(answer, output)


@click.group()
def user() -> None:
    """Persons that policy speaks of."""


@user.command("add")
@click.argument("name")
@click.option("--department", "departments", multiple=True)
@click.option("--group", "groups", multiple=True)
@output_option
@pass_home
def user_add(home: Home, name: str, departments: tuple[str, ...], groups: tuple[str, ...], output: str) -> None:
    """Add a person, or a service (service:NAME)."""
    wish = {"name": name, "departments": departments, "groups": groups}
    show_one(AdminClient(home).post("/users", wish), output)


@user.command("list")
@output_option
@pass_home
def user_list(home: Home, output: str) -> None:
    """All persons."""
    show(AdminClient(home).get("/users"), output)


@user.command("disable")
@click.argument("name")
@output_option
@pass_home
def user_disable(home: Home, name: str, output: str) -> None:
    """Take all rights of a person away, at once."""
    show_one(AdminClient(home).post(f"/users/{quote(name, safe='')}/disable"), output)


@user.command("enable")
@click.argument("name")
@output_option
@pass_home
def user_enable(home: Home, name: str, output: str) -> None:
    """Give a disabled person their rights back."""
    show_one(AdminClient(home).post(f"/users/{quote(name, safe='')}/enable"), output)


@click.group()
def lease() -> None:
    """Keys on loan to machines."""


@lease.command("list")
@output_option
@pass_home
def lease_list(home: Home, output: str) -> None:
    """All leases."""
    show(AdminClient(home).get("/leases"), output)


@lease.command("revoke")
@click.argument("lease_id", metavar="ID")
@output_option
@pass_home
def lease_revoke(home: Home, lease_id: str, output: str) -> None:
    """Take a lease back, at once and until it is restored."""
    show_one(AdminClient(home).post(f"/leases/{quote(lease_id, safe='')}/revoke"), output)


@lease.command("restore")
@click.argument("lease_id", metavar="ID")
@output_option
@pass_home
def lease_restore(home: Home, lease_id: str, output: str) -> None:
    """Allow a revoked lease again, as far as policy does."""
    show_one(AdminClient(home).post(f"/leases/{quote(lease_id, safe='')}/restore"), output)


@click.group()
def label() -> None:
    """Labels and their ids."""


@label.command("list")
@output_option
@pass_home
def label_list(home: Home, output: str) -> None:
    """All labels that ever had a key."""
    show(AdminClient(home).get("/labels"), output)


def _login(text: str) -> tuple[int, str]:
    uid, equals, name = text.partition("=")
    if not (equals and name and uid.isascii() and uid.isdigit()):
        raise click.BadParameter(f"{text!r} is not UID=NAME, such as 1000=li")
    return int(uid), name
