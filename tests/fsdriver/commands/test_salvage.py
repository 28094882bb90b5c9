import errno
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fsdriver.commands.salvage import salvage
from fsdriver.content.salvaging import Salvage
from fsdriver.exitcodes import ExitCode
from tests.fsdriver.content.samples import CHUNK, LABEL_KEY, LABEL_KEY_ID, new_file, pattern
from tests.vectors import generate_content
from tests.vectors.content_vector import Vector

STRIDE = CHUNK + 36
CONTENT = pattern(3 * CHUNK + 7).ljust(9 * CHUNK, b"\0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fd = os.open(tmp_path / "sealed", os.O_RDWR | os.O_CREAT)
    file = new_file(fd)
    file.write(0, CONTENT[: 3 * CHUNK + 7])
    file.truncate(len(CONTENT))
    file.close()
    os.close(fd)
    label_key = {"id": LABEL_KEY_ID.hex(), "version": 1, "key": LABEL_KEY.hex()}
    (tmp_path / "keys").write_text(json.dumps({"label_keys": [label_key]}))
    (tmp_path / "none").write_text("{}")
    return tmp_path


def run(folder: Path, *arguments: str, keys: str = "keys", out: str = "out") -> Result:
    command = [str(folder / "sealed"), "--key-file", str(folder / keys), "-o", str(folder / out), *arguments]
    return CliRunner().invoke(salvage, command)


def damage(folder: Path, at: int, data: bytes | None = None) -> None:
    """Writes `data`, or flips a bit: any other byte may be there already."""
    with (folder / "sealed").open("r+b") as file:
        file.seek(at)
        data = data or bytes([file.read(1)[0] ^ 1])
        file.seek(at)
        file.write(data)


def test_a_whole_file_comes_out_whole(folder):
    done = run(folder)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert (folder / "out").read_bytes() == CONTENT
    assert (folder / "out").stat().st_mode & 0o777 == 0o600


def test_what_is_lost_is_zeros_and_listed(folder):
    damage(folder, 4096 + STRIDE + 300)
    damage(folder, 4096 + 4 * STRIDE)
    done = run(folder)
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert f"lost: bytes {CHUNK} to {2 * CHUNK - 1} ({CHUNK})" in done.stderr
    assert f"lost: bytes {4 * CHUNK} to {9 * CHUNK - 1} ({5 * CHUNK})" in done.stderr
    assert "perhaps not all together" in done.stderr
    assert done.stdout == ""
    assert (folder / "out").read_bytes() == CONTENT[:CHUNK] + bytes(CHUNK) + CONTENT[2 * CHUNK :]


def test_the_report_for_scripts_has_the_ranges(folder):
    damage(folder, 4096 + STRIDE + 300)
    done = run(folder, "--report", "json")
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert json.loads(done.stdout) == {
        "size": len(CONTENT),
        "saved": len(CONTENT) - CHUNK,
        "lost": [[CHUNK, 2 * CHUNK]],
        "newer": [],
        "together": False,
        "generation": 1,
        "notes": [],
    }


def test_without_its_commit_record_all_chunks_are_saved_and_none_are_said_to_belong_together(folder):
    damage(folder, 3072, bytes(512))
    done = run(folder, "--report", "json")
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert "the commit record does not verify" in done.stderr
    assert "perhaps not all together" in done.stderr
    assert json.loads(done.stdout)["lost"] == []
    assert (folder / "out").read_bytes() == CONTENT


def test_where_nothing_verifies_nothing_is_written(folder):
    for index in range(9):
        damage(folder, 4096 + index * STRIDE)
    done = run(folder)
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert "nothing was written" in done.stderr
    assert sorted(os.listdir(folder)) == ["keys", "none", "sealed"]


@pytest.mark.parametrize(
    ("keys", "out", "code"),
    [
        ("keys", "none", ExitCode.CONFLICT),
        ("keys", "sealed", ExitCode.CONFLICT),
        ("none", "out", ExitCode.DENIED),
        ("missing", "out", ExitCode.NOT_FOUND),
        ("sealed", "out", ExitCode.USAGE),
    ],
)
def test_failures_have_their_exit_codes_and_change_nothing(folder, keys, out, code):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run(folder, keys=keys, out=out).exit_code == code
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_ctrl_c_leaves_no_half_of_a_file(folder, monkeypatch):
    whole = Salvage.pieces

    def interrupted(salvage):
        yield next(whole(salvage))
        raise KeyboardInterrupt

    monkeypatch.setattr(Salvage, "pieces", interrupted)
    done = run(folder)
    assert (done.exit_code, done.stderr) == (1, "\nAborted!\n")
    assert sorted(os.listdir(folder)) == ["keys", "none", "sealed"]


def test_a_fifo_is_refused_and_not_waited_for(folder):
    (folder / "sealed").unlink()
    os.mkfifo(folder / "sealed")
    done = run(folder)
    assert done.exit_code == ExitCode.FAILED
    assert "not a regular file" in done.stderr


def test_a_full_disk_is_said_of_the_output(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fsdriver.commands.salvage.write_all", full)
    done = run(folder)
    assert (done.exit_code, done.stderr) == (ExitCode.FAILED, f"Error: {folder / 'out'}: No space left on device\n")
    assert sorted(os.listdir(folder)) == ["keys", "none", "sealed"]


def test_the_output_may_be_where_there_are_no_links(folder, monkeypatch):
    """A stick with FAT."""

    def no_links(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    assert run(folder).exit_code == 0
    assert (folder / "out").read_bytes() == CONTENT
    assert sorted(os.listdir(folder)) == ["keys", "none", "out", "sealed"]


def test_what_only_concerns_the_header_or_lies_behind_the_end_is_said_and_ends_with_0(folder):
    damage(folder, 300)
    damage(folder, (folder / "sealed").stat().st_size, b"behind")
    done = run(folder)
    assert done.exit_code == 0
    assert "header: " in done.stderr
    assert "6 bytes behind the end of the content are left out" in done.stderr
    assert (folder / "out").read_bytes() == CONTENT


def test_names_cannot_reach_the_terminal(folder):
    name = os.fsdecode(b"\x1b[2J\n\xff")
    damage(folder, 4096 + STRIDE + 300)
    os.rename(folder / "sealed", folder / name)
    for out, said in (("out", "lost: bytes"), ("none", "exists already")):
        command = [str(folder / name), "--key-file", str(folder / "keys"), "-o", str(folder / out)]
        done = CliRunner().invoke(salvage, command)
        assert said in done.stderr
        assert "\x1b" not in done.stderr
    command[0] = str(folder / f"{name}missing")
    done = CliRunner().invoke(salvage, command)
    assert done.exit_code == ExitCode.NOT_FOUND
    assert "\\x1b[2J\\n\\xffmissing: no such file\n" in done.stderr


@pytest.mark.parametrize("path", sorted(generate_content.FOLDER.glob("*.vec")), ids=lambda path: path.stem)
def test_every_vector_is_called_whole_only_if_its_content_is(folder, path):
    vector = Vector.decode(path.read_text())
    (folder / "sealed").write_bytes(vector.sealed)
    reader = vector.reader
    key = {"id": reader.label_key_id.hex(), "version": reader.label_key_version, "key": reader.label_key.hex()}
    (folder / "keys").write_text(json.dumps({"label_keys": [key]}))
    done = run(folder)
    if vector.outcome.expect == "ok":
        assert done.exit_code == ExitCode.OK
    elif done.exit_code == ExitCode.OK:
        # The header alone was changed, or it is another company's: commit and sum say that the content is all there.
        assert vector.outcome.expect in ("HeaderDamaged", "OtherCompany")
    if done.exit_code == ExitCode.OK:
        size = vector.outcome.size if vector.outcome.expect == "ok" else 2 * CHUNK + 100
        assert (folder / "out").stat().st_size == size
