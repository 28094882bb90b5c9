"""What a record costs on its way: made in the daemon, shipped by it, taken by the key server. Processor time each.

    python -m benchmarks.record_cost [--records 20000] [--dir DIR]

The recorder and its spool, the shipping thread's calls over mutual TLS, and a real `keyserver serve` in a process of
its own. One machine, one burst after the other; printed are the least of all rounds and the median.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import msgspec

from fsdriver.audit_spool import AuditSpool
from fsdriver.enrolment import enrol_machine
from fsdriver.filesystem.recorder import Recorder
from fsdriver.identity import Caller
from fsdriver.machine import MachineHome
from keyserver.client import AgentClient
from keyserver.home import Addresses
from keyserver.secret_store import SecretSettings
from policy import ProgramFacts

KEYSERVER = [sys.executable, "-m", "keyserver", "--home"]
HERE = Path(__file__).parent
FACTS = ProgramFacts(path="/usr/bin/md5sum", packages=frozenset({"coreutils"}), clean=True)
CALLER = Caller(4711, 4711, 1000, 1000, 0, FACTS, "", "/usr/bin/md5sum", "9f" * 32, 4700, "/usr/bin/bash")


def keyserver(home: Path, *words: str) -> str:
    return subprocess.run([*KEYSERVER, str(home), *words], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def serving(room: Path) -> Iterator[tuple[Path, int]]:
    """A key server's home, and the number of its process."""
    home, passphrase = room / "server", room / "passphrase"
    passphrase.write_text("what nobody guesses")
    passphrase.chmod(0o600)
    policy = str(HERE / "policy")
    keyserver(home, "init", "--company", "Bench", "--policy", policy, "--passphrase", f"file:{passphrase}")
    command = [*KEYSERVER, str(home), "serve"]
    command += ["--agent", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise click.ClickException("the key server did not start")
            yield home, process.pid
        finally:
            process.terminate()


def enrolled(room: Path, server: Path) -> MachineHome:
    addresses = msgspec.json.decode((server / "addresses.json").read_bytes(), type=Addresses)
    keyserver(server, "user", "add", "li")
    token = keyserver(server, "token", "create", "--person", "1000=li")
    (room / "store").mkdir()
    secrets = SecretSettings("sealed-file", f"file:{room / 'passphrase'}")
    store, drive = room / "store", room / "drive"
    enrol_machine(room / "agent", addresses.admin_url, token, store=store, drive=drive, mode="root", secrets=secrets)
    return MachineHome.open(room / "agent")


def processor_seconds(pid: int) -> float:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def make(recorder: Recorder, inodes: list[Any], count: int) -> float:
    """Seconds of this thread for `count` records, an open and a close of each file in turn."""
    begun = time.thread_time()
    for number in range(count // 2):
        inode = inodes[number % len(inodes)]
        path = inode.path
        for event, size in (("open", 0), ("close", 14_000)):
            recorder.record(
                event,
                CALLER,
                inode,
                path=path,
                label="sales/clients",
                generation=3,
                view="plaintext",
                rule="sales/office-edits-clients",
                bytes_read=size,
            )
    return time.thread_time() - begun


def ship(spool: AuditSpool, client: AgentClient) -> tuple[float, int]:
    """Seconds of this thread, and batches."""
    begun, batches = time.thread_time(), 0
    while (batch := spool.batch()) is not None:
        spool.acknowledge(client.records(batch).acknowledged)
        batches += 1
    return time.thread_time() - begun, batches


@click.command()
@click.option("--records", default=20_000)
@click.option("--rounds", default=5)
@click.option("--dir", "directory", type=click.Path(exists=True, path_type=Path), help="Where spool and database go.")
def main(records: int, rounds: int, directory: Path | None) -> None:
    figures: dict[str, list[float]] = {"made": [], "shipped": [], "taken": []}
    with tempfile.TemporaryDirectory(dir=directory) as folder, serving(Path(folder)) as (server, pid):
        home = enrolled(Path(folder), server)
        identity = home.identity()
        client = AgentClient(home.config().agent_url, identity.authority, identity.certificate, identity.key)
        spool = AuditSpool(home.spool, identity.machine, time.time)
        views = SimpleNamespace(person=lambda uid: "li", policy=3)
        recorder = Recorder(spool, None, views)  # type: ignore[arg-type]
        inodes = [
            SimpleNamespace(file_id=os.urandom(16), path=f"/sales/clients/region-{n % 50}/document-{n}.docx")
            for n in range(1000)
        ]
        ship(spool, client)
        for _ in range(rounds):
            figures["made"].append(make(recorder, inodes, records) / records * 1e6)
            before = processor_seconds(pid)
            used, batches = ship(spool, client)
            figures["shipped"].append(used / records * 1e6)
            figures["taken"].append((processor_seconds(pid) - before) / records * 1e6)
        spool.close()
        client.close()
        for name, each in figures.items():
            click.echo(f"{name:8} {min(each):5.1f} us a record at best, {statistics.median(each):5.1f} in the median")
        click.echo(f"{records // batches} records a batch")


if __name__ == "__main__":
    main()
