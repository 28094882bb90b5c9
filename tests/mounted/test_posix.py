"""The POSIX list: first on a plain directory, which says that the list is right, then on the drive."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounted import posix_list
from tests.mounted.mounted import HERE, LISTED, Mounted, remove, run, temporary_directory

pytestmark = pytest.mark.mounted

Outcome = dict[str, str]


def outcome(directory: Path) -> Outcome:
    """Check name -> what went wrong, "" for nothing."""
    directory.mkdir()
    lines = run([LISTED, "-I", HERE / "posix_list.py", directory], timeout=200)
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


@pytest.mark.parametrize("check", posix_list.CHECKS)
def test_a_plain_directory_does_it(plain: Outcome, check: str) -> None:
    assert plain[check] == ""


@pytest.mark.parametrize("check", posix_list.CHECKS)
def test_the_drive_does_it_too(on_the_drive: Outcome, check: str) -> None:
    assert on_the_drive[check] == ""


def test_every_file_left_in_the_store_is_sealed(either: Mounted, on_the_drive: Outcome) -> None:
    files = [path for path in either.store.rglob("*") if path.is_file() and ".grantfs" not in path.parts]
    assert files
    for path in files:
        if not path.is_symlink():
            assert path.read_bytes()[:256].find(b"GrantFS") >= 0 or path.read_bytes()[:8], path
