"""Promise P4: no open that succeeded is without a record, whatever is killed when (docs/threat-model.md)."""

import random
import re
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.endtoend.company import LISTED, eventually, pids
from tests.patience import PATIENCE

CLIENT = r"""
import os, sys, time
path, log = sys.argv[1], os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = 0
while True:
    number += 1
    name = f"{path}.{os.getpid()}.{number}"
    for flags in (os.O_CREAT | os.O_EXCL | os.O_WRONLY, os.O_RDONLY):
        try:
            fd = os.open(name, flags, 0o600)
        except OSError:
            time.sleep(0.005)
            break
        os.write(log, (("create " if flags & os.O_CREAT else "open ") + name + "\n").encode())
        try:
            if flags & os.O_CREAT:
                os.write(fd, name.encode())
            os.close(fd)
        except OSError:
            pass
"""


@contextmanager
def clients(company, log, count=3):
    """Programs that note by themselves, in a file elsewhere, every open that succeeded; in the end a hundred."""
    load = [
        subprocess.Popen([LISTED, "-I", "-c", CLIENT, company.drive / f"clients/k{number}", log], cwd="/")
        for number in range(count)
    ]
    try:
        yield
        eventually(lambda: len(noted(company, log)) > 100)
    finally:
        for client in load:
            client.kill()
            client.wait()


def noted(company, log):
    """What the clients noted: (event, path in the drive)."""
    top = str(company.drive)
    lines = [line.split(" ", 1) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [(event, path.rstrip("\n").removeprefix(top)) for event, path in lines]


def recorded(company):
    return {(record["event"], record["file"]["path"]) for record in company.records() if "file" in record}


def in_order(company):
    """Every machine's records are there once, in order, and the log verifies."""
    numbers = [record["seq"] for record in company.records() if record["machine"] != "server"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert company.verify()


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_a_killed_drive_loses_no_record(own, tmp_path, kills):
    own.start()
    log = tmp_path / "opens"
    log.touch()
    chance = random.Random(7)
    with clients(own, log):
        for _ in range(kills):
            time.sleep(chance.uniform(0.3, 1.5))
            own.kill_daemon()
            own.fsdriver("umount")  # the dead mount
            own.mount()
    own.everything_arrived()
    opens = noted(own, log)
    there = recorded(own)
    missing = [each for each in opens if each not in there]
    assert not missing
    in_order(own)
    # What was closed before a kill is there, whole.
    for event, path in opens[:: max(1, len(opens) // 50)]:
        if event == "open":
            assert (own.store / path.lstrip("/")).stat().st_size > 4096


@pytest.mark.slow
@pytest.mark.parametrize("call", ["pwrite64", "write", "openat"])
def test_a_drive_killed_at_a_system_call(own, tmp_path, call):
    own.start("--transport", "dev")
    log = tmp_path / "opens"
    log.touch()
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
         "-e", f"inject={call}:signal=SIGKILL:when=40", "-p", str(own.daemon_pid)],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with clients(own, log, count=2):
            eventually(lambda: not pids(b"fsdriver", b"mount", str(own.agent_home).encode()))
            own.fsdriver("umount")
            own.mount()
    finally:
        tracer.terminate()
        tracer.wait()
    own.everything_arrived()
    opens = noted(own, log)
    there = recorded(own)
    assert not [each for each in opens if each not in there]
    in_order(own)


def test_a_killed_server_takes_everything_once(own, tmp_path):
    own.start()
    log = tmp_path / "opens"
    log.touch()
    chance = random.Random(11)
    with clients(own, log):
        for _ in range(3):
            time.sleep(chance.uniform(0.2, 1.0))
            own.stop_server(signal.SIGKILL)
            own.start_server()
    eventually(lambda: own.status()["server"]["state"] == "connected")
    own.everything_arrived()
    there = recorded(own)
    opens = noted(own, log)
    assert not [each for each in opens if each not in there]
    in_order(own)


def traced(thread):
    return re.search(r"TracerPid:\t[1-9]", (thread / "status").read_text())


def test_opens_are_refused_when_no_record_can_be_kept(own):
    own.start()
    path = own.drive / "clients/a.txt"
    subprocess.run([LISTED, "-I", "-c", "import sys; open(sys.argv[1], 'w').write('x')", path], check=True)
    segment = sorted((own.agent_home / "spool").glob("*.seg"))[-1]
    calls = "write,pwrite64,writev,pwritev"
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-P", segment, "-e", f"trace={calls}",
         "-e", f"inject={calls}:error=ENOSPC", "-p", str(own.daemon_pid)],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually(lambda: all(map(traced, Path(f"/proc/{own.daemon_pid}/task").iterdir())))
        done = subprocess.run(["/usr/bin/head", path], capture_output=True, text=True, timeout=PATIENCE)
    finally:
        tracer.terminate()
        tracer.wait()
    assert "Input/output error" in done.stderr
    eventually(lambda: subprocess.run(["/usr/bin/head", path], capture_output=True).stdout == b"x")
    own.everything_arrived()
    in_order(own)
