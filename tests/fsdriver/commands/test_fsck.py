import json
import os
import pty
import re
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fsdriver.commands.fsck import fsck
from fsdriver.content import Group, RedoLog
from fsdriver.content.checkup import Checked, Verdict
from fsdriver.exitcodes import ExitCode
from tests.fsdriver.content.samples import CHUNK, COMPANY, FILE_ID, LABEL_KEY, LABEL_KEY_ID, new_file, pattern, reopened
from tests.patience import PATIENCE
from tests.vectors import generate_content
from tests.vectors.content_vector import Vector

BAD = 4096 + CHUNK + 36 + 300
"""A byte of chunk 1."""


def sealed(path: Path, chunks: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
    file = new_file(fd)
    file.write(0, pattern(chunks * CHUNK + 7))
    file.close()
    os.close(fd)
    return path


def damaged(path: Path) -> Path:
    flip(sealed(path), BAD)
    return path


def flip(path: Path, *places: int) -> None:
    """Bits, as any byte that is written may be there already."""
    fd = os.open(path, os.O_RDWR)
    for at in places:
        os.pwrite(fd, bytes([os.pread(fd, 1, at)[0] ^ 1]), at)
    os.close(fd)


@pytest.fixture
def keys(tmp_path: Path) -> str:
    label_key = {"id": LABEL_KEY_ID.hex(), "version": 1, "key": LABEL_KEY.hex()}
    (tmp_path / "keys").write_text(json.dumps({"label_keys": [label_key]}))
    return str(tmp_path / "keys")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    (store / ".grantfs/redo").mkdir(parents=True)
    (store / ".grantfs/incoming").mkdir()
    (store / ".grantfs/redo/machine").touch()
    mark(store, COMPANY.hex())
    sealed(store / "whole")
    sealed(store / "folder/whole")
    return store


def mark(store: Path, company: str) -> None:
    facts = {"format": 1, "company": company, "chunk_size": 32768}
    (store / ".grantfs/store.json").write_text(json.dumps(facts))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(fsck, [str(argument) for argument in arguments])


def verdicts(*arguments: object) -> dict[str, str]:
    lines = [json.loads(line) for line in run(*arguments, "-o", "json").stdout.splitlines()]
    return {line["path"]: line["verdict"] for line in lines if "path" in line}


def files(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_a_whole_store_is_ok_and_only_the_summary_is_said(store, keys):
    done = run(store, "--key-file", keys)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "2 files: 2 ok\n")


def test_without_a_key_the_form_is_checked(store):
    done = run(store)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "2 files: 2 structure-ok\n")


def test_with_a_key_file_that_has_not_the_key_it_is_said_what_was_not_verified(store, tmp_path):
    (tmp_path / "none").write_text("{}")
    done = run(store, "--key-file", tmp_path / "none")
    assert done.exit_code == ExitCode.FAILED, "who asked for a verification did not get one"
    assert done.stdout.count("structure-ok") == 2
    assert "has neither file key" in done.stdout


def test_a_wrong_key_moves_nothing(store, tmp_path):
    label_key = {"id": LABEL_KEY_ID.hex(), "version": 1, "key": bytes(32).hex()}
    file_key = {"id": FILE_ID.hex(), "key": bytes(32).hex()}
    before = files(store)
    for document in ({"label_keys": [label_key]}, {"file_keys": [file_key]}):
        (tmp_path / "wrong").write_text(json.dumps(document))
        done = run(store, "--key-file", tmp_path / "wrong", "--repair")
        assert done.exit_code == ExitCode.VERIFICATION_FAILED
        assert done.stdout.count("wrong-key") == 2
        assert files(store) == before


def test_only_what_is_not_ok_is_listed(store, keys):
    path = damaged(store / "folder/bad")
    done = run(store, "--key-file", keys)
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert done.stdout == f"damaged         {path}: chunk 1 does not verify in its place; bytes 4096 to 8191 (4096)\n"
    assert done.stderr == "3 files: 2 ok, 1 damaged\n"


def test_scripts_get_every_file(store, keys):
    (store / "plain").write_text("not sealed at all")
    (store / "empty").touch()
    mark(store, b"another company.".hex())
    lines = [json.loads(line) for line in run(store, "--key-file", keys, "-o", "json").stdout.splitlines()]
    assert {"store": str(store), "mounted": 0, "groups": 0, "dropins": 0, "strange": []} in lines
    assert {line["path"]: line["verdict"] for line in lines if "path" in line} == {
        str(store / "whole"): "other-company",
        str(store / "folder/whole"): "other-company",
        str(store / "plain"): "not-sealed",
        str(store / "empty"): "unfinished",
    }


