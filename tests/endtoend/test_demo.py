import json
import os
import stat

import pytest

from tests.endtoend.company import CommandFailed, Company, eventually, mount_points, our, pids


def demo(*arguments):
    return our("fsdriver", "demo", *arguments)


def test_the_demo_prints_what_scripts_build_on(company):
    assert {"drive", "store", "agent_home", "server_home", "console", "admin_password_file"} <= company.facts.keys()
    directory = str(company.directory)
    for name in ("drive", "store"):
        assert company.facts[name] == f"{directory}/{name}"
    assert company.facts["agent_home"] == f"{directory}/agent"
    assert company.facts["server_home"] == f"{directory}/server"
    assert company.facts["console"].startswith("https://127.0.0.1:")
    assert os.path.getsize(company.facts["admin_password_file"]) > 12
    assert company.facts["drive"] in mount_points()


def test_the_demo_says_that_it_is_one(company):
    assert "demo" in company.facts["note"]
    assert "Not for real files" in company.fsdriver("status").stdout


def test_the_folder_is_its_owners_alone(company):
    facts = company.directory.stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid) == (0o700, os.geteuid())
    for secret in ("passphrase", "server/admin-password", "server/admin-token", "server/secrets.sealed"):
        assert stat.S_IMODE((company.directory / secret).stat().st_mode) == 0o600


def test_the_folders_of_labels_are_there(company):
    assert {"brief", "clients", "handout", "payroll"} <= set(os.listdir(company.drive))


def test_one_file_is_two_things(company, program):
    path = company.drive / "clients/a.txt"
    program.put(path, "for listed programs")
    assert program.get(path) == "for listed programs"
    sealed = path.read_bytes()
    assert sealed == (company.store / "clients/a.txt").read_bytes()
    assert b"for listed programs" not in sealed
    assert company.fsdriver("info", path).stdout


def test_status_has_the_keys_that_scripts_build_on(company):
    status = json.loads(company.fsdriver("status", "-o", "json").stdout)
    assert {"pid", "drive", "store", "server", "policy", "leases", "spool"} <= status.keys()
    assert status["server"]["state"] == "connected"
    assert status["pid"] == company.daemon_pid
    wanted = {"company/internal", "office/brief", "office/clients", "office/handout"}
    eventually(lambda: {lease["label"] for lease in company.status()["leases"]} == wanted)  # one is lent for seconds


def test_machines_are_listed(company):
    machines = company.listed("machine")
    assert all({"id", "name", "state"} <= machine.keys() for machine in machines)
    assert [machine["state"] for machine in machines if machine["id"] == company.machine()] == ["active"]


def about(company, path):
    name = f"/{path.relative_to(company.drive)}"
    return [record for record in company.records() if record.get("file", {}).get("path") == name]


def test_records_are_canonical_and_verify(company, program):
    path = company.drive / "clients/recorded.txt"
    program.put(path, "text")
    program.get(path)
    path.read_bytes()
    # Nobody waits for the record of the last close.
    eventually(lambda: [record["view"] for record in about(company, path) if record["event"] == "close"][2:])
    listed = map(json.loads, company.keyserver("audit", "list", "-o", "jsonl").stdout.splitlines())
    seen = [
        (record["event"], record["view"], record["user"])
        for record in listed
        if record.get("file", {}).get("path") == "/clients/recorded.txt" and record["event"] != "copy"
    ]
    assert seen == [
        ("create", "plaintext", "root"), ("close", "plaintext", "root"),
        ("open", "plaintext", "root"), ("close", "plaintext", "root"),
        ("open", "ciphertext", "root"), ("close", "ciphertext", "root"),
    ]  # fmt: skip
    record = company.records("open")[-1]
    assert {"seq", "time", "machine", "event", "user", "file", "program", "view", "rule", "policy"} <= record.keys()
    assert company.verify()["records"] >= len(seen)


def test_info_of_a_path_and_of_a_sealed_copy(company, program, tmp_path):
    path = company.drive / "clients/facts.txt"
    program.put(path, "x" * 100)
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    wanted = {"chunk_size", "header_size", "chunk_overhead", "label", "key", "generation", "plain_size"}
    for place in (path, copy):
        facts = json.loads(company.fsdriver("info", place, "-o", "json").stdout)
        assert wanted <= facts.keys()
        assert facts["plain_size"] == 100
        assert (facts["chunk_size"], facts["header_size"], facts["chunk_overhead"]) == (32768, 4096, 36)


def test_a_second_start_is_a_conflict(company):
    with pytest.raises(CommandFailed, match="runs already") as refused:
        demo("--dir", company.directory, "--detach")
    assert refused.value.code == 5
    assert company.status()["server"]["state"] == "connected"


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    before = tmp_path.stat()
    with pytest.raises(CommandFailed, match="not a demo's folder") as refused:
        demo("--dir", tmp_path, "--detach")
    assert refused.value.code == 5
    assert os.listdir(tmp_path) == ["mine.txt"]
    assert tmp_path.stat().st_mode == before.st_mode


def test_somebody_elses_folder_is_refused(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    os.chown(theirs, 4242, 4242)
    with pytest.raises(CommandFailed, match="another user") as refused:
        demo("--dir", theirs, "--detach")
    assert refused.value.code == 3
    assert stat.S_IMODE(theirs.stat().st_mode) == 0o755


def test_stopping_what_is_no_demo(tmp_path):
    with pytest.raises(CommandFailed, match="not a demo's folder") as refused:
        demo("--dir", tmp_path, "--stop")
    assert refused.value.code == 4


def test_a_stopped_demo_starts_again_with_its_files(own, program):
    own.start()
    first = own.facts
    program.put(own.drive / "clients/kept.txt", "kept")
    own.stop()
    assert str(own.drive) not in mount_points()
    assert not pids(str(own.directory).encode())
    own.stop()  # nothing to do
    with pytest.raises(CommandFailed, match="not mounted") as refused:
        own.fsdriver("status")
    assert refused.value.code == 6
    own.policy = None
    assert own.start() == first
    assert own.status()["server"]["state"] == "connected"
    assert program.get(own.drive / "clients/kept.txt") == "kept"
    own.kill_daemon()
    own.stop_server(9)
    own.stop()  # what a crash left is cleared away
    assert str(own.drive) not in mount_points()
    (own.drive / "an ordinary folder again").mkdir()
    (own.drive / "an ordinary folder again").rmdir()
    own.start("--transport", "dev")
    assert program.get(own.drive / "clients/kept.txt") == "kept"
    own.everything_arrived()
    own.verify()


def test_a_broken_policy_is_told_and_the_next_try_works(own, tmp_path):
    broken = tmp_path / "policy"
    broken.mkdir()
    (broken / "office.yaml").write_text("department: office\nlabels: [{name: x, folders: [/x/**], levle: secret}]\n")
    good, own.policy = own.policy, broken
    with pytest.raises(CommandFailed, match=r"office\.yaml:2:\d+: .*levle") as refused:
        own.start()
    assert refused.value.code == 1
    own.policy = good
    own.start()


def test_the_sample_departments_and_a_table_for_people():
    own = Company()
    try:
        shown = our("fsdriver", "demo", "--dir", own.directory, "--detach").stdout
        assert f"drive                 {own.drive}\n" in shown
        assert "Not for real files" in shown
        assert {"design", "engineering", "finance", "sales"} == set(os.listdir(own.drive))
        assert not list(own.drive.glob("**/[*]"))
    finally:
        own.end()
    assert not own.top.exists()
    assert not pids(str(own.directory).encode())
