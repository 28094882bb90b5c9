"""`fsdriver fsck` and `salvage` beside a drive: on a store that is written, that was killed, and that is damaged."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fsdriver.cli import cli
from fsdriver.content import CHUNK_SIZE, HEADER_SIZE, Header
from fsdriver.exitcodes import ExitCode
from tests.mounted.mounted import LISTED, Mounted, listed

pytestmark = pytest.mark.mounted

FILES = 6
CHANGE = f"""
import os, random, sys
files = [os.open(f"{{sys.argv[1]}}/f{{n}}", os.O_RDWR | os.O_CREAT) for n in range({FILES})]
for fd in files: os.pwrite(fd, os.urandom(200_000), 0)
for fd in files: os.fsync(fd)
print(flush=True)
while True:
    fd = random.choice(files)
    os.pwrite(fd, os.urandom(random.randrange(1, 100_000)), random.randrange(400_000))
    if random.random() < 0.1: os.ftruncate(fd, random.randrange(200_000, 400_000))
    if random.random() < 0.2: os.setxattr(fd, "user.x", os.urandom(random.randrange(99)))
    random.choice((os.fsync, os.fstat))(fd)
"""


def fsdriver(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def keys(drive: Mounted) -> Path:
    """A key file for the label of the files at the drive's top, as the harness makes its keys."""
    header = Header.parse((drive.store / "f0").read_bytes()[:HEADER_SIZE])
    path = drive.directory / "keys.json"
    key = {"id": bytes(16).hex(), "version": 1, "key": (header.label + header.label).hex()}
    path.write_text(json.dumps({"label_keys": [key]}))
    return path


def verdicts(drive: Mounted) -> list[str]:
    done = fsdriver("fsck", drive.store, "--key-file", keys(drive), "-o", "json")
    return [line["verdict"] for line in map(json.loads, done.stdout.splitlines()) if "path" in line]


def test_a_store_that_is_written_is_never_called_damaged_nor_after_a_kill(own: Mounted) -> None:
    own.start()
    with subprocess.Popen([LISTED, "-I", "-c", CHANGE, str(own.drive)], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            for _ in range(200):
                found = verdicts(own)
                assert len(found) == FILES
                assert set(found) <= {"ok", "overlong", "unreadable"}
            assert fsdriver("fsck", own.store, "--key-file", keys(own), "--repair").exit_code == ExitCode.CONFLICT
            own.kill()
        finally:
            writer.kill()
    own.unmount_dead()
    own.start()
    own.stop()
    assert set(verdicts(own)) <= {"ok", "overlong"}


def test_what_is_damaged_is_salvaged_and_moved_aside_and_the_drive_goes_on(own: Mounted) -> None:
    own.start()
    for name in ("f0", "f1"):
        listed("import sys; open(sys.argv[1], 'wb').write(b'x' * 100_000)", own.drive / name)
    own.stop()
    with (own.store / "f1").open("r+b") as file:
        file.seek(HEADER_SIZE + CHUNK_SIZE + 36 + 50)
        flipped = bytes([file.read(1)[0] ^ 1])
        file.seek(-1, os.SEEK_CUR)
        file.write(flipped)
    assert sorted(verdicts(own)) == ["damaged", "ok"]
    out = own.directory / "out"
    done = fsdriver("salvage", own.store / "f1", "--key-file", keys(own), "-o", out)
    assert done.exit_code == ExitCode.VERIFICATION_FAILED
    assert out.read_bytes() == (b"x" * CHUNK_SIZE + bytes(CHUNK_SIZE)).ljust(100_000, b"x")
    done = fsdriver("fsck", own.store, "--key-file", keys(own), "--repair")
    assert done.exit_code == ExitCode.VERIFICATION_FAILED, done.output
    assert (own.store / ".grantfs/damaged/f1").exists()
    own.start()
    assert listed("import os, sys; print(os.listdir(sys.argv[1]))", own.drive).strip() == "['f0']"
    assert listed("import sys; print(open(sys.argv[1], 'rb').read() == b'x' * 100_000)", own.drive / "f0") == "True\n"
    own.stop()