@pytest.mark.parametrize("content", [b"no seal", b"", generate_content.content(5000)])
def test_what_is_not_damaged_and_not_sound_ends_with_1(store, content):
    (store / "other").write_bytes(content)
    assert run(store).exit_code == ExitCode.FAILED


def test_bytes_behind_the_end_are_reported_and_harmless(store, keys):
    with (store / "whole").open("ab") as file:
        file.write(b"behind")
    done = run(store, "--key-file", keys)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"overlong        {store / 'whole'}: ")


def test_single_files_and_several_paths_are_checked_too(store, keys, tmp_path):
    bad = damaged(tmp_path / "bad")
    done = run(store / "whole", bad, store / "folder", "--key-file", keys)
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert done.stderr == "3 files: 2 ok, 1 damaged\n"


def test_a_folder_of_vectors_is_what_the_vectors_say(tmp_path):
    expected = {}
    for path in generate_content.FOLDER.glob("*.vec"):
        vector = Vector.decode(path.read_text())
        (tmp_path / path.stem).write_bytes(vector.sealed)
        expected[str(tmp_path / path.stem)] = vector.outcome.expect == "ok"
    reader = generate_content.READER
    key = {"id": reader.label_key_id.hex(), "version": reader.label_key_version, "key": reader.label_key.hex()}
    (tmp_path / "keys").write_text(json.dumps({"label_keys": [key]}))
    found = verdicts(tmp_path, "--key-file", tmp_path / "keys")
    assert found.pop(str(tmp_path / "keys")) == "not-sealed"
    # No mark says whose files these are, and to their own company they are whole.
    expected[str(tmp_path / "company_other")] = True
    assert {path: verdict in ("ok", "overlong") for path, verdict in found.items()} == expected


def test_hostile_names_cannot_reach_the_terminal(store, keys):
    os.rename(damaged(store / "bad"), os.fsencode(store) + b"/\x1b[2J\n\xff\xe2\x80\xae\\ ok")
    line = run(store, "--key-file", keys).stdout
    assert line.count("\n") == 1
    assert "\\x1b[2J\\n\\xff\\u202e\\\\ ok" in line
    assert line.isascii()
    found = verdicts(store, "--key-file", keys)
    (name,) = [path for path, verdict in found.items() if verdict == "damaged"]
    assert name.endswith("/\x1b[2J\n\ufffd\u202e\\ ok")
    (line,) = [line for line in run(store, "--key-file", keys, "-o", "json").stdout.splitlines() if "damaged" in line]
    assert bytes.fromhex(json.loads(line)["path_hex"]).endswith(b"/\x1b[2J\n\xff\xe2\x80\xae\\ ok")


def test_what_scripts_get_is_unicode_whatever_the_names_are(store, keys):
    odd = b"\xff\xfe"
    os.setxattr(store / "whole", b"user." + odd, b"x" * 40)
    os.rename(damaged(store / "bad"), os.fsencode(store) + b"/" + odd)
    os.mkdir(os.fsencode(store) + b"/.grantfs/redo/" + odd)
    done = run(store, "--key-file", keys, "-o", "json", "--repair")
    for line in map(json.loads, done.stdout.splitlines()):
        json.dumps(line, ensure_ascii=False).encode()  # no lone surrogates
    (moved,) = [line for line in map(json.loads, done.stdout.splitlines()) if line.get("moved_to")]
    assert bytes.fromhex(moved["moved_to_hex"]) == os.fsencode(store) + b"/.grantfs/damaged/" + odd
    assert os.path.exists(bytes.fromhex(moved["moved_to_hex"]))


def test_a_path_that_is_not_there_stops_before_anything_is_checked(store, tmp_path):
    done = run(store, tmp_path / "missing")
    assert (done.exit_code, done.stdout) == (ExitCode.NOT_FOUND, "")


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 60000, '{"format": 1, "company": 7, "chunk_size": 1}'])
def test_a_damaged_mark_is_damage(store, keys, text):
    (store / ".grantfs/store.json").write_text(text)
    done = run(store, "--key-file", keys)
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert f"damaged         {store}/.grantfs/store.json" in done.stdout
    assert "2 ok" in done.stderr


