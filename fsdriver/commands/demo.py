"""`fsdriver demo`: a whole company in one folder: key server, this machine enrolled, the drive mounted.

Everything is the real thing, run as its own processes with their own commands; only the folder makes it a demo: one
user has key server, store and drive, and the passphrase that seals the keys lies beside them. Not for real files.
"""

import json
import os
import pwd
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from fsdriver.commands.failure import CommandFailed
from fsdriver.control import ControlError, ask
from fsdriver.exitcodes import ExitCode
from policy import SAMPLES, PolicyError, load, read_files

_MARK = "demo.json"
_NOTE = "This is a demo: keys and passphrase lie beside the files. Not for real files."
_PATIENCE = 15.0
_PORTS = range(20_000, 32_000)
"""Below the ports that outgoing connections take: a stopped demo finds its own free again."""


@click.command()
@click.option("--dir", "directory", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder.")
@click.option(
    "--policy",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of departments; the sample ones unless given.",
)
@click.option("--detach", is_flag=True, help="Return once everything runs.")
@click.option("--stop", is_flag=True, help="Unmount and stop all of it; the files stay.")
@click.option("--transport", type=click.Choice(["auto", "dev"]), default="auto", hidden=True)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def demo(directory: Path, policy: Path | None, detach: bool, stop: bool, transport: str, output: str) -> None:
    """Run a whole company in one folder, to try GrantFS out. Not for real files."""
    company = _Demo(directory.absolute())
    if stop:
        company.stop()
        return
    company.take_directory()
    try:
        facts = company.start(policy, transport)
    except BaseException:
        company.stop_processes()
        raise
    if output == "json":
        click.echo(json.dumps(facts))
    else:
        for name, value in facts.items():
            click.echo(f"{name:20}  {value}")
    if not detach:
        click.echo("ctrl-C ends it", err=True)
        with suppress(KeyboardInterrupt):
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
        company.stop()


class _Demo:
    """The company in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.drive = directory / "drive"
        self.store = directory / "store"
        self.agent_home = directory / "agent"
        self.server_home = directory / "server"
        self._passphrase = directory / "passphrase"
        self._mark = directory / _MARK

    def take_directory(self) -> None:
        """0700 and ours: new, empty, or made by an earlier demo, of which nothing runs."""
        try:
            self.directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            if self.directory.lstat().st_uid != os.geteuid():
                raise CommandFailed(f"{self.directory} belongs to another user", ExitCode.DENIED) from None
            if not self._mark.exists() and any(self.directory.iterdir()):
                raise CommandFailed(f"{self.directory} exists and is not a demo's folder", ExitCode.CONFLICT) from None
        except OSError as exc:
            raise CommandFailed(f"{self.directory}: {exc.strerror}") from exc
        if self._running():
            raise CommandFailed(f"the demo in {self.directory} runs already; stop it first: --stop", ExitCode.CONFLICT)
        self.directory.chmod(0o700)

    def start(self, policy: Path | None, transport: str) -> dict[str, Any]:
        """Make what is missing, start what does not run. The facts that scripts build on."""
        fresh = not (self.agent_home / "config.json").exists()
        if not fresh and policy is not None:
            click.echo("the demo keeps the policy it has; change it: keyserver policy upload", err=True)
        policy = policy or SAMPLES
        self._furnish()
        if not (self.server_home / "config.json").exists():
            self._run(
                "keyserver", "--home", self.server_home, "init", "--company", "Demo", "--policy", policy,
                "--passphrase", f"file:{self._passphrase}",
            )  # fmt: skip
        self._serve()
        if fresh:
            self._enrol()
        self._run("fsdriver", "--home", self.agent_home, "mount", "--detach", "--transport", transport)
        if fresh:
            self._make_folders(policy)
        return self._facts()

    def stop(self) -> None:
        if not self._mark.exists():
            raise CommandFailed(f"{self.directory} is not a demo's folder", ExitCode.NOT_FOUND)
        problem = self.stop_processes()
        if problem:
            raise CommandFailed(problem)

    def stop_processes(self) -> str:
        """Unmount, then end the server: the drive ships its last records before it goes. What went wrong."""
        problem = ""
        try:
            self._run("fsdriver", "--home", self.agent_home, "umount")
        except CommandFailed as exc:
            if exc.exit_code != ExitCode.NOT_READY:
                problem = exc.message
        pid = self._server_pid()
        if pid is None:
            return problem
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + _PATIENCE
            while self._server_pid() is not None and time.monotonic() < deadline:
                time.sleep(0.05)
        (self.directory / "server.pid").unlink(missing_ok=True)
        return problem

    def _furnish(self) -> None:
        if not self._mark.exists():
            ports = _free_ports()
            self._mark.write_text(json.dumps({"note": _NOTE, "agent_port": ports[0], "admin_port": ports[1]}) + "\n")
        for place, mode in ((self.drive, 0o755), (self.store, 0o755)):
            if not os.path.lexists(place):
                place.mkdir(mode=mode)
        if not self._passphrase.exists():
            fd = os.open(self._passphrase, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w") as passphrase:
                passphrase.write(secrets.token_urlsafe(24) + "\n")

    def _serve(self) -> None:
        """The server outlives this command; its output goes to a log."""
        ports = json.loads(self._mark.read_text())
        with (self.directory / "server.log").open("ab") as log:
            server = subprocess.Popen(
                [*_program("keyserver"), "--home", str(self.server_home), "serve",
                 "--agent", f"127.0.0.1:{ports['agent_port']}", "--admin", f"127.0.0.1:{ports['admin_port']}"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        (self.directory / "server.pid").write_text(str(server.pid))
        assert server.stdout is not None
        if server.stdout.readline().strip() != b"ready":
            said = (self.directory / "server.log").read_text().strip().rpartition("\n")[2]
            raise CommandFailed(f"the key server did not start: {said}", ExitCode.NOT_READY)

    def _enrol(self) -> None:
        user = _user()
        memberships = [part for name in self._departments() for part in ("--department", name)]
        try:
            self._run("keyserver", "--home", self.server_home, "user", "add", user, *memberships)
        except CommandFailed as exc:
            if exc.exit_code != ExitCode.CONFLICT:  # a start that was broken off has added the user already
                raise
        made = json.loads(
            self._run(
                "keyserver", "--home", self.server_home, "token", "create", "--person", f"{os.geteuid()}={user}",
                "-o", "json",
            )
        )  # fmt: skip
        self._run(
            "fsdriver", "--home", self.agent_home, "enroll", "--server", made["server"], "--note", _NOTE,
            "--store", self.store, "--drive", self.drive, "--passphrase", f"file:{self._passphrase}",
            text=made["token"],
        )  # fmt: skip

    def _departments(self) -> tuple[str, ...]:
        shown = json.loads(self._run("keyserver", "--home", self.server_home, "label", "list", "-o", "json"))
        return tuple(sorted({label["name"].partition("/")[0] for label in shown} - {"company"}))

    def _make_folders(self, policy: Path) -> None:
        """The folders that labels name, so that there is a place for everything."""
        try:
            labels = load(read_files([policy])).labels
        except PolicyError:
            return
        for label in labels:
            for pattern in label.folders:
                folder = pattern.removesuffix("/**").lstrip("/").partition("*")[0]
                with suppress(OSError):
                    (self.drive / folder).mkdir(parents=True, exist_ok=True)

    def _facts(self) -> dict[str, Any]:
        addresses = json.loads((self.server_home / "addresses.json").read_text())
        status = ask(self.agent_home, "status")
        return {
            "drive": str(self.drive),
            "store": str(self.store),
            "agent_home": str(self.agent_home),
            "server_home": str(self.server_home),
            "console": addresses["admin_url"],
            "admin_password_file": str(self.server_home / "admin-password"),
            "transport": status["transport"],
            "note": _NOTE,
        }

    def _running(self) -> bool:
        try:
            ask(self.agent_home, "status")
        except ControlError as exc:
            return exc.code != ExitCode.NOT_READY or self._server_pid() is not None
        return True

    def _server_pid(self) -> int | None:
        """The server's process, if it runs; a number that was given to another process is nobody's."""
        with suppress(OSError, ValueError):
            pid = int((self.directory / "server.pid").read_text())
            if str(self.server_home).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None

    def _run(self, program: str, *arguments: object, text: str | None = None) -> str:
        """Output of one of our own commands. Raises CommandFailed with what it said."""
        done = subprocess.run(
            [*_program(program), *map(str, arguments)],
            input=text, stdin=subprocess.DEVNULL if text is None else None, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.strip().removeprefix("Error: ")
            raise CommandFailed(said or f"{program} failed", _exit_code(done.returncode))
        return done.stdout


def _free_ports() -> tuple[int, int]:
    """Two ports of loopback that nobody uses now."""
    found: list[int] = []
    while len(found) < 2:
        port = random.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found = sorted({*found, port})
    return found[0], found[1]


def _program(name: str) -> list[str]:
    """One of our commands, run by this very interpreter."""
    return [sys.executable, "-m", name]


def _exit_code(number: int) -> ExitCode:
    try:
        return ExitCode(number)
    except ValueError:
        return ExitCode.FAILED


def _user() -> str:
    """The name of the user who runs the demo."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user{os.geteuid()}"
