"""A whole company as `fsdriver demo` makes it: real processes, real mount; cleaned up whatever happened."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from fsdriver.control import ask
from fsdriver.device.mountpoint import MountPoint
from keyserver.auditlog.reader import read_bodies
from keyserver.store.database import Store
from keyserver.store.records import RecordFilter
from tests.patience import PATIENCE

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
POLICY = HERE / "policy"
LISTED = "/usr/bin/python3.11"
"""An interpreter the test policy lists, unlike the one that runs pytest."""
SECONDS = 2 * PATIENCE


class CommandFailed(Exception):
    def __init__(self, done):
        super().__init__(f"{done.args} ended with {done.returncode}: {done.stderr}")
        self.code = done.returncode
        self.message = done.stderr


def our(program, *arguments, text=None, timeout=SECONDS, check=True, env=None):
    """One of our commands, as a CompletedProcess with text. Errors: CommandFailed where it fails and `check`."""
    command = [sys.executable, "-m", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, input=text or "", capture_output=True, text=True, timeout=timeout, env=env)
    if check and done.returncode:
        raise CommandFailed(done)
    return done


class Company:
    """One demo in a folder of its own."""

    def __init__(self, directory=None, policy=POLICY):
        self.top = directory or temporary_directory()
        self.directory = self.top / "demo"
        self.policy = policy
        self.drive = self.directory / "drive"
        self.store = self.directory / "store"
        self.agent_home = self.directory / "agent"
        self.server_home = self.directory / "server"

    # ---- the commands ------------------------------------------------------------------------------------------

    def start(self, *options):
        policy = ("--policy", self.policy) if self.policy else ()
        self.facts = json.loads(
            our("fsdriver", "demo", "--dir", self.directory, *policy, *options, "--detach", "-o", "json").stdout
        )
        self.is_heard()
        return self.facts

    def stop(self):
        return our("fsdriver", "demo", "--dir", self.directory, "--stop")

    def fsdriver(self, *arguments, **options):
        return our("fsdriver", "--home", self.agent_home, *arguments, **options)

    def keyserver(self, *arguments, **options):
        return our("keyserver", "--home", self.server_home, *arguments, **options)

    def listed(self, noun, *arguments):
        return json.loads(self.keyserver(noun, "list", *arguments, "-o", "json").stdout)

    def status(self):
        """What `fsdriver status -o json` prints."""
        return ask(self.agent_home, "status")

    def mount(self, *options):
        self.fsdriver("mount", "--detach", *options)
        if pids(b"keyserver", b"serve", str(self.server_home).encode()):
            self.is_heard()

    def is_heard(self):
        """Waits until the drive has its keys and hears pushes, or that it is banned."""
        eventually(lambda: self.status()["server"]["state"] != "offline")

    # ---- what is known of it -----------------------------------------------------------------------------------

    def lease(self, label):
        """The id of the machine's lease of a label."""
        return next(lease["id"] for lease in self.listed("lease") if lease["label"] == label)

    def machine(self):
        """The id of the machine whose drive this is."""
        return self.status()["machine"]

    def records(self, event=None, **wanted):
        """The server's records, oldest first, as objects: what `audit list -o jsonl` prints."""
        store = Store(self.server_home / "keyserver.db", read_only=True)
        try:
            with store.read() as rows:
                bodies = list(
                    read_bodies(rows, RecordFilter(wanted.pop("machine", None), None, event, None, None, None))
                )
        finally:
            store.close()
        found = map(json.loads, bodies)
        return [record for record in found if all(record.get(name) == value for name, value in wanted.items())]

    def paths(self, event):
        return [record["file"]["path"] for record in self.records(event)]

    def verify(self):
        return json.loads(self.keyserver("audit", "verify", "-o", "json").stdout)

    def everything_arrived(self):
        """Waits until the server has all records the agent has."""
        eventually(lambda: self.status()["spool"]["waiting"] == 0)

    @property
    def daemon_pid(self):
        return pids(b"fsdriver", b"mount", str(self.agent_home).encode())[0]

    @property
    def server_pid(self):
        return pids(b"keyserver", b"serve", str(self.server_home).encode())[0]

    # ---- by force ----------------------------------------------------------------------------------------------

    def kill_daemon(self):
        """kill -9. The dead mount stays."""
        os.kill(self.daemon_pid, signal.SIGKILL)
        eventually(lambda: not pids(b"fsdriver", b"mount", str(self.agent_home).encode()))

    def stop_server(self, number=signal.SIGTERM):
        os.kill(self.server_pid, number)
        eventually(lambda: not pids(b"keyserver", b"serve", str(self.server_home).encode()))

    def start_server(self):
        """As the demo does, at the addresses the machine knows."""
        ports = json.loads((self.directory / "demo.json").read_text())
        agent, admin = (f"127.0.0.1:{ports[name]}" for name in ("agent_port", "admin_port"))
        with (self.directory / "server.log").open("ab") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "keyserver", "--home", self.server_home,
                 "serve", "--agent", agent, "--admin", admin],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        (self.directory / "server.pid").write_text(str(server.pid))
        assert server.stdout is not None
        ready = server.stdout.readline()
        server.stdout.close()
        server.returncode = 0  # it is left alone; `end` finds it
        assert ready == b"ready\n", (self.directory / "server.log").read_text()

    def end(self):
        """Whatever state it is in: no process, no mount, no folder."""
        self.halt()
        shutil.rmtree(self.top)

    def halt(self):
        """No process, no mount; the files stay."""
        mine = [pid for pid in pids(str(self.directory).encode()) if pid != os.getpid()]
        for pid in mine:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while str(self.drive) in mount_points():
            subprocess.run(["umount", "-l", self.drive], check=True, timeout=SECONDS)
        eventually(lambda: not [pid for pid in mine if running(pid)])
        if self.drive.is_dir():
            point = MountPoint(self.drive)
            point.release()
            point.close()


def pids(*words):
    """Processes whose command line has all these words in it, by number."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if line and all(word in line for word in words):
                    found.append(int(entry.name))
    return sorted(found)


def running(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    return False


def mount_points():
    return {line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def temporary_directory():
    """On the disk, and open to other uids."""
    path = Path(tempfile.mkdtemp(prefix="grantfs-end-"))
    path.chmod(0o755)
    return path


def eventually(fact, seconds=2 * PATIENCE):
    end = time.monotonic() + seconds
    while not (value := fact()):
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.02)
    return value
