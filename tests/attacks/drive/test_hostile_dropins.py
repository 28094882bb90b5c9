"""What an unlisted program puts into the drive: forged sealed files, and names that change hands meanwhile."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from fsdriver.content import Header
from fsdriver.content.offsets import HEADER_SIZE, sealed_size
from tests.mounted.harness import COMPANY
from tests.mounted.mounted import MAGIC, Mounted, get, listed, put, run, wait_until
from tests.patience import PATIENCE

pytestmark = pytest.mark.mounted

LABEL_AT = 72
"""Of the label's id in a header (docs/format.md 3)."""


@pytest.fixture
def folder(mounted: Mounted, request: pytest.FixtureRequest) -> Path:
    path: Path = mounted.drive / re.sub(r"\W", "-", request.node.name)[-80:]
    path.mkdir()
    return path


def sealed_head(folder: Path, *, plain: int) -> bytes:
    """The head of a genuine sealed file of `plain` bytes."""
    path = folder / "genuine"
    listed("import os, sys; os.truncate(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), int(sys.argv[2]))", path, plain)
    with open(path, "rb") as genuine:
        head = genuine.read(HEADER_SIZE)
    assert head.startswith(MAGIC)
    return head


def no_key(head: bytes) -> bytes:
    """The same, under a label whose key is nowhere on loan."""
    assert head[56:72] == COMPANY
    return head[:LABEL_AT] + b"nobody's label  " + head[LABEL_AT + 16 :]


@pytest.mark.parametrize("forged", ["other body", "no key"])
def test_content_that_a_listed_program_writes_behind_a_forged_head_is_sealed_all_the_same(
    mounted: Mounted, folder: Path, forged: str
) -> None:
    size = 60_000
    put(folder / "secret", "canary" * 20_000)
    head = sealed_head(folder, plain=size)
    body = sealed_size(size) - HEADER_SIZE
    (mounted.directory / "head").write_bytes(no_key(head) if forged == "no key" else head)
    script = f"cat {mounted.directory}/head; /usr/bin/head -c {body} {folder}/secret"
    with open(folder / "stolen", "wb") as stolen:  # by this program, which is not listed
        subprocess.run(["/usr/bin/dash", "-c", script], stdout=stolen, check=True)
    wait_until(lambda: [r for r in mounted.records("close") if r.file and r.file.path.endswith("/stolen")])
    assert b"canary" not in (mounted.store / folder.name / "stolen").read_bytes()
    assert b"canary" not in (folder / "stolen").read_bytes()
    assert "canary" in get_bytes(folder / "stolen")


def get_bytes(path: Path) -> str:
    return listed("import sys; print(open(sys.argv[1], 'rb').read())", path)


def test_a_head_that_claims_terabytes_does_not_keep_the_drive_busy(mounted: Mounted, folder: Path) -> None:
    size = 1 << 42
    head = sealed_head(folder, plain=size)
    begin = time.monotonic()
    fd = os.open(folder / "huge", os.O_WRONLY | os.O_CREAT)
    os.write(fd, head)
    os.ftruncate(fd, sealed_size(size))
    os.close(fd)
    (folder / "huge").stat()
    put(folder / "other", "still served")
    assert time.monotonic() - begin < PATIENCE
    assert get(folder / "other") == "still served"
    (folder / "huge").unlink()


def test_a_replacement_takes_no_name_that_went_to_another_file(mounted: Mounted, folder: Path) -> None:
    path = folder / "f"
    put(path, "old")
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.write(fd, b"replacement")
    put(folder / "saved", "somebody else's")
    os.chmod(folder / "saved", 0o600)
    os.rename(folder / "saved", path)
    os.close(fd)
    time.sleep(0.3)
    assert get(path) == "somebody else's"


def test_a_replacement_of_a_file_that_was_removed_makes_no_new_one(folder: Path) -> None:
    put(folder / "f", "old")
    fd = os.open(folder / "f", os.O_WRONLY | os.O_TRUNC)
    os.write(fd, b"replacement")
    os.unlink(folder / "f")
    os.close(fd)
    time.sleep(0.3)
    assert not (folder / "f").exists()


def test_a_sealed_file_of_a_label_that_nobody_knows_can_be_removed_again(folder: Path) -> None:
    head = no_key(sealed_head(folder, plain=0))
    (folder / "odd").write_bytes(head)
    time.sleep(0.3)
    (folder / "odd").unlink()


def test_a_replacement_by_a_sealed_file_of_a_lower_label_keeps_the_higher_one(
    mounted: Mounted, folder: Path, tmp_path: Path
) -> None:
    clients = mounted.drive / "clients"
    clients.mkdir(exist_ok=True)
    put(folder / "low", "of a low label")
    put(clients / "high", "of a high label")
    run(["cp", folder / "low", tmp_path / "low"])
    run(["cp", tmp_path / "low", clients / "high"])
    assert Header.parse((clients / "high").read_bytes()[:HEADER_SIZE]).label.startswith(b"office/clients")
    assert get(clients / "high") == "of a low label"


def test_a_sealed_file_of_a_label_without_a_key_is_stored_as_it_is_by_its_unlisted_owner(
    mounted: Mounted, folder: Path, tmp_path: Path
) -> None:
    """The limit of what can be verified: there is no plaintext of the drive in it."""
    put(folder / "f", "document")
    sealed = bytearray((folder / "f").read_bytes())
    label = b"office/raising".ljust(16, b"\0")
    sealed[LABEL_AT : LABEL_AT + 16] = label  # so the key that is on loan does not open it
    (tmp_path / "f").write_bytes(sealed)
    run(["cp", tmp_path / "f", folder / "back"])
    wait_until(lambda: [r for r in mounted.records("close") if r.file and r.file.path.endswith("/back")])
    assert (folder / "back").read_bytes() == bytes(sealed)
    with pytest.raises(AssertionError):
        get(folder / "back")
    (folder / "back").unlink()
