"""The agent's side against the real key server: its own process, its own command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fsdriver import keyclient
from fsdriver.audit_spool import AuditSpool
from fsdriver.enrolment import enrol_machine
from fsdriver.errors import GrantRefused, LeaseMissing
from fsdriver.keyclient import KeyClient, starting_clock
from fsdriver.machine import MachineHome
from keyserver.client import TokenRefused
from keyserver.messages import FilePath
from keyserver.secret_store import SecretSettings
from policy import ProgramFacts
from tests.fsdriver.test_keyclient import Filesystem
from tests.patience import PATIENCE, eventually, within

ROOT = Path(__file__).parents[2]

POLICY = {
    "company.yaml": """
        company: Example
        zone: UTC
        default: internal
        labels: [{name: internal, level: internal}]
        programs: {reader: [{path: /usr/bin/head, package: coreutils}]}
    """,
    "sales.yaml": """
        department: sales
        labels:
          - {name: clients, level: confidential, folders: [/sales/clients/**], lease: 15m, offline: 8h}
          - {name: secrets, level: secret, folders: [/sales/secrets/**]}
        rules:
          - {name: reads, users: ["@sales"], programs: [reader], labels: [clients, secrets], allow: [read, create],
             view: plaintext}
    """,
}
READER = ProgramFacts("/usr/bin/head", packages=frozenset({"coreutils"}), clean=True)


class Server:
    """`keyserver serve` and its admin."""

    def __init__(self, directory):
        self.home = directory / "server"
        self.passphrase = directory / "passphrase"
        self.passphrase.write_text("correct horse")
        self.passphrase.chmod(0o600)
        self.password = directory / "admin-password"
        self.password.write_text("a long enough password")
        self.password.chmod(0o600)
        policy = directory / "policy"
        policy.mkdir()
        for name, text in POLICY.items():
            (policy / name).write_text(text)
        self.policy = policy
        # fmt: off
        self.run("init", "--company", "Example", "--name", "127.0.0.1", "--policy", str(policy),
                 "--passphrase", f"file:{self.passphrase}", "--admin-password-file", str(self.password))
        # fmt: on
        self.ports: tuple[int, ...] = (0, 0)
        self.start()

    def command(self, *arguments):
        return [sys.executable, "-m", "keyserver", "--home", str(self.home), *arguments]

    def run(self, *arguments):
        done = subprocess.run(self.command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self):
        agent, admin = (f"127.0.0.1:{port}" for port in self.ports)
        self.process = subprocess.Popen(self.command("serve", "--agent", agent, "--admin", admin), cwd=ROOT)
        eventually(lambda: (self.home / "addresses.json").exists() or self.process.poll() is not None)
        self.addresses = json.loads((self.home / "addresses.json").read_text())
        self.ports = tuple(int(self.addresses[name].rpartition(":")[2]) for name in ("agent_url", "admin_url"))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("company"))
    server.run("user", "add", "li", "--department", "sales")
    yield server
    server.stop()


class Machine:
    def __init__(self, server, directory, name):
        secrets = SecretSettings("sealed-file", f"file:{server.passphrase}")
        self.token = json.loads(server.run("token", "create", "--person", "1000=li", "-o", "json"))["token"]
        # fmt: off
        enrol_machine(directory / name, server.addresses["admin_url"], self.token, store=directory / "store",
                      drive=directory / "drive", mode="root", secrets=secrets, name=name)
        # fmt: on
        self.home = MachineHome.open(directory / name)
        self.open()

    def open(self):
        identity, clock = self.home.identity(), starting_clock(self.home)
        self.spool = AuditSpool(self.home.spool, identity.machine, clock.now)
        self.client = KeyClient(self.home, identity, self.spool, clock)
        self.filesystem = Filesystem()
        self.filesystem.client = self.client
        self.good = self.client.start(self.filesystem, wait=PATIENCE)

    def close(self):
        self.client.stop()
        self.spool.close()

    @property
    def label(self):
        assert self.client.bundle is not None
        return {label.qualified: label.id for label in self.client.bundle.labels}


@pytest.fixture
def machine(server, tmp_path, request, monkeypatch):
    monkeypatch.setattr(keyclient, "SYNC_TIMEOUT", PATIENCE)
    monkeypatch.setattr(keyclient, "RETRY_MAX", 0.5)
    machine = Machine(server, tmp_path, request.node.name[5:30])
    yield machine
    machine.close()


def test_a_machine_joins_and_holds_the_keys_policy_gives_it(server, machine):
    assert machine.good
    assert machine.client.logins == {1000: "li"}
    assert machine.client.bundle.label_for("/sales/clients/a").qualified == "sales/clients"
    assert len(bytes(machine.client.key_for(machine.label["sales/clients"]).secret)) == 32
    with pytest.raises(LeaseMissing):
        machine.client.key_for(machine.label["sales/secrets"])
    with pytest.raises(TokenRefused):
        # fmt: off
        enrol_machine(machine.home.path.parent / "second", server.addresses["admin_url"], machine.token,
                      store=Path("/s"), drive=Path("/d"), mode="root",
                      secrets=SecretSettings("sealed-file", f"file:{server.passphrase}"))
        # fmt: on


def test_a_secret_file_s_key_is_granted_again_and_refused_to_others(machine):
    ask = {
        "person": "li",
        "file_id": os.urandom(16),
        "label": machine.label["sales/secrets"],
        "path": "/sales/secrets/a",
        "timeout": PATIENCE,
    }
    born = machine.client.grant(program=READER, action="create", **ask)
    wrap = {"key_id": born.key_id, "version": born.version, "wrapped": born.wrapped}
    again = machine.client.grant(program=READER, action="read", **ask, **wrap)
    assert again.file_key == born.file_key
    assert again.rule == "sales/reads"
    with pytest.raises(GrantRefused):
        machine.client.grant(program=ProgramFacts("/usr/bin/cat", clean=True), action="read", **ask, **wrap)


def test_records_reach_the_log(server, machine):
    for number in range(3):
        machine.spool.append("open", user="li", uid=1000, file=FilePath(f"/sales/clients/{number}"), view="plaintext")
    assert machine.client.flush(PATIENCE)
    listed = [json.loads(line) for line in server.run("audit", "list", "-o", "jsonl").splitlines()]
    mine = [record for record in listed if record["machine"] == machine.spool.machine and record["event"] == "open"]
    assert [(record["seq"], record["file"]["path"]) for record in mine] == [
        (1, "/sales/clients/0"),
        (2, "/sales/clients/1"),
        (3, "/sales/clients/2"),
    ]


def test_a_revoked_lease_is_gone_within_a_second_and_receipted(server, machine):
    label = machine.label["sales/clients"]
    leases = json.loads(server.run("lease", "list", "-o", "json"))
    (lease,) = (x["id"] for x in leases if x["machine"] == machine.spool.machine and x["label"] == "sales/clients")

    def revoke():
        secret = machine.client.key_for(label).secret
        server.run("lease", "revoke", lease)
        begin = time.monotonic()
        eventually(lambda: secret.wiped)
        seconds = time.monotonic() - begin
        with pytest.raises(LeaseMissing):
            machine.client.key_for(label)
        server.run("lease", "restore", lease)
        eventually(lambda: machine.client.leases.holds(label, machine.client.clock.now()))
        return seconds

    within(1, revoke)
    eventually(lambda: f"lease={lease}" in server.run("audit", "list", "-o", "jsonl").partition('"forgotten"')[2])


def test_a_new_policy_arrives(server, machine):
    number = machine.client.bundle.number
    eventually(lambda: machine.client.status().state == "connected")
    text = POLICY["sales.yaml"].replace("unlisted: none", "").replace("name: reads,", "name: reads-more,")
    (server.policy / "sales.yaml").write_text(text)
    server.run("policy", "upload", str(server.policy))
    eventually(lambda: machine.client.bundle.number > number)
    eventually(lambda: ("bundle", machine.client.bundle.number) in machine.filesystem.told)
    (server.policy / "sales.yaml").write_text(POLICY["sales.yaml"])
    server.run("policy", "upload", str(server.policy))


def test_the_server_away_and_back(server, machine):
    label = machine.label["sales/clients"]
    server.stop()
    eventually(lambda: machine.client.status().state == "offline")
    machine.client.key_for(label)
    for _ in range(50):
        machine.spool.append("open", user="li")
    machine.close()
    machine.open()
    assert not machine.good
    assert machine.client.bundle is not None
    with pytest.raises(LeaseMissing):
        machine.client.key_for(label)
    server.start()
    eventually(lambda: machine.client.leases.holds(label, machine.client.clock.now()))
    assert machine.client.flush(PATIENCE)
    assert machine.client.status().spool_waiting == 0
    assert machine.client._checkpoint is not None
    assert machine.client.status().log_problem == ""


def test_a_banned_machine_forgets_everything(server, machine):
    secret = machine.client.key_for(machine.label["sales/clients"]).secret
    eventually(lambda: machine.client.status().state == "connected")
    server.run("machine", "ban", machine.spool.machine)
    eventually(lambda: ("logins", {}) in machine.filesystem.told)  # the last that a ban does
    assert secret.wiped
    assert machine.client.logins == {}
    assert machine.client.status().state == "banned"
