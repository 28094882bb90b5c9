"""Whole files put back, exchanged or moved in the store: recorded, refused where the label says so; no false alarms."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounted.mounted import Mounted, get, listed, put, remove, run, temporary_directory, wait_until

pytestmark = pytest.mark.mounted

APPEND = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"
READ = """
import errno, sys
try: print(open(sys.argv[1]).read())
except OSError as exc: print(errno.errorcode[exc.errno])
"""
RENAME = "import os, sys; os.rename(sys.argv[1], sys.argv[2])"
EXCHANGE = """
import ctypes, os, sys
if ctypes.CDLL(None).renameat2(-100, os.fsencode(sys.argv[1]), -100, os.fsencode(sys.argv[2]), 2): sys.exit(1)
"""


@pytest.fixture(scope="module")
def drive() -> Iterator[Mounted]:
    """As `mounted`, but its log may say what was found."""
    drive = Mounted(temporary_directory())
    try:
        drive.start()
        yield drive
        drive.stop()
    finally:
        drive.end()
        remove(drive.directory)


@pytest.fixture
def folder(drive: Mounted, request: pytest.FixtureRequest) -> Path:
    place = drive.drive / str(request.node.name)
    listed("import os, sys; os.makedirs(sys.argv[1])", place)
    return place


def stored(drive: Mounted, path: Path) -> Path:
    return drive.store / path.relative_to(drive.drive)


def findings(drive: Mounted, path: Path) -> list[str]:
    """What was recorded about the file at `path`: event, and the first words."""
    name = f"/{path.relative_to(drive.drive)}"
    return [
        f"{record.event}: {record.detail}"
        for record in drive.records()
        if record.event in ("rollback", "conflict") and record.file and record.file.path == name
    ]


def found(drive: Mounted, path: Path, *beginnings: str) -> None:
    """Waits until exactly these findings are recorded about `path`."""
    wait_until(lambda: len(findings(drive, path)) >= len(beginnings))
    assert len(findings(drive, path)) == len(beginnings), findings(drive, path)
    for finding, beginning in zip(findings(drive, path), beginnings, strict=True):
        assert finding.startswith(beginning), finding


def two_states(drive: Mounted, path: Path) -> bytes:
    """Makes a file, and gives the sealed bytes of its state before the last."""
    put(path, "first")
    old = stored(drive, path).read_bytes()
    listed(APPEND, path, ", second")
    return old


def put_back(drive: Mounted, path: Path, old: bytes) -> None:
    """As `cp -f` of somebody who has the store does it."""
    target = stored(drive, path)
    target.with_suffix(".part").write_bytes(old)
    target.with_suffix(".part").rename(target)


def settled(drive: Mounted, folder: Path) -> None:
    """What was told before has been compared: a change in the store after it is noticed, by name."""
    mark = folder / "mark"
    old = two_states(drive, mark)
    put_back(drive, mark, old)
    before = len(findings(drive, mark))
    assert get(mark) == "first"
    wait_until(lambda: len(findings(drive, mark)) > before)


def test_an_old_copy_is_recorded_once_and_goes_on(own: Mounted) -> None:
    own.start()
    path = own.drive / "letter"
    old = two_states(own, path)
    put_back(own, path, old)
    assert get(path) == "first"
    found(own, path, "rollback: an old copy: generation 1, 2 was left")
    assert get(path) == "first"
    listed(APPEND, path, ", third")
    assert get(path) == "first, third"
    settled(own, own.drive)
    assert len(findings(own, path)) == 1
    own.stop()
    assert "/letter: an old copy" in own.log()


def test_an_old_copy_under_a_label_that_refuses_it(own: Mounted) -> None:
    own.start()
    folder = own.drive / "strict"
    folder.mkdir()
    path = folder / "letter"
    old = two_states(own, path)
    new = stored(own, path).read_bytes()
    put_back(own, path, old)
    for _ in range(2):
        assert listed(READ, path).strip() == "EIO"
    found(own, path, *["rollback: an old copy: generation 1, 2 was left"] * 2)
    assert run(["cat", path]).encode("utf-8", "replace")[:3] == "\ufffd".encode(), "sealed bytes can be had, to repair"
    # Neither another name nor another folder makes it the newest.
    os.rename(stored(own, path), stored(own, path.with_name("other")))
    for _ in range(2):
        assert listed(READ, path.with_name("other")).strip() == "EIO"
    os.rename(stored(own, path.with_name("other")), stored(own, path))
    put_back(own, path, new)
    assert listed(READ, path).strip() == "first, second"
    listed(APPEND, path, ", third")
    assert listed(READ, path).strip() == "first, second, third"
    own.stop()


def test_an_old_copy_put_back_while_nothing_is_mounted(own: Mounted) -> None:
    own.start()
    path = own.drive / "letter"
    old = two_states(own, path)
    own.stop()
    put_back(own, path, old)
    own.start()
    assert get(path) == "first"
    found(own, path, "rollback: an old copy: generation 1, 2 was left")
    own.stop()


def test_a_copy_begins_its_own_line(drive: Mounted, folder: Path) -> None:
    path, copy = folder / "letter", folder / "copy"
    put(path, "first")
    shutil.copy(stored(drive, path), stored(drive, copy))
    listed(APPEND, path, ", second")
    assert get(copy) == "first"
    listed(APPEND, copy, ", another second")
    assert get(path) == "first, second"
    settled(drive, folder)
    assert findings(drive, path) == findings(drive, copy) == []


def test_a_fork_is_said(drive: Mounted, folder: Path) -> None:
    path, copy = folder / "letter", folder / "copy"
    put(path, "first")
    shutil.copy(stored(drive, path), stored(drive, copy))
    listed(APPEND, path, ", second")
    listed(APPEND, copy, ", another")
    put_back(drive, path, stored(drive, copy).read_bytes())
    assert get(path) == "first, another"
    found(drive, path, "conflict: another state of generation 2 than the one that was left")


def test_files_moved_and_exchanged_behind_the_drives_back(drive: Mounted, folder: Path) -> None:
    one, other, away = folder / "one", folder / "other", folder / "away"
    old = two_states(drive, one)
    put(other, "other")
    assert (get(one), get(other)) == ("first, second", "other")
    run(["mv", stored(drive, one), stored(drive, away)])
    run(["mv", stored(drive, other), stored(drive, one)])
    run(["mv", stored(drive, away), stored(drive, other)])
    assert (get(one), get(other)) == ("other", "first, second")
    place = one.parent.relative_to(drive.drive)
    found(drive, one, f"conflict: moved here from /{place}/other")
    assert findings(drive, other) == [], "the first record names both"
    put_back(drive, other, old)
    assert get(other) == "first"
    found(drive, other, "rollback: an old copy: generation 1, 2 was left")
    run(["mv", stored(drive, one), stored(drive, away)])
    assert get(away) == "other"
    found(drive, away, f"conflict: moved here from /{place}/one")


def test_another_file_in_its_place(drive: Mounted, folder: Path) -> None:
    path, other = folder / "letter", folder / "other"
    put(path, "mine")
    put(other, "another")
    shutil.copy(stored(drive, other), stored(drive, path))
    assert get(path) == "another"
    found(drive, path, "conflict: another file than the one that was left here")


def test_what_is_done_through_the_drive_is_no_finding(own: Mounted) -> None:
    own.start()
    folder = own.drive / "folder"
    (folder / "deep").mkdir(parents=True)
    for name in ("a", "b", "deep/c"):
        put(folder / name, name)
    old = own.drive / "restored"
    shutil.copy(folder / "a", own.directory / "backup")
    for step, name in enumerate(("a", "b", "deep/c")):
        listed(APPEND, folder / name, f" {step}")
    listed(RENAME, folder / "a", folder / "deep/a")
    listed(RENAME, folder / "deep", folder / "deeper")
    listed(EXCHANGE, folder / "b", folder / "deeper")
    listed(EXCHANGE, folder / "deeper", folder / "b/c")
    listed("import os, sys; os.link(*sys.argv[1:])", folder / "b/a", folder / "linked")
    listed(APPEND, folder / "linked", " linked")
    listed("import os, sys; os.unlink(sys.argv[1])", folder / "b/a")
    run(["cp", own.directory / "backup", old])
    run(["cp", own.directory / "backup", folder / "linked"])  # an old copy, put there by the drive
    put(folder / "b/a", "a new file with an old name")
    expected = {
        "b/a": "a new file with an old name",
        "b/c": "b 1",
        "deeper": "deep/c 2",
        "linked": "a",
        "../restored": "a",
    }
    for again in (False, True):
        assert {name: get(folder / name) for name in expected} == expected
        if not again:
            own.stop()
            own.start()
    settled(own, folder)
    told = [f"{record.event} {record.file and record.file.path}: {record.detail}" for record in own.records()]
    assert [line.split(":")[0] for line in told if line.startswith(("rollback", "conflict"))] == [
        "rollback /folder/mark"
    ]
    own.stop()


HOLD = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
print('open', flush=True)
sys.stdin.readline()
os.pwrite(fd, b'written late', 0)
"""


def test_a_file_that_lost_its_name_while_it_was_open(drive: Mounted, folder: Path) -> None:
    path = folder / "letter"
    put(path, "first")
    with subprocess.Popen(
        ["/usr/bin/python3.11", "-I", "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        put(folder / "new", "second")
        listed(RENAME, folder / "new", path)
        holder.communicate("go on\n")
    assert get(path) == "second"
    settled(drive, folder)
    assert findings(drive, path) == []


def test_a_killed_drive_makes_no_finding(own: Mounted) -> None:
    own.start()
    for name in "abc":
        put(own.drive / name, name)
    own.stop()
    own.start()
    for name in "abc":
        listed(APPEND, own.drive / name, " more")
    own.kill()
    own.unmount_dead()
    own.start()
    assert [get(own.drive / name) for name in "abc"] == ["a more", "b more", "c more"]
    settled(own, own.drive)
    assert all(findings(own, own.drive / name) == [] for name in "abc")
    own.stop()
