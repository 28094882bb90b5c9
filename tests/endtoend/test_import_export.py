import json
import os
import signal
import subprocess
import sys

import pytest

from fsdriver.content import MAGIC
from tests.endtoend.company import ROOT, CommandFailed, eventually
from tests.endtoend.program import Refused


@pytest.fixture
def tree(tmp_path):
    """Files, folders, a symlink, modes and times."""
    top = tmp_path / "tree"
    for folder in ("a", "a/b", "empty"):
        (top / folder).mkdir(parents=True, exist_ok=True)
    for name, text in {"one.txt": "one", "a/two.txt": "two" * 50_000, "a/b/nothing": ""}.items():
        (top / name).write_text(text)
    (top / "a/b/link").symlink_to("../two.txt")
    (top / "one.txt").chmod(0o640)
    os.utime(top / "one.txt", ns=(10**18, 10**18 + 123))
    os.utime(top / "a", ns=(10**18, 10**18 + 456))
    return top


def test_a_tree_is_sealed_verified_and_deleted(company, program, tree):
    target = company.drive / "clients/imported"
    done = company.fsdriver("import", tree, target, "--delete")
    assert "4 sealed, 0 were there already, 0 failed" in done.stderr
    assert not tree.exists()
    assert program.get(target / "one.txt") == "one"
    assert program.get(target / "a/two.txt") == "two" * 50_000
    assert program.get(target / "a/b/nothing") == ""
    assert os.readlink(target / "a/b/link") == "../two.txt"
    facts = (target / "one.txt").stat()
    assert (facts.st_mode & 0o777, facts.st_mtime_ns) == (0o640, 10**18 + 123)
    assert (target / "a").stat().st_mtime_ns == 10**18 + 456
    assert (company.store / "clients/imported/one.txt").read_bytes().startswith(MAGIC)
    assert b"two" * 10 not in (company.store / "clients/imported/a/two.txt").read_bytes()


def test_a_conflict_keeps_both(company, program, tree):
    target = company.drive / "clients/conflict"
    target.mkdir()
    program.put(target / "one.txt", "another one")
    with pytest.raises(CommandFailed, match="exists and holds something else") as refused:
        company.fsdriver("import", tree, target, "--delete")
    assert refused.value.code == 5
    assert program.get(target / "one.txt") == "another one"
    assert (tree / "one.txt").read_text() == "one"
    assert program.get(target / "a/two.txt") == "two" * 50_000


def test_an_import_that_was_killed_is_run_again(company, program, tmp_path):
    source, target = tmp_path / "many", company.drive / "clients/many"
    source.mkdir()
    names = [f"{number:03}.bin" for number in range(120)]  # so many that it is not done before it is killed
    for number, name in enumerate(names):
        (source / name).write_bytes(bytes([number]) * 100_000)
    # fmt: off
    command = [sys.executable, "-m", "fsdriver", "--home", company.agent_home, "import", source, target, "--delete"]
    # fmt: on
    for _ in range(2):
        running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        before = len(list(source.iterdir()))
        eventually(lambda before=before: len(list(source.iterdir())) < before - 3)
        running.send_signal(signal.SIGKILL)
        running.wait()
        # Whatever is not in its place yet is still where it was.
        here = {path.name for path in target.iterdir() if path.suffix == ".bin"}
        assert here | {path.name for path in source.iterdir()} == set(names)
    assert source.exists()
    company.fsdriver("import", source, target, "--delete")
    assert not source.exists()
    assert sorted(os.listdir(target)) == names
    for number in (0, 31, 119):
        assert program.get(target / names[number]) == chr(number) * 100_000


def test_an_import_into_a_place_where_nothing_may_be_made(company, tree):
    with pytest.raises(CommandFailed) as refused:
        company.fsdriver("import", tree, company.top / "outside", "--delete")
    assert refused.value.code == 5
    assert (tree / "one.txt").read_text() == "one"


