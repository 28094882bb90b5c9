"""`fsdriver enroll`: make this machine one of a company's."""

import os
import sys
from pathlib import Path

import click

from fsdriver.commands.failure import CommandFailed
from fsdriver.commands.home import home_path
from fsdriver.enrolment import enrol_machine
from fsdriver.exitcodes import ExitCode
from fsdriver.machine import MachineError
from keyserver.client import ClientError, Conflict, Denied, Unreachable, WrongAuthority
from keyserver.secret_store import BACKENDS, SecretSettings

_DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("--server", required=True, metavar="URL", help="The key server's admin address, https://HOST:PORT.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, allow_dash=True),
    default="-",
    show_default=True,
    help="Where the join token is read from; a token among the arguments would be seen by everybody.",
)
@click.option("--store", required=True, type=_DIRECTORY, help="Where the sealed files lie.")
@click.option("--drive", required=True, type=_DIRECTORY, help="Where the drive is mounted.")
@click.option("--name", default="", help="What admins call this machine; the host name unless given.")
@click.option("--secret-backend", type=click.Choice(BACKENDS), default="sealed-file", show_default=True)
@click.option(
    "--passphrase",
    default="prompt",
    show_default=True,
    help="Where sealed-file's passphrase comes from: prompt, fd:N, file:/PATH, credential:NAME.",
)
@click.option("--exec", "exec_allowed", is_flag=True, help="Let programs be run from the drive.")
@click.option("--note", default="", help="What `fsdriver status` reminds people of.")
@click.pass_context
def enroll(
    context: click.Context,
    server: str,
    token_file: Path,
    store: Path,
    drive: Path,
    name: str,
    secret_backend: str,
    passphrase: str,
    exec_allowed: bool,
    note: str,
) -> None:
    """Enrol this machine with a one-use token from `keyserver token create`."""
    if str(token_file) != "-":
        token = token_file.read_text()
    elif sys.stdin.isatty():
        token = click.prompt("Join token", hide_input=True, err=True)
    else:
        token = sys.stdin.read()
    settings = SecretSettings(backend=secret_backend, passphrase=passphrase)  # type: ignore[arg-type]  # click checked it
    try:
        home = enrol_machine(
            home_path(context),
            server,
            token.strip(),
            store=store,
            drive=drive,
            mode="root" if os.geteuid() == 0 else "user",
            secrets=settings,
            name=name,
            exec=exec_allowed,
            note=note,
        )
    except MachineError as exc:
        raise CommandFailed(str(exc)) from exc
    except Unreachable as exc:
        raise CommandFailed(f"the key server cannot be reached: {exc}", ExitCode.NOT_READY) from exc
    except WrongAuthority as exc:
        raise CommandFailed(str(exc), ExitCode.VERIFICATION_FAILED) from exc
    except Denied as exc:
        raise CommandFailed(str(exc), ExitCode.DENIED) from exc
    except Conflict as exc:
        raise CommandFailed(str(exc), ExitCode.CONFLICT) from exc
    except ClientError as exc:
        raise CommandFailed(str(exc)) from exc
    config = home.config()
    click.echo(f"enrolled as {config.name} ({config.machine}) of {config.company_name}", err=True)
    click.echo(f"mount the drive: fsdriver --home {home.path} mount --detach", err=True)
