"""Where workloads run: in a plain directory, which says that the workload itself is right, and then on a drive."""

import pwd
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.mounted.mounted import PERSONS, Mounted, remove, temporary_directory

POLICY = Path(__file__).parent / "policy"


class Place:
    """A folder, open to all users."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        folder.chmod(0o777)

    def interrupted(self) -> None:
        """What would end the filesystem's daemon and start another: a plain directory has none."""


class DrivePlace(Place):
    def __init__(self, drive: Mounted, folder: Path) -> None:
        super().__init__(folder)
        self._drive = drive

    def interrupted(self) -> None:
        """kill -9. Whoever has files open gets errors from now on."""
        self._drive.kill()
        self._drive.unmount_dead()
        self._drive.start()


@pytest.fixture(params=["plain", "drive"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    directory = temporary_directory()
    drive = Mounted(directory, policy=POLICY, persons=persons())
    try:
        if request.param == "plain":
            yield Place(directory / "plain")
        else:
            drive.start()
            yield DrivePlace(drive, drive.drive / "folder")
            drive.stop()
            assert drive.log() == ""
    finally:
        drive.end()
        remove(directory)


def persons() -> dict[int, str]:
    found = dict(PERSONS)
    with suppress(KeyError):
        found[pwd.getpwnam("postgres").pw_uid] = "postgres"
    return found