# ---- leftovers -----------------------------------------------------------------------------------------------------


def left_by_a_crash(store: Path) -> None:
    top = os.open(store, os.O_RDONLY)
    log = RedoLog(top, b".grantfs/redo/machine")
    log.begin(Group(FILE_ID, [(4096, b"new image")], path=b"whole"))
    log.close()
    os.close(top)


def test_leftovers_are_counted(store, keys):
    left_by_a_crash(store)
    (store / ".grantfs/incoming/0123").touch()
    (store / ".grantfs/incoming/4567").touch()
    done = run(store, "--key-file", keys)
    assert done.exit_code == 0
    assert "changes that a crash left in redo logs: 1;" in done.stderr
    assert "half-finished files in .grantfs/incoming: 2\n" in done.stderr
    assert done.stderr.endswith("2 files: 2 ok\n")


def test_what_is_no_redo_log_is_said_and_passed_over(store, keys, tmp_path):
    redo = store / ".grantfs/redo"
    (tmp_path / "elsewhere").write_bytes(b"GFSREDO1" * 100)
    (redo / "link").symlink_to(tmp_path / "elsewhere")
    (redo / "nowhere").symlink_to("nowhere")
    (redo / "folder").mkdir()
    os.mkfifo(redo / "pipe")
    os.mknod(redo / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    names = ["device", "folder", "link", "nowhere", "pipe"]
    done = run(store, "--key-file", keys)
    assert done.exit_code == 0
    for name in names:
        assert f"{store}: passed over: .grantfs/redo/{name}: not a regular file\n" in done.stderr
    (line,) = [json.loads(line) for line in run(store, "-o", "json").stdout.splitlines() if "mounted" in line]
    assert sorted(line["strange"]) == [f".grantfs/redo/{name}: not a regular file" for name in names]
    damaged(store / "bad")
    assert run(store, "--key-file", keys, "--repair").exit_code == ExitCode.VERIFICATION_FAILED
    assert not (store / "bad").exists(), "no daemon can have a store by these"
    assert (tmp_path / "elsewhere").read_bytes() == b"GFSREDO1" * 100


def test_logs_that_lie_behind_a_link_are_not_looked_at_and_stop_a_repair(store, keys, tmp_path):
    """A daemon would follow it, so that its lock is not seen."""
    damaged(store / "bad")
    os.rename(store / ".grantfs/redo", tmp_path / "redo")
    (store / ".grantfs/redo").symlink_to(tmp_path / "redo")
    done = run(store, "--key-file", keys)
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert "passed over: .grantfs/redo: Not a directory" in done.stderr
    done = run(store, "--key-file", keys, "--repair")
    assert done.exit_code == ExitCode.CONFLICT
    assert "whether a drive has the store mounted cannot be told" in done.stderr
    assert (store / "bad").exists()


@pytest.mark.parametrize("place", [".grantfs", ".grantfs/store.json", ".grantfs/incoming"])
def test_links_in_the_place_of_the_stores_own_are_not_followed_and_stop_nothing(store, keys, tmp_path, place):
    os.rename(store / place, tmp_path / "moved")
    (store / place).symlink_to(tmp_path / "moved")
    damaged(store / "bad")
    done = run(store, "--key-file", keys)
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert "2 ok, 1 damaged" in done.stderr
    assert "unreadable" in done.stdout or "passed over: .grantfs/incoming" in done.stderr


def test_what_is_neither_a_store_nor_has_a_file_is_no_success(store, keys, tmp_path):
    """A backup that is not there."""
    (tmp_path / "empty/folder").mkdir(parents=True)
    assert run(tmp_path / "empty", "--key-file", keys).exit_code == ExitCode.FAILED
    for path in ("whole", "folder/whole"):
        (store / path).unlink()
    assert run(store, "--key-file", keys).exit_code == ExitCode.OK


# ---- what is damaged -----------------------------------------------------------------------------------------------


def in_chunk(index: int) -> int:
    return 4096 + index * (CHUNK + 36) + 22


def test_all_damaged_ranges_of_a_file_are_named(store, keys):
    path = sealed(store / "long", chunks=40)
    flip(path, *map(in_chunk, (1, 3, 4, 5, 20, 40)))
    expected = [[CHUNK, 2 * CHUNK], [3 * CHUNK, 6 * CHUNK], [20 * CHUNK, 21 * CHUNK], [40 * CHUNK, 40 * CHUNK + 7]]
    line = run(store, "--key-file", keys).stdout
    assert line.endswith(
        "; bytes 4096 to 8191 (4096); bytes 12288 to 24575 (12288); bytes 81920 to 86015 (4096); "
        "bytes 163840 to 163846 (7)\n"
    )
    lines = [json.loads(line) for line in run(store, "--key-file", keys, "-o", "json").stdout.splitlines()]
    assert {line["path"]: line["ranges"] for line in lines if "path" in line} == {
        str(path): expected,
        str(store / "whole"): None,
        str(store / "folder/whole"): None,
    }


def test_of_many_damaged_ranges_people_are_told_some_and_how_many_more(store, keys):
    path = sealed(store / "long", chunks=40)
    flip(path, *map(in_chunk, range(0, 40, 2)))
    line = run(store, "--key-file", keys).stdout
    assert line.count("bytes ") == 5
    assert line.endswith("; 15 more ranges\n")


def test_attributes_are_verified_and_a_file_with_bad_ones_stays_in_its_place(store, keys):
    other = sealed(store / "other")
    for path in (store / "whole", other):
        with_attribute(path, b"user.good", b"value")
    os.setxattr(other, b"user.swapped", os.getxattr(other, "user.good"))
    os.setxattr(other, b"user.\x1b[2J", b"plain")
    done = run(store, "--key-file", keys, "--repair")
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert done.stdout == (
        f"bad-attributes  {other}: the content verifies, extended attributes do not; "
        "attribute user.\\x1b[2J; attribute user.swapped\n"
    )
    assert other.exists()
    (line,) = [line for line in run(store, "--key-file", keys, "-o", "json").stdout.splitlines() if "bad-" in line]
    assert json.loads(line)["attributes"] == ["user.\x1b[2J", "user.swapped"]
    assert run(store).exit_code == 0, "without a key nothing is known of them"
    flip(other, in_chunk(1))
    (line,) = run(store, "--key-file", keys).stdout.splitlines()
    assert line.startswith("damaged ")
    assert "attribute user.swapped" in line


def with_attribute(path: Path, name: bytes, value: bytes) -> None:
    fd = os.open(path, os.O_RDWR)
    os.setxattr(fd, name, reopened(fd).seal_xattr(name, value))
    os.close(fd)


def test_a_file_deeper_than_the_descriptors_that_are_allowed_at_first(store, keys):
    at = os.open(store, os.O_RDONLY)
    for _ in range(100):
        os.mkdir("d", dir_fd=at)
        inside = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inside
    os.rename(store / "whole", "deep", dst_dir_fd=at)
    os.close(at)
    code = "from fsdriver.commands.fsck import fsck; fsck()"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        command = [sys.executable, "-c", code, str(store), "--key-file", keys]
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (done.returncode, done.stderr) == (0, b"2 files: 2 ok\n")


# ---- where it is written to ----------------------------------------------------------------------------------------


def test_a_full_disk_under_the_list_is_not_said_to_be_the_stores(store, keys):
    damaged(store / "bad")
    code = "from fsdriver.commands.fsck import fsck; fsck()"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, str(store), "--key-file", keys],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == ExitCode.FAILED
    assert done.stderr == b"Error: standard output: No space left on device\n"


