import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fsdriver.commands.info import info
from fsdriver.commands.unseal import unseal
from fsdriver.exitcodes import ExitCode
from tests.fsdriver.content.samples import CHUNK, FILE_ID, KEY, LABEL, LABEL_KEY, LABEL_KEY_ID, new_file, pattern


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fd = os.open(tmp_path / "sealed", os.O_RDWR | os.O_CREAT)
    file = new_file(fd)
    file.write(0, pattern(3 * CHUNK + 7))
    file.truncate(9 * CHUNK)
    file.close()
    os.close(fd)
    label_key = {"id": LABEL_KEY_ID.hex(), "version": 1, "key": LABEL_KEY.hex()}
    (tmp_path / "label.json").write_text(json.dumps({"label_keys": [label_key]}))
    (tmp_path / "file.json").write_text(json.dumps({"file_keys": [{"id": FILE_ID.hex(), "key": KEY.secret.hex()}]}))
    (tmp_path / "none.json").write_text("{}")
    return tmp_path


CONTENT = pattern(3 * CHUNK + 7).ljust(9 * CHUNK, b"\0")


def run(command, folder: Path, *arguments: str):
    return CliRunner().invoke(command, [str(folder / "sealed"), *arguments])


@pytest.mark.parametrize("keys", ["label.json", "file.json"])
def test_a_key_file_opens_the_file_without_drive_or_server(folder, keys):
    done = run(unseal, folder, "--key-file", str(folder / keys), "-o", str(folder / "out"))
    assert done.exit_code == 0, done.output
    assert (folder / "out").read_bytes() == CONTENT
    assert sorted(os.listdir(folder)) == ["file.json", "label.json", "none.json", "out", "sealed"]


def test_content_goes_to_standard_output(folder):
    code = "from fsdriver.commands.unseal import unseal; unseal()"
    arguments = [sys.executable, "-c", code, str(folder / "sealed"), "--key-file", str(folder / "label.json")]
    done = subprocess.run(arguments, capture_output=True, check=True)
    assert done.stdout == CONTENT
    assert done.stderr == b""


def test_nothing_of_a_damaged_file_is_written(folder):
    with (folder / "sealed").open("r+b") as file:
        file.seek(4096 + 2 * (CHUNK + 36) + 300)
        file.write(b"damaged!")
    done = run(unseal, folder, "--key-file", str(folder / "label.json"), "-o", str(folder / "out"))
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert "chunk 2 does not verify" in done.output
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("keys", "output", "code"),
    [
        ("none.json", "out", ExitCode.DENIED),
        ("label.json", "file.json", ExitCode.CONFLICT),
        ("missing.json", "out", ExitCode.NOT_FOUND),
        ("sealed", "out", ExitCode.USAGE),
    ],
)
def test_failures_have_their_exit_codes_and_lose_nothing(folder, keys, output, code):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = run(unseal, folder, "--key-file", str(folder / keys), "-o", str(folder / output))
    assert done.exit_code == code, done.output
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("document", ["[]", '{"keys": []}', '{"file_keys": [{}]}', '{"file_keys": [{"id": "zz"}]}'])
def test_a_malformed_key_file_is_named(folder, document):
    (folder / "label.json").write_text(document)
    done = run(unseal, folder, "--key-file", str(folder / "label.json"))
    assert done.exit_code == ExitCode.USAGE
    assert "key file" in done.output


def test_info_needs_no_key(folder):
    done = run(info, folder, "-o", "json")
    assert done.exit_code == 0
    facts = json.loads(done.output)
    assert facts["chunk_size"] == CHUNK
    assert facts["header_size"] == 4096
    assert facts["chunk_overhead"] == 36
    assert facts["label"] == LABEL.hex()
    assert facts["key"] == LABEL_KEY_ID.hex()
    assert facts["plain_size"] == 9 * CHUNK
    assert facts["generation"] is None


def test_info_with_a_key_shows_what_is_sealed(folder):
    done = run(info, folder, "-o", "json", "--key-file", str(folder / "file.json"))
    assert json.loads(done.output)["generation"] == 1


def test_info_prints_a_table_for_people(folder):
    assert "chunk_size" in run(info, folder).output


def test_info_of_a_plain_file_says_so(folder):
    done = CliRunner().invoke(info, [str(folder / "none.json")])
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert "not a sealed file" in done.output
