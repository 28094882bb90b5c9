"""`keyserver init` and `keyserver serve`."""

import logging
import secrets
import time
from pathlib import Path

import click
import msgspec

from keyserver.atomic_file import replace_file
from keyserver.commands.home import pass_home
from keyserver.commands.policies import policy_files
from keyserver.errors import Malformed
from keyserver.home import Addresses, Home, HomeConfig
from keyserver.keys.root import create_root_key
from keyserver.secret_store import BACKENDS, SecretSettings, open_store
from keyserver.service import Founding, found, new_company
from keyserver.serving import Listener
from keyserver.serving import serve as run_server
from keyserver.store.database import Store
from policy import load


@click.command()
@click.option("--company", default="Company", show_default=True, help="Its name, for people.")
@click.option("--name", "names", multiple=True, metavar="HOST", help="A host name or address the server will have.")
@click.option("--policy", "folder", required=True, type=click.Path(exists=True, path_type=Path), help="Policy folder.")
@click.option("--secret-backend", type=click.Choice(BACKENDS), default="sealed-file", show_default=True)
@click.option(
    "--passphrase", default="prompt", show_default=True, help="Where sealed-file's comes from; fd:N, file:/..."
)
@click.option("--admin", default="admin", show_default=True, help="The first admin's name.")
@click.option("--admin-password-file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_home
def init(
    home: Home,
    company: str,
    names: tuple[str, ...],
    folder: Path,
    secret_backend: str,
    passphrase: str,
    admin: str,
    admin_password_file: Path | None,
) -> None:
    """Make a new key server: CA, root key, first admin, first policy."""
    policy = policy_files(folder)
    load(policy)
    if admin_password_file is not None:
        password = admin_password_file.read_text().removesuffix("\n")
        if len(password) < 12:
            raise Malformed(f"the password in {admin_password_file} is shorter than 12 characters")
    else:
        password = secrets.token_urlsafe(18)
    home.create()
    config = HomeConfig(
        new_company(), msgspec.convert({"backend": secret_backend, "passphrase": passphrase}, SecretSettings)
    )
    root = create_root_key(open_store(config.secrets, home=home.path, service="keyserver"), config.company)
    store = Store(home.database)
    try:
        store.upgrade()
        founding = Founding(config.company, company, names, admin, password, policy)
        authority, log_key, token = found(store, root, founding, time.time)
    except BaseException:
        store.remove()
        raise
    store.close()
    replace_file(home.authority_file, authority.pem.encode())
    replace_file(home.log_key_file, log_key.hex().encode() + b"\n")
    replace_file(home.admin_token_file, token.encode() + b"\n")
    if admin_password_file is None:
        replace_file(home.admin_password_file, password.encode() + b"\n")
    replace_file(home.config_file, msgspec.json.encode(config))
    click.echo(f"Key server of {company} made in {home.path}; start it: keyserver --home {home.path} serve", err=True)


@click.command()
@click.option("--agent", default="0.0.0.0:7443", show_default=True, metavar="ADDRESS:PORT", help="Where machines ask.")
@click.option(
    "--admin", default="0.0.0.0:7444", show_default=True, metavar="ADDRESS:PORT", help="CLI, console, joining."
)
@click.option("--name", "names", multiple=True, metavar="HOST", help="The server's name; the first goes into its URLs.")
@pass_home
def serve(home: Home, agent: str, admin: str, names: tuple[str, ...]) -> None:
    """Run the server until SIGTERM."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    def ready(addresses: Addresses) -> None:
        click.echo(f"agents: {addresses.agent_url}  console and CLI: {addresses.admin_url}", err=True)
        click.echo("ready")

    run_server(home, Listener.parse(agent), Listener.parse(admin), names, time.time, ready)
