"""What goes wrong gets a clear error and an exit code, and loses nothing."""

import json
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from tests.endtoend.company import POLICY, ROOT, CommandFailed, Company, eventually, mount_points, our
from tests.endtoend.program import Refused

PUT = "import sys; open(sys.argv[1], 'w').write('kept')"


@contextmanager
def fails(code, match):
    with pytest.raises(CommandFailed, match=match) as refused:
        yield
    assert refused.value.code == code
    assert "Traceback" not in refused.value.message


@pytest.fixture(scope="module")
def other():
    """Another company."""
    other = Company()
    try:
        other.start()
        subprocess.run(["/usr/bin/python3.11", "-I", "-c", PUT, other.drive / "kept.txt"], check=True)
        yield other
        if str(other.drive) not in mount_points():
            other.mount()
        shown = subprocess.run(["/usr/bin/head", other.drive / "kept.txt"], capture_output=True, text=True)
        assert shown.stdout == "kept"
    finally:
        other.end()


# ---- policy and tokens ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        ("department: [sales\nlabels: {", r"sales\.yaml:\d+:\d+: "),
        ("department: sales\nlabels: [{name: x, folders: [/x/**], colour: red}]\n", r"sales\.yaml:2:\d+: .*colour"),
        (
            "department: sales\nrules: [{name: r, users: [li], programs: [nothing], labels: []}]\n",
            r"sales\.yaml:2:\d+: ",
        ),
    ],
    ids=["not-yaml", "unknown-key", "unknown-program"],
)
def test_a_broken_policy_changes_nothing(company, tmp_path, broken, match):
    folder = tmp_path / "policy"
    shutil.copytree(POLICY, folder)
    (folder / "sales.yaml").write_text(broken)
    before = company.status()["policy"]
    with fails(1, match):
        company.keyserver("policy", "upload", folder)
    assert company.status()["policy"] == before


def enroll(company, token, home, **options):
    return our(
        "fsdriver", "--home", home, "enroll", "--server", company.facts["console"], "--store", home / "store",
        "--drive", home / "drive", "--passphrase", f"file:{company.directory}/passphrase", text=token, **options,
    )  # fmt: skip


def token(company, *options):
    return company.keyserver("token", "create", *options).stdout


def test_a_token_is_used_once(company, tmp_path):
    once = token(company)
    enroll(company, once, tmp_path / "first")
    with fails(3, "used"):
        enroll(company, once, tmp_path / "second")
    assert not (tmp_path / "second/config.json").exists()


def test_a_token_expires(company, tmp_path):
    short = token(company, "--minutes", "0.01")
    time.sleep(0.8)
    with fails(3, "expired|old"):
        enroll(company, short, tmp_path / "home")


def test_nonsense_is_no_token(company, tmp_path):
    with fails(1, "token"):
        enroll(company, "nonsense", tmp_path / "home")


def test_a_server_that_is_not_the_tokens(company, other, tmp_path):
    """Its CA is not the one whose fingerprint the token carries: nothing is sent to it."""
    with fails(7, "does not show the authority named in the join token"):
        enroll(company, token(other), tmp_path / "home")


def test_a_home_that_is_taken(company):
    with fails(1, "already the home of an enrolled machine"):
        enroll(company, token(company), company.agent_home)


# ---- mounting ------------------------------------------------------------------------------------------------------


@pytest.fixture
def unmounted(other):
    """Another company whose drive is not mounted."""
    if str(other.drive) in mount_points():
        other.fsdriver("umount")
    return other


@contextmanager
def config(company, **changed):
    """config.json with other values."""
    path = company.agent_home / "config.json"
    before = path.read_bytes()
    path.write_text(json.dumps(json.loads(before) | changed))
    try:
        yield
    finally:
        path.write_bytes(before)


def test_a_store_of_another_company(unmounted, company):
    with config(unmounted, store=str(company.store)), fails(5, "belongs to another company"):
        unmounted.mount()


def test_a_certificate_of_another_company(unmounted, company):
    """The server closes the door; without its policy nothing is mounted."""
    address = json.loads((company.server_home / "addresses.json").read_text())["agent_url"]
    last = unmounted.agent_home / "last-sync.json"
    authority = unmounted.agent_home / "authority.pem"
    kept, ours = last.read_bytes(), authority.read_bytes()
    last.unlink()
    try:
        with config(unmounted, agent_url=address), fails(6, "no policy is here yet"):
            unmounted.mount()  # their certificate does not verify for us
        authority.write_bytes((company.agent_home / "authority.pem").read_bytes())
        with config(unmounted, agent_url=address), fails(6, "no policy is here yet"):
            unmounted.mount()  # ours does not for them
    finally:
        last.write_bytes(kept)
        authority.write_bytes(ours)


def test_a_mount_point_that_is_not_empty(unmounted):
    mine = unmounted.drive / "mine.txt"
    mine.write_text("mine")
    with fails(1, "the mount point is not empty"):
        unmounted.mount()
    assert mine.read_text() == "mine"
    mine.unlink()


def test_a_second_mount(company, program):
    program.put(company.drive / "a.txt", "here")
    with fails(5, "mounted on this machine already"):
        company.mount()
    assert program.get(company.drive / "a.txt") == "here"


def test_a_store_with_files_that_are_no_store(unmounted, tmp_path):
    (tmp_path / "letter.txt").write_text("unsealed")
    with config(unmounted, store=str(tmp_path)), fails(5, "fsdriver import"):
        unmounted.mount()
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_a_store_that_is_not_there(unmounted, tmp_path):
    with config(unmounted, store=str(tmp_path / "gone")), fails(1, "gone"):
        unmounted.mount()