# ---- repair --------------------------------------------------------------------------------------------------------


def test_repair_moves_the_damaged_files_and_no_others(store, keys):
    bad = [damaged(store / name) for name in ("bad", "folder/bad", "folder/deeper/bad")]
    (store / "plain").write_text("not sealed")
    (store / "empty").touch()
    before = files(store)
    modes = [path.stat().st_mode for path in bad]
    done = run(store, "--key-file", keys, "--repair")
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert f"; moved to {store}/.grantfs/damaged/folder/deeper/bad" in done.stdout
    moved = {str(path.relative_to(store)): f".grantfs/damaged/{path.relative_to(store)}" for path in bad}
    assert files(store) == {moved.get(path, path): content for path, content in before.items()}
    assert [(store / path).stat().st_mode for path in moved.values()] == modes
    assert run(store, "--key-file", keys, "--repair").exit_code == ExitCode.FAILED
    assert (store / ".grantfs/damaged").stat().st_mode & 0o777 == 0o700


def test_what_was_moved_before_is_not_replaced(store, keys):
    for _ in range(3):
        damaged(store / "folder/bad")
        run(store, "--key-file", keys, "--repair")
    assert sorted(os.listdir(store / ".grantfs/damaged/folder")) == ["bad", "bad.1", "bad.2"]
    assert os.listdir(store / "folder") == ["whole"]


