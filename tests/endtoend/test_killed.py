"""Promise P4: no open that succeeded is without a record, whatever is killed when (docs/threat-model.md)."""

import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.endtoend.company import LISTED, eventually, pids

CLIENT = r"""
import os, sys, time
path, log = sys.argv[1], os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
end = time.monotonic() + float(sys.argv[3])
number = 0
while time.monotonic() < end:
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


def clients(company, log, seconds, count=3):
    """Programs that note by themselves, in a file elsewhere, every open that succeeded."""
    # fmt: off
    return [
        subprocess.Popen([LISTED, "-I", "-c", CLIENT, company.drive / f"clients/k{number}", log, str(seconds)], cwd="/")
        for number in range(count)
    ]
    # fmt: on


def noted(company, log):
    """What the clients noted: (event, path in the drive)."""
    top = str(company.drive)
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    return [(event, path.removeprefix(top)) for event, path in lines]


def recorded(company):
    return {(record["event"], record["file"]["path"]) for record in company.records() if "file" in record}


def in_order(company):
    """Every machine's records are there once, in order, and the log verifies."""
    numbers = [record["seq"] for record in company.records() if record["machine"] != "server"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert company.verify()


@pytest.mark.parametrize("seconds", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_drive_loses_no_record(own, tmp_path, seconds):
    own.start()
    log = tmp_path / "opens"
    log.touch()
    load = clients(own, log, seconds)
    kills, chance = 0, random.Random(7)
    try:
        while any(client.poll() is None for client in load):
            time.sleep(chance.uniform(0.3, 1.5))
            own.kill_daemon()
            kills += 1
            own.fsdriver("umount")  # the dead mount
            own.mount()
    finally:
        for client in load:
            client.kill()
            client.wait()
    assert kills >= 2
    own.everything_arrived()
    opens = noted(own, log)
    assert len(opens) > 100
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
    load = clients(own, log, 6, count=2)
    try:
        for client in load:
            client.wait(30)
    finally:
        tracer.terminate()
        tracer.wait()
    killed = not pids(b"fsdriver", b"mount", str(own.agent_home).encode())
    assert killed
    own.fsdriver("umount")
    own.mount()
    own.everything_arrived()
    opens = noted(own, log)
    there = recorded(own)
    assert not [each for each in opens if each not in there]
    in_order(own)


def test_a_killed_server_takes_everything_once(own, tmp_path):
    own.start()
    log = tmp_path / "opens"
    log.touch()
    load = clients(own, log, 6)
    chance = random.Random(11)
    try:
        while any(client.poll() is None for client in load):
            time.sleep(chance.uniform(0.2, 1.0))
            own.stop_server(signal.SIGKILL)
            own.start_server()
    finally:
        for client in load:
            client.kill()
            client.wait()
    eventually(lambda: own.status()["server"]["state"] == "connected", 60)
    eventually(lambda: own.status()["spool"]["waiting"] == 0, 60)
    there = recorded(own)
    opens = noted(own, log)
    assert len(opens) > 100
    assert not [each for each in opens if each not in there]
    in_order(own)


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
        eventually(lambda: re.search(r"TracerPid:\t[1-9]", Path(f"/proc/{own.daemon_pid}/status").read_text()))
        done = subprocess.run(["/usr/bin/head", path], capture_output=True, text=True, timeout=20)
    finally:
        tracer.terminate()
        tracer.wait()
    assert "Input/output error" in done.stderr
    eventually(lambda: subprocess.run(["/usr/bin/head", path], capture_output=True).stdout == b"x")
    own.everything_arrived()
    in_order(own)
