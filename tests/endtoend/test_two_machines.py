"""Two enrolled machines, one store, one key server: who did what on which of them; what one loses the other keeps."""

import getpass
import json
import os
import signal
import subprocess
import time

import pytest

from fsdriver.control import ask
from fsdriver.device.mountpoint import MountPoint
from keyserver.sightings import SKEW, STEP
from tests.endtoend.company import SECONDS, CommandFailed, eventually, mount_points, our
from tests.endtoend.program import Refused


class Second:
    """Another machine of a company: a home, a mount point and a daemon of its own, and the company's store."""

    def __init__(self, company):
        self.company = company
        self.home = company.top / "second"
        self.drive = company.top / "second-drive"
        self.drive.mkdir()

    def fsdriver(self, *arguments, text=None):
        return our("fsdriver", "--home", self.home, *arguments, text=text)

    def enroll(self):
        person = f"{os.geteuid()}={getpass.getuser()}"
        made = json.loads(self.company.keyserver("token", "create", "--person", person, "-o", "json").stdout)
        passphrase = f"file:{self.company.directory}/passphrase"
        self.fsdriver(
            "enroll", "--server", made["server"], "--name", "second", "--store", self.company.store,
            "--drive", self.drive, "--passphrase", passphrase, text=made["token"],
        )  # fmt: skip

    def mount(self):
        self.fsdriver("mount", "--detach")
        eventually(lambda: self.status()["server"]["state"] != "offline")

    def status(self):
        return ask(self.home, "status")

    def end(self):
        try:
            pid = self.status()["pid"]
        except Exception:
            pid = 0
        if pid:
            os.kill(pid, signal.SIGKILL)
        while str(self.drive) in mount_points():
            subprocess.run(["umount", "-l", self.drive], check=True, timeout=SECONDS)
        point = MountPoint(self.drive)
        point.release()
        point.close()


@pytest.fixture
def second(own):
    own.start()
    other = Second(own)
    try:
        other.enroll()
        other.mount()
        yield other
    finally:
        other.end()


def test_two_machines_work_on_one_store(own, second, program):
    first = own.machine()
    assert own.status()["shared_with"] == [second.status()["machine"]]
    assert second.status()["shared_with"] == [first]
    for machine in (own, second):
        with pytest.raises(CommandFailed, match="mounted"):  # by each machine once
            machine.fsdriver("mount", "--detach")
    assert f"is mounted by {first} as well" in second.fsdriver("status").stdout
    folder = next(path.relative_to(own.drive) for path in sorted(own.drive.iterdir()) if path.is_dir())
    here, there = own.drive / folder / "letter", second.drive / folder / "letter"
    program.put(here, "by the first")
    assert program.get(there) == "by the first"
    program.put(there, "by the second")
    assert program.get(here) == "by the second"
    sealed = (own.store / folder / "letter").read_bytes()
    assert there.read_bytes() == sealed  # to who is not listed, on either machine
    own.everything_arrived()
    eventually(lambda: second.status()["spool"]["waiting"] == 0)
    opened = [record for record in own.records("open") if record["file"]["path"] == f"/{folder}/letter"]
    assert {record["machine"] for record in opened} == {first, second.status()["machine"]}
    assert own.records("conflict") == own.records("rollback") == own.records("damaged") == []
    assert own.records("rollback-seen") == []
    assert own.verify()

    # A machine that is banned loses its keys; the other goes on with the same files.
    own.keyserver("machine", "ban", second.status()["machine"])
    eventually(lambda: _refused(program, there))
    program.put(here, "still at work")
    assert program.get(here) == "still at work"

    # And whose daemon is killed is no longer named, and nobody waits for it.
    second.end()
    eventually(lambda: own.status()["shared_with"] == [])
    program.put(here, "alone")
    assert program.get(here) == "alone"


def test_an_old_copy_that_the_opener_never_saw_newer_is_known_to_the_server(own, second, program):
    """Whoever has the share puts the state before the last back; the machine that opens it has not met the last one."""
    folder = next(path.relative_to(own.drive) for path in sorted(own.drive.iterdir()) if path.is_dir())
    here, there, stored = (top / folder / "offer" for top in (own.drive, second.drive, own.store))
    minutes = "minutes"  # which both work on
    program.put(here, "first")
    program.put(here.with_name(minutes), "by the first")
    _wait_for(STEP)
    program.put(here, "second")
    old = stored.read_bytes()
    program.put(here, "third")
    program.put(there.with_name(minutes), "by the second")
    stored.with_name("part").write_bytes(old)
    stored.with_name("part").rename(stored)
    _wait_for(SKEW)
    assert program.get(there) == "second"
    assert program.get(here.with_name(minutes)) == program.get(there.with_name(minutes)) == "by the second"
    assert program.get(there) == "second"
    (seen,) = eventually(lambda: own.records("rollback-seen"), 2 * SECONDS)
    path = f"/{folder}/offer"
    said = dict(pair.split("=", 1) for pair in seen["detail"].split())
    (closed, *_) = [one for one in own.records("close") if one["file"].get("generation") == int(said["newest"])]
    opened = [one for one in own.records("open", machine=second.status()["machine"]) if one["file"]["path"] == path]
    assert (seen["machine"], seen["file"]["path"]) == ("server", path)
    assert (said["known-by"], said["opened-by"]) == (own.machine(), second.status()["machine"])
    assert (said["known"], said["opened"]) == (closed["time"], opened[0]["time"])
    assert seen["file"]["generation"] == opened[0]["file"]["generation"] < int(said["newest"])
    assert own.records("rollback") == own.records("conflict") == []
    assert path in own.keyserver("audit", "list", "--event", "rollback-seen").stdout
    assert own.verify()


def _wait_for(seconds):
    """Until the machines' clocks can tell what was before from what comes."""
    end = time.time() + seconds
    eventually(lambda: time.time() > end, SECONDS + seconds)


def _refused(program, path):
    try:
        program.get(path)
    except Refused:
        return True
    return False