def test_repair_does_not_follow_a_link_in_the_corner(store, keys, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (store / ".grantfs/damaged").symlink_to(tmp_path / "elsewhere")
    damaged(store / "bad")
    done = run(store, "--key-file", keys, "--repair")
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert "it could not be moved" in done.stdout
    assert (store / "bad").exists()
    assert os.listdir(tmp_path / "elsewhere") == []


def test_repair_is_refused_while_a_daemon_holds_the_store(store, keys):
    damaged(store / "bad")
    top = os.open(store, os.O_RDONLY)
    log = RedoLog(top, b".grantfs/redo/another")
    log.begin(Group(FILE_ID, [(4096, b"in use")], path=b"whole"))
    before = files(store)
    done = run(store, "--key-file", keys, "--repair")
    assert done.exit_code == ExitCode.CONFLICT
    assert "unmount it first" in done.stderr
    assert files(store) == before
    done = run(store, "--key-file", keys)
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert "a drive has it mounted" in done.stderr
    assert "a crash left" not in done.stderr
    log.close()
    os.close(top)


def test_repair_is_refused_before_a_redo_log_was_placed(store, keys):
    damaged(store / "bad")
    left_by_a_crash(store)
    done = run(store, "--key-file", keys, "--repair")
    assert done.exit_code == ExitCode.CONFLICT
    assert "mount the store once" in done.stderr
    assert (store / "bad").exists()


def test_no_daemon_gets_the_store_during_a_repair(store, keys, monkeypatch):
    damaged(store / "bad")
    top = os.open(store, os.O_RDONLY)
    refused = []

    def while_it_moves(*_):
        try:
            RedoLog(top, b".grantfs/redo/machine").close()
        except BlockingIOError:
            refused.append(True)
        return "moved"

    monkeypatch.setattr("fsdriver.filesystem.visit.Visit.set_aside", while_it_moves)
    run(store, "--key-file", keys, "--repair")
    assert refused == [True]
    RedoLog(top, b".grantfs/redo/machine").close()
    os.close(top)


def test_repair_needs_a_key_and_the_top_of_a_store(store, keys):
    bad = damaged(store / "folder/bad")
    assert run(store, "--repair").exit_code == ExitCode.USAGE
    assert run(store / "folder", "--key-file", keys, "--repair").exit_code == ExitCode.USAGE
    assert run(bad, "--key-file", keys, "--repair").exit_code == ExitCode.USAGE
    assert bad.exists()
    assert not (store / ".grantfs/damaged").exists()


def test_ctrl_c_leaves_nothing_open_and_no_traceback(store, keys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fsdriver.commands.fsck.check", interrupted)
    before = set(os.listdir("/proc/self/fd"))
    done = run(store, "--key-file", keys, "--repair")
    assert (done.exit_code, done.stderr) == (1, "\nAborted!\n")
    assert set(os.listdir("/proc/self/fd")) == before


def test_ctrl_c_says_how_far_it_came(store, keys, monkeypatch):
    looks = iter([Checked(Verdict.OK)])

    def interrupted(*_):
        try:
            return next(looks)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("fsdriver.commands.fsck.check", interrupted)
    done = run(store, "--key-file", keys)
    assert (done.exit_code, done.stderr) == (1, "\nstopped after 1 file: 1 ok\n\nAborted!\n")


# ---- on a terminal -------------------------------------------------------------------------------------------------


def test_a_terminal_sees_a_progress_bar(store, keys):
    damaged(store / "bad")
    master, terminal = pty.openpty()
    code = "from fsdriver.commands.fsck import fsck; fsck()"
    command = [sys.executable, "-c", code, str(store), "--key-file", keys]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, timeout=PATIENCE, check=False)
    os.close(terminal)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert done.returncode == ExitCode.VERIFICATION_FAILED
    assert re.search(r"fsck .*\[#*-*\]", shown)
    assert "folder/whole" in shown, "which file it is at"
    assert "3 files: 2 ok, 1 damaged" in shown
    assert done.stdout.decode().startswith("damaged         ")