def test_a_home_that_others_can_read(unmounted):
    unmounted.agent_home.chmod(0o755)
    with fails(6, "mode 0700"):
        unmounted.mount()
    unmounted.agent_home.chmod(0o700)


def test_a_home_where_nobody_enrolled(tmp_path):
    with fails(6, "fsdriver enroll"):
        our("fsdriver", "--home", tmp_path / "none", "mount")


def test_an_unknown_setting(unmounted):
    with config(unmounted, colour="red"), fails(6, "colour"):
        unmounted.mount()


@pytest.mark.parametrize(("text", "match"), [(None, "passphrase"), ("wrong", "passphrase")], ids=["missing", "wrong"])
def test_a_passphrase(unmounted, text, match):
    path = unmounted.directory / "passphrase"
    kept = path.read_bytes()
    path.unlink() if text is None else path.write_text(text)
    try:
        with fails(1, match):
            unmounted.mount()
    finally:
        path.write_bytes(kept)
        path.chmod(0o600)


def test_a_passphrase_is_asked_for(unmounted):
    """By the command that was typed, before it goes to the background."""
    kept = (unmounted.directory / "passphrase").read_text()
    secrets = {"backend": "sealed-file", "passphrase": "prompt"}
    with config(unmounted, secrets=secrets):
        pid, terminal = pty.fork()
        if not pid:
            os.chdir(ROOT)
            command = [sys.executable, "-m", "fsdriver", "--home", str(unmounted.agent_home), "mount", "--detach"]
            os.execv(sys.executable, command)
        try:
            shown = b""
            while b"assphrase" not in shown:
                shown += os.read(terminal, 1000)
            os.write(terminal, kept.encode())
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
        finally:
            os.close(terminal)
        eventually(lambda: unmounted.status()["server"]["state"] == "connected")


def test_a_torn_spool_tail(unmounted):
    """What a power cut left half written: cut off, and said in a record."""
    newest = sorted(unmounted.agent_home.glob("spool/*.seg"))[-1]
    with newest.open("ab") as spool:
        spool.write(b"\x00\x00\x01\x00half a record")
    unmounted.mount()
    unmounted.everything_arrived()
    numbers = [record["seq"] for record in unmounted.records() if record["machine"] != "server"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert unmounted.verify()
    unmounted.fsdriver("umount")


# ---- the store -----------------------------------------------------------------------------------------------------


def test_a_header_of_a_version_nobody_knows(company, program):
    path = company.drive / "clients/newer.txt"
    program.put(path, "from the future")
    stored = company.store / "clients/newer.txt"
    before = stored.read_bytes()
    major = 8
    changed = before[:major] + bytes([before[major] ^ 0x7E]) + before[major + 1 :]
    stored.write_bytes(changed)
    with pytest.raises(Refused, match="EIO"):
        program.get(path)
    assert path.read_bytes() == changed
    program.put(company.drive / "clients/other.txt", "unaffected")
    assert program.get(company.drive / "clients/other.txt") == "unaffected"
    company.everything_arrived()
    assert company.records("damaged")[-1]["file"]["path"] == "/clients/newer.txt"
    with fails(1, "version|format"):
        company.fsdriver("info", stored)
    stored.write_bytes(before)
    assert program.get(path) == "from the future"


def fill(company, program):
    for number in range(40):
        program.put(company.drive / f"clients/{number}.txt", "x" * (1 << 20))


@pytest.mark.slow
def test_a_full_disk(tmp_path, program):
    image, top = tmp_path / "image", tmp_path / "small"
    image.touch()
    os.truncate(image, 24 << 20)
    top.mkdir()
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, top], check=True)
    small = Company(top)
    (top / "lost+found").rmdir()
    try:
        small.start()
        program.put(small.drive / "clients/before.txt", "before")
        with pytest.raises(Refused, match="ENOSPC"):
            fill(small, program)
        for path in small.store.glob("clients/?.txt"):
            program.unlink(small.drive / "clients" / path.name)
        assert program.get(small.drive / "clients/before.txt") == "before"
        program.put(small.drive / "clients/after.txt", "after")
        eventually(lambda: small.status()["spool"]["waiting"] == 0)
        assert small.verify()
        small.stop()
    finally:
        small.halt()
        subprocess.run(["umount", top], check=True)


# ---- the server ----------------------------------------------------------------------------------------------------


def test_a_database_of_a_newer_version(unmounted):
    unmounted.stop_server()
    database = unmounted.server_home / "keyserver.db"
    with sqlite3.connect(database) as connection:
        ((revision,),) = connection.execute("select version_num from alembic_version").fetchall()
        connection.execute("update alembic_version set version_num = '9999'")
    connection.close()
    for command in (("serve", "--agent", "127.0.0.1:0", "--admin", "127.0.0.1:0"), ("audit", "list")):
        with fails(6, "install the newer one"):
            unmounted.keyserver(*command)
    with sqlite3.connect(database) as connection:
        connection.execute("update alembic_version set version_num = ?", (revision,))
    connection.close()
    unmounted.start_server()


def test_a_second_server(company):
    with fails(5, "another process serves"):
        company.keyserver("serve", "--agent", "127.0.0.1:0", "--admin", "127.0.0.1:0")


def test_commands_without_a_server(unmounted):
    unmounted.stop_server()
    with fails(6, "no server runs"):
        unmounted.keyserver("machine", "list")
    unmounted.keyserver("audit", "list")
    unmounted.start_server()
