"""Drives whose store is on NFS, in the emulated machine of `make nfs`: one server, two clients with nothing in common
(deploy/emulated/init.sh says how)."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mounted.mounted import Mounted, mount_points, remove, run, temporary_directory

A, B = Path("/mnt/a"), Path("/mnt/b")
"""The same export at two clients."""
FULL = Path("/mnt/full")
"""A small export, at client A."""


@pytest.fixture(autouse=True, scope="session")
def in_the_emulated_machine() -> None:
    if not {str(A), str(B), str(FULL)} <= mount_points():
        pytest.exit(
            "the tests marked `nfs` run in the emulated machine: make nfs", returncode=pytest.ExitCode.USAGE_ERROR
        )


@contextmanager
def stored_at(place: Path, machine: str = "test") -> Iterator[Mounted]:
    """A drive of `machine`, not yet started, with its store in a folder at `place`."""
    drive = Mounted(temporary_directory(), machine=machine)
    drive.store.mkdir()
    run(["mount", "--bind", place, drive.store])
    try:
        yield drive
    finally:
        drive.end()
        run(["umount", drive.store])  # not lazily: nobody may hold it any more
        remove(drive.directory)


@pytest.fixture
def folder() -> Iterator[str]:
    """The name of a folder in the export, empty at first."""
    path = Path(tempfile.mkdtemp(dir=A))
    yield path.name
    shutil.rmtree(path)


@pytest.fixture
def own(folder: str) -> Iterator[Mounted]:
    """A drive for one test, not yet started."""
    with stored_at(A / folder) as drive:
        yield drive


@pytest.fixture
def drive(own: Mounted) -> Iterator[Mounted]:
    """A started drive, of which nothing is said that was not expected."""
    own.start()
    yield own
    own.stop()
    assert own.log() == ""