def test_export_is_for_who_may_with_any_program(company, program, tmp_path):
    program.put(company.drive / "handout/a.txt", "may leave")
    program.put(company.drive / "clients/secret.txt", "stays")
    company.fsdriver("export", company.drive / "handout/a.txt", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "may leave"
    assert company.fsdriver("export", company.drive / "handout/a.txt", "-").stdout == "may leave"
    with pytest.raises(CommandFailed, match="read refused by") as refused:
        company.fsdriver("export", company.drive / "clients/secret.txt", tmp_path / "secret.txt")
    assert refused.value.code == 3
    assert not (tmp_path / "secret.txt").exists()
    with pytest.raises(CommandFailed) as refused:
        company.fsdriver("export", company.drive / "handout/none.txt", tmp_path / "none.txt")
    assert refused.value.code == 4
    with pytest.raises(CommandFailed, match="exists already") as refused:
        company.fsdriver("export", company.drive / "handout/a.txt", tmp_path / "a.txt")
    assert refused.value.code == 5
    company.everything_arrived()
    exported = company.records("export")[0]
    assert exported["file"]["path"] == "/handout/a.txt"
    assert exported["to"] == str(tmp_path / "a.txt")
    assert exported["rule"].endswith("staff-hands-out")


def test_why(company, program):
    path = company.drive / "clients/why.txt"
    program.put(path, "x")
    english = company.fsdriver("why", path, "--program", "/usr/bin/head").stdout
    assert "staff-works" in english
    assert "plaintext" in english
    unlisted = json.loads(company.fsdriver("why", path, "-o", "json").stdout)
    assert (unlisted["view"], unlisted["because"], unlisted["label"]) == ("ciphertext", "default", "office/clients")
    chinese = company.fsdriver("why", path, "--lang", "zh").stdout
    assert any("\u4e00" <= letter <= "\u9fff" for letter in chinese)
    stranger = json.loads(
        company.fsdriver("why", path, "--user", "nobody", "--program", "/usr/bin/head", "-o", "json").stdout
    )
    assert stranger["view"] == "ciphertext"
    with pytest.raises(CommandFailed, match="not in the drive") as refused:
        company.fsdriver("why", "/etc/passwd")
    assert refused.value.code == 2


def test_unseal_needs_a_key_and_nothing_else(company, program, tmp_path):
    text = "long enough for more than one chunk " * 5000
    program.put(company.drive / "clients/sealed.txt", text)
    copy = tmp_path / "copy"
    copy.write_bytes((company.drive / "clients/sealed.txt").read_bytes())
    key_file = tmp_path / "keys.json"
    company.keyserver("key", "export", "office/clients", "--out", key_file)
    company.fsdriver("unseal", copy, "--key-file", key_file, "-o", tmp_path / "plain")
    assert (tmp_path / "plain").read_text() == text
    company.fsdriver("salvage", copy, "--key-file", key_file, "-o", tmp_path / "salvaged")
    assert (tmp_path / "salvaged").read_text() == text
    done = company.fsdriver("fsck", company.store, copy, "--key-file", key_file, "-o", "json", check=False)
    assert done.returncode in (0, 1), "other tests' files have keys that are not in this file"
    checked = done.stdout.splitlines()
    verdicts = {facts["path"]: facts["verdict"] for facts in map(json.loads, checked) if "path" in facts}
    assert verdicts[str(copy)] == verdicts[str(company.store / "clients/sealed.txt")] == "ok"
    key_file.write_text("{}")
    with pytest.raises(CommandFailed, match="label key") as refused:
        company.fsdriver("unseal", copy, "--key-file", key_file, "-o", tmp_path / "other")
    assert refused.value.code == 3
    assert not (tmp_path / "other").exists()


def test_putting_a_sealed_copy_back_gives_the_document_back(company, program, tmp_path):
    path = company.drive / "clients/back.txt"
    program.put(path, "mailed away")
    copy = tmp_path / "back.txt"
    subprocess.run(["cp", path, copy], check=True)
    program.unlink(path)
    with pytest.raises(Refused, match="ENOENT"):
        program.get(path)
    subprocess.run(["cp", copy, path], check=True)
    assert program.get(path) == "mailed away"
