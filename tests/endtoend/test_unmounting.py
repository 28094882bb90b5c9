import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.endtoend.company import ROOT, CommandFailed, eventually, mount_points, running
from tests.endtoend.program import Refused


def test_unmounting_while_files_are_open(own, program):
    """What was written is kept, what was read is gone from memory, nothing hangs."""
    own.start()
    path, read = own.drive / "clients/open.txt", own.drive / "clients/read.txt"
    program.put(path, "")
    program.put(read, "cached " * 1000)
    program.open("w", path, os.O_WRONLY)
    program.write("w", "written, not closed")
    program.open("r", read, os.O_RDONLY)
    program.read("r", 100)
    daemon = own.daemon_pid
    own.fsdriver("umount")
    assert str(own.drive) not in mount_points()
    eventually(lambda: not running(daemon))
    for name, act in (("w", "write"), ("r", "read")):
        with pytest.raises(Refused, match="ENOTCONN|EACCES|EIO|ECONNABORTED"):
            program.write(name, "x") if act == "write" else program.read(name, 100)
    own.mount()
    assert program.get(path) == "written, not closed"
    own.everything_arrived()
    assert "open" in own.records("unmount")[-1]["detail"]

    # A signal ends it as `fsdriver umount` does, and an umount(8) by root too.
    for end in (
        lambda: os.kill(own.daemon_pid, signal.SIGTERM),
        lambda: subprocess.run(["umount", own.drive], check=True),
    ):
        program.end_all()
        daemon = own.daemon_pid
        end()
        eventually(lambda daemon=daemon: not running(daemon))
        assert str(own.drive) not in mount_points()
        (own.drive / "an ordinary folder again").mkdir()
        (own.drive / "an ordinary folder again").rmdir()
        own.mount()
        assert program.get(path) == "written, not closed"


def test_a_daemon_that_is_killed_while_it_is_asked_to_unmount(own):
    """Whatever it was doing then, the drive is unmounted and the folder an ordinary one."""
    own.start()
    daemon = own.daemon_pid
    os.kill(daemon, signal.SIGSTOP)
    asking = subprocess.Popen(
        [sys.executable, "-m", "fsdriver", "--home", own.agent_home, "umount"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    eventually(lambda: "poll" in Path(f"/proc/{asking.pid}/wchan").read_text())  # for an answer
    os.kill(daemon, signal.SIGKILL)
    said = asking.communicate(timeout=30)[1]
    assert (asking.returncode, said) == (0, "")
    assert str(own.drive) not in mount_points()
    (own.drive / "an ordinary folder again").mkdir()
    (own.drive / "an ordinary folder again").rmdir()
    with pytest.raises(CommandFailed, match="is not mounted") as failed:
        own.fsdriver("umount")
    assert failed.value.code == 6
    own.mount()
