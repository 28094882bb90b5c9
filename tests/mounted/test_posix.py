"""The POSIX list: first on a plain directory, which says that the list is right, then on the drive."""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounted.mounted import LISTED, MAGIC, ROOT, Mounted, get, put, remove, run, temporary_directory, wait_until
from tests.mounted.posix.run import CHECKS

pytestmark = pytest.mark.mounted

START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from tests.mounted.posix.run import main; main()"

Outcome = dict[str, str]


def outcome(directory: Path) -> Outcome:
    """Check name -> what went wrong, "" for nothing."""
    directory.mkdir()
    lines = run([LISTED, "-I", "-c", START, ROOT, directory], timeout=280)
    return {line["check"]: line["trouble"] for line in map(json.loads, filter(_is_result, lines.splitlines()))}


def _is_result(line: str) -> bool:
    return line.startswith('{"check"')


@pytest.fixture(scope="module")
def plain() -> Iterator[Outcome]:
    directory = temporary_directory()
    try:
        yield outcome(directory / "list")
        shutil.rmtree(directory / "list")
    finally:
        remove(directory)


@pytest.fixture(scope="module")
def on_the_drive(either: Mounted) -> Outcome:
    return outcome(either.drive / "list")


@pytest.mark.parametrize("check", CHECKS)
def test_a_plain_directory_does_it(plain: Outcome, check: str) -> None:
    assert plain[check] == ""


@pytest.mark.parametrize("check", CHECKS)
def test_the_drive_does_it_too(on_the_drive: Outcome, check: str) -> None:
    assert on_the_drive[check] == ""


def test_nothing_of_it_looked_like_a_change_behind_the_drives_back(either: Mounted, on_the_drive: Outcome) -> None:
    mine, other = either.drive / "mine", either.drive / "other"
    put(mine, "mine")
    put(other, "another")
    shutil.copy(either.store / "other", either.store / "mine")
    get(mine)
    wait_until(lambda: either.records("conflict"))  # what was told before is compared now
    found = either.records("conflict") + either.records("rollback")
    assert [record.file and record.file.path for record in found] == ["/mine"]


def test_every_file_left_in_the_store_is_sealed(either: Mounted, on_the_drive: Outcome) -> None:
    files = []
    for place, folders, names in os.walk(either.store):
        folders[:] = [folder for folder in folders if folder != ".grantfs"]
        paths = [Path(place, name) for name in names]
        files += [path for path in paths if stat.S_ISREG(path.lstat().st_mode)]
    assert files
    for path in files:
        with path.open("rb") as file:
            assert file.read(len(MAGIC)) == MAGIC, path
