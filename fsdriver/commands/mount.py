"""`fsdriver mount` and `fsdriver umount`."""

import json
import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import click

from fsdriver.commands.failure import CommandFailed
from fsdriver.commands.home import home_of
from fsdriver.control import ControlError, ask
from fsdriver.device import MountRefused, is_mounted, unmount_dead
from fsdriver.errors import SpoolFailed
from fsdriver.exitcodes import ExitCode
from fsdriver.filesystem import StoreInUse, StoreRefused
from fsdriver.machine import MachineError
from fsdriver.serve import Drive, NoPolicy

_CODES = {
    StoreInUse: ExitCode.CONFLICT,
    StoreRefused: ExitCode.CONFLICT,
    NoPolicy: ExitCode.NOT_READY,
}


@click.command()
@click.option("--detach", is_flag=True, help="Return once the drive answers, and serve it in the background.")
@click.option(
    "--transport",
    type=click.Choice(["auto", "dev"]),
    default="auto",
    show_default=True,
    help="auto: io_uring where the kernel offers it; dev: read and write on /dev/fuse.",
)
@click.pass_context
def mount(context: click.Context, detach: bool, transport: str) -> None:
    """Mount the drive that this home was enrolled for, and serve it until it is unmounted."""
    home = home_of(context)
    ready: int | None = None
    try:
        drive = Drive(home, io_uring=transport == "auto")  # may ask for a passphrase, which a daemon could not
        if detach:
            ready = _detach(home.path)
        drive.start()
    except (MachineError, MountRefused, StoreRefused, SpoolFailed, NoPolicy, OSError) as exc:
        _fail(str(exc), _CODES.get(type(exc), ExitCode.FAILED), ready)
    if ready is not None:
        os.write(ready, b"{}")
        os.close(ready)
    else:
        click.echo(f"mounted on {home.config().drive}; end it with ctrl-C or `fsdriver umount`", err=True)
    drive.wait()


def _fail(message: str, code: ExitCode, ready: int | None) -> None:
    """In a detached child the message goes to the command that waits for it."""
    if ready is None:
        raise CommandFailed(message, code)
    os.write(ready, json.dumps({"error": message, "code": int(code)}).encode())
    os._exit(int(code))


def _detach(home: Path) -> int:
    """Go on as a daemon; the command that was typed waits for what the daemon says. The daemon's end of the pipe."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with os.fdopen(reader, "rb") as answers:
            answer = json.loads(answers.read() or b'{"error": "the drive ended while it was mounting", "code": 1}')
        if "error" in answer:
            click.echo(f"Error: {answer['error']}", err=True)
        sys.stdout.flush()
        os._exit(answer.get("code", 0))
    os.close(reader)
    os.setsid()
    log = os.open(home / "drive.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.chdir("/")
    for handler in logging.getLogger().handlers:
        handler.flush()
    return writer


@click.command()
@click.option("--wait", default=15.0, show_default=True, help="Seconds to wait for the end.")
@click.pass_context
def umount(context: click.Context, wait: float) -> None:
    """Unmount the drive of this home and end its daemon. What a daemon that was killed left mounted goes too."""
    home = home_of(context)
    drive = Path(home.config().drive)
    mounted = is_mounted(drive)
    pid = None
    deadline = time.monotonic() + wait
    while True:
        try:
            pid = pid or ask(home.path, "status")["pid"]
            ask(home.path, "umount")
            break
        except ControlError as exc:
            if exc.code != ExitCode.NOT_READY:
                raise CommandFailed(str(exc), exc.code) from exc
            if _unmounted_dead(drive) or not is_mounted(drive):
                if mounted or pid:  # it had been killed, or ended while it was asked: nothing is left
                    break
                raise CommandFailed(str(exc), exc.code) from exc
        # Mounted and alive, but it does not listen: it is starting, or on its way out.
        if time.monotonic() >= deadline:
            raise CommandFailed(f"{drive} is still mounted after {wait:g} seconds: see {home.path / 'drive.log'}")
        time.sleep(0.05)
    while pid and _runs(pid):
        if time.monotonic() >= deadline:
            raise CommandFailed(f"process {pid} has not ended after {wait:g} seconds: see {home.path / 'drive.log'}")
        time.sleep(0.05)


def _unmounted_dead(drive: Path) -> bool:
    try:
        return unmount_dead(drive)
    except (OSError, MountRefused) as exc:
        raise CommandFailed(str(exc)) from exc


def _runs(pid: int) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as stat_file:
        return stat_file.read().rpartition(b")")[2].split()[0] != b"Z"
    return False
