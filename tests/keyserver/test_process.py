"""The real commands: a server process of its own, killed and stopped; nothing in clear in its home."""

import base64
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key

from fsdriver.content.keyfile import KeyFile
from keyserver import client as c
from keyserver.client import JoinToken, enrol
from keyserver.home import Home
from keyserver.keys.labels import LabelKeys
from keyserver.messages import RecordBatch, SyncRequest
from keyserver.secret_store import open_store
from keyserver.service import unseal
from keyserver.store import Store
from tests.keyserver.company import POLICY, PatientClient, TestMachine
from tests.patience import PATIENCE, taken, within

PASSPHRASE = "a passphrase nobody guesses"


def keyserver(home, *words, code=0, pass_fds=()):
    done = subprocess.run(
        [sys.executable, "-m", "keyserver", "--home", str(home), *words],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        pass_fds=pass_fds,
    )
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    return done


def ask(home, *words):
    return json.loads(keyserver(home, *words, "-o", "json").stdout)


@contextmanager
def serving(home):
    command = [sys.executable, "-m", "keyserver", "--home", str(home), "serve"]
    command += ["--agent", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)
        assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A server as its admin makes it."""
    folder = tmp_path_factory.mktemp("process")
    (folder / "passphrase").write_text(PASSPHRASE)
    (folder / "passphrase").chmod(0o600)
    policy = folder / "policy"
    policy.mkdir()
    for name, text in POLICY.items():
        (policy / name).write_text(text)
    home = folder / "server"
    keyserver(home, "init", "--company", "Acme", "--policy", str(policy), "--passphrase", f"file:{folder}/passphrase")
    return home


@pytest.fixture
def server(home):
    with serving(home) as process:
        yield process


def join(home):
    addresses = json.loads((home / "addresses.json").read_text())
    machine = TestMachine()
    if not any(user["name"] == "li" for user in ask(home, "user", "list")):
        ask(home, "user", "add", "li", "--department", "sales")
    token = keyserver(home, "token", "create", "--person", "1000=li").stdout.strip()
    answer = enrol(addresses["admin_url"], JoinToken.parse(token), machine.request())
    machine.id, machine.certificate = answer.machine, answer.certificate
    return machine, PatientClient(answer.agent_url, answer.authority, answer.certificate, machine.key)


def test_the_commands_of_an_admins_day(home, server):
    machine, client = join(home)
    leases = client.sync(SyncRequest(0, 0)).leases
    client.records(machine.batch(4))
    (row,) = [row for row in ask(home, "machine", "list") if row["id"] == machine.id]
    assert (row["name"], row["state"]) == ("desk-7", "active")
    assert {row["state"] for row in ask(home, "lease", "list")} == {"active"}
    assert ask(home, "lease", "revoke", leases[0].lease)["state"] == "revoked"
    assert len(client.sync(SyncRequest(0, 0)).leases) == len(leases) - 1
    assert ask(home, "lease", "restore", leases[0].lease)["state"] == "restored"
    assert ask(home, "key", "rotate", "sales/clients")["version"] == 2
    assert ask(home, "user", "disable", "li")["active"] is False
    assert client.sync(SyncRequest(0, 0)).leases == ()
    assert ask(home, "user", "enable", "li")["active"] is True
    assert "sales.yaml" in ask(home, "policy", "show")["files"]
    assert ask(home, "policy", "upload", str(home.parent / "policy"))["bundle"] > 1
    assert len(ask(home, "label", "list")) == 4
    assert ask(home, "machine", "map", machine.id, "1001=li")["logins"] == {"1000": "li", "1001": "li"}
    assert ask(home, "machine", "ban", machine.id)["state"] == "banned"
    with pytest.raises(c.Banned):
        client.sync(SyncRequest(0, 0))
    client.close()

    opened = keyserver(home, "audit", "list", "--machine", machine.id[:8], "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["seq"] for line in opened] == [1, 2, 3, 4]
    assert len(ask(home, "audit", "list", "--user", "li", "--event", "open")) == 4
    assert [each["event"] for each in ask(home, "audit", "list", "--event", "ban")] == ["ban"]
    assert len(ask(home, "audit", "list", "--since", "1h", "--limit", "2")) == 2
    assert ask(home, "audit", "list", "--since", "2099-01-01T00:00Z") == []
    assert ask(home, "audit", "list", "--file", "/none") == []
    assert ask(home, "audit", "verify")["records"] > 20
    assert ask(home, "audit", "proof", "0")["position"] == 0
    assert ask(home, "audit", "consistency", "1")["size"] == 1
    note = home.parent / "checkpoint"
    note.write_text(keyserver(home, "audit", "checkpoint").stdout)
    keyserver(home, "audit", "verify", "--checkpoint", str(note))
    assert "LABEL" not in keyserver(home, "audit", "list").stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nonsense"], 2),
        (["token", "create", "--person", "x=li"], 2),
        (["token", "create", "--person", "1=nobody"], 4),
        (["machine", "ban", "../../x"], 4),
        (["lease", "revoke", "0"], 4),
        (["key", "rotate", "sales/none"], 4),
        (["audit", "proof", "1000000"], 4),
        (["audit", "list", "--since", "yesterday"], 2),
        (["serve"], 5),
    ],
)
def test_exit_codes(home, server, words, code):
    assert keyserver(home, *words, code=code).stderr


def test_commands_say_when_no_server_runs(home, tmp_path):
    assert "start" in keyserver(home, "machine", "list", code=6).stderr
    assert "init" in keyserver(tmp_path / "none", "machine", "list", code=6).stderr
    assert "init" in keyserver(tmp_path / "none", "serve", code=6).stderr
    assert "init" in keyserver(tmp_path / "none", "audit", "verify", code=6).stderr
    keyserver(home, "audit", "verify")


def test_init_loses_nothing_it_finds(home):
    policy = str(home.parent / "policy")
    assert "already holds" in keyserver(home, "init", "--policy", policy, code=5).stderr


def test_init_without_a_passphrase_or_a_policy_makes_nothing(home, tmp_path):
    policy = str(home.parent / "policy")
    where = tmp_path / "new"
    assert "fd:99" in keyserver(where, "init", "--policy", policy, "--passphrase", "fd:99", code=6).stderr
    assert not (where / "config.json").exists()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "sales.yaml").write_text("department: sales\nlables: []\n")
    assert "sales.yaml:2:1" in keyserver(where, "init", "--policy", str(tmp_path / "bad"), code=1).stderr


def test_a_server_stays_sealed_without_its_passphrase(home):
    passphrase = home.parent / "passphrase"
    passphrase.write_text("wrong")
    try:
        assert "wrong passphrase" in keyserver(home, "serve", "--agent", "127.0.0.1:0", code=6).stderr
    finally:
        passphrase.write_text(PASSPHRASE)


def test_stopping_is_clean_and_signs_the_last_checkpoint(home):
    def stop():
        with serving(home) as process:
            _, client = join(home)
            with client.events(0) as stream:
                next(iter(stream))
                process.send_signal(signal.SIGTERM)
                seconds = taken(lambda: process.wait(PATIENCE))
            client.close()
        assert process.returncode == 0
        assert not (home / "addresses.json").exists()
        return seconds

    within(5, stop)
    found = ask(home, "audit", "verify")
    assert found["records"] == found["checkpointed"]


def test_kill_9_during_ingest_loses_nothing_acknowledged(home):
    with serving(home) as process:
        machine, client = join(home)
        acknowledged = client.records(machine.batch(50)).acknowledged
        killer = threading.Timer(1.0, lambda: os.kill(process.pid, signal.SIGKILL))
        killer.start()
        try:
            while True:
                acknowledged = client.records(machine.batch(50)).acknowledged
        except c.ClientError:
            pass
        killer.join()
        assert process.wait(PATIENCE) == -signal.SIGKILL
        client.close()
    assert acknowledged > 0
    ask(home, "audit", "verify")
    with serving(home):
        assert ask(home, "audit", "verify")["records"] > acknowledged
        url = json.loads((home / "addresses.json").read_text())["agent_url"]
        again = PatientClient(url, (home / "authority.pem").read_text(), machine.certificate, machine.key)
        kept = again.records(RecordBatch(1, bytes(32), b"")).acknowledged
        assert acknowledged <= kept <= acknowledged + 50
        again.close()


def test_a_tampered_log_is_exit_code_7_and_names_the_row(home, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    with sqlite3.connect(copy / "keyserver.db") as connection:
        connection.execute(
            'UPDATE record SET body = replace(body, \'"event":"init"\', \'"event":"open"\') WHERE position = 0'
        )
    connection.close()
    failed = keyserver(copy, "audit", "verify", code=7)
    assert "row 0" in failed.stderr
    assert failed.stdout == ""


def test_a_labels_keys_go_into_a_file_once_and_not_without_a_record(home, server, tmp_path):
    keyserver(home, "key", "rotate", "sales/contracts")
    out = tmp_path / "contracts.keys"
    said = keyserver(home, "key", "export", "sales/contracts", "--out", str(out), "-o", "json")
    assert "opens every file of sales/contracts" in said.stderr
    exported = json.loads(said.stdout)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    root, store = unseal(Home(home)), Store(Home(home).database, read_only=True)
    with store.read() as rows:
        labels = LabelKeys(root, rows)
    store.close()
    key_id = bytes.fromhex(labels.label(exported["id"]).key_id)
    versions = labels.versions(exported["id"])
    assert KeyFile.load(out).label_keys == {(key_id, number): bytes(key) for number, key in versions.items()}
    assert list(versions) == exported["versions"] == [1, 2]
    (record,) = ask(home, "audit", "list", "--event", "key-exported")
    assert record["user"] == "admin"
    assert "name=sales/contracts" in record["detail"]
    assert "versions=1,2" in record["detail"]

    before = out.read_bytes()
    assert "already" in keyserver(home, "key", "export", "sales/contracts", "--out", str(out), code=5).stderr
    assert out.read_bytes() == before
    other = tmp_path / "other.keys"
    keyserver(home, "key", "export", "sales/nothing", "--out", str(other), code=4)
    keyserver(home, "key", "export", "sales/contracts", "--out", str(tmp_path / "no" / "folder"), code=4)
    assert not other.exists()
    assert len(ask(home, "audit", "list", "--event", "key-exported")) == 1


def test_without_the_running_server_no_key_is_exported(home, tmp_path):
    keyserver(home, "key", "export", "sales/contracts", "--out", str(tmp_path / "keys"), code=6)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("words", [["user", "add"], ["key"], ["serve"], ["audit", "list"], []])
def test_help_needs_no_home(words, monkeypatch):
    monkeypatch.delenv("KEYSERVER_HOME", raising=False)
    command = [sys.executable, "-m", "keyserver", *words]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Usage: keyserver" in shown.stdout


def test_a_command_needs_a_home(monkeypatch):
    monkeypatch.delenv("KEYSERVER_HOME", raising=False)
    done = subprocess.run([sys.executable, "-m", "keyserver", "user", "list"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--home" in done.stderr


def test_nothing_secret_lies_in_the_home(home, server):
    """The root key, every key below it, the passphrase and join secrets: not raw, not hex, not base64, in no file."""
    join(home)
    opened = Home(home)
    config = opened.config()
    root_text = open_store(config.secrets, home=home, service="keyserver").require(f"root-key.{config.company}")
    root = unseal(opened)
    store = Store(opened.database, read_only=True)
    with store.read() as rows:
        secrets = [base64.b64decode(root_text)]
        secrets += [root.unwrap(rows.settings.wrapped(n), n) for n in ("authority-key", "bundle-key", "log-key")]
        labels = LabelKeys(root, rows)
        secrets += [bytes(key) for label in labels.labels for key in labels.versions(label).values()]
    store.close()
    authority_key = load_der_private_key(secrets[1], None)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    secrets.append(authority_key.private_numbers().private_value.to_bytes(32, "big"))
    assert len(secrets) >= 9
    files = [path for path in home.rglob("*") if path.is_file()]
    contents = {path: path.read_bytes() for path in files}
    assert {"keyserver.db", "secrets.sealed", "keyserver.db-wal"} <= {path.name for path in files}
    for secret in secrets:
        forms = {secret, secret.hex().encode(), secret.hex().upper().encode()}
        for shift in range(3):  # base64 of the key within something longer
            encoded = base64.b64encode(bytes(shift) + secret)
            forms.add(encoded[4 * bool(shift) : len(encoded) - 4])
            forms.add(base64.urlsafe_b64encode(bytes(shift) + secret)[4 * bool(shift) : len(encoded) - 4])
        for path, content in contents.items():
            for form in forms:
                assert form not in content, path
    for path, content in contents.items():
        assert PASSPHRASE.encode() not in content, path
        assert b"PRIVATE KEY" not in content, path
    token = (home / "admin-token").read_text().strip().split(".")[2]
    password = (home / "admin-password").read_text().strip()
    for path, content in contents.items():
        assert token.encode() not in content or path.name == "admin-token"
        assert password.encode() not in content or path.name == "admin-password"
    assert msgspec.json.decode(contents[home / "config.json"])["secrets"]["backend"] == "sealed-file"
