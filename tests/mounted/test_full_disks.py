"""Filesystems without space left, and at a quota: programs are told in time, and no file suffers."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.mounted.mounted import LISTED, SECONDS, Mounted, run, wait_until

pytestmark = [pytest.mark.mounted, pytest.mark.timeout(600)]

MEGABYTE = 1 << 20
FULLER = Path(__file__).parent / "fuller.py"

MAKE = {
    "ext4": (128, ["mkfs.ext4", "-q", "-m", "0"]),
    "xfs": (300, ["mkfs.xfs", "-q"]),
    "btrfs": (256, ["mkfs.btrfs", "-q"]),
    "btrfs at its quota": (512, ["mkfs.btrfs", "-q"]),
}
LEFT = 56 * MEGABYTE
"""What a filesystem has for the drive."""


@contextmanager
def disk(directory: Path, kind: str) -> Iterator[Path]:
    """A filesystem of its own, the store in it at `directory / "store"`, with `LEFT` bytes free; gives where it is
    mounted."""
    size, make = MAKE[kind]
    image, point, store = directory / "image", directory / "disk", directory / "store"
    with image.open("wb") as file:
        file.truncate(size * MEGABYTE)
    run([*make, image])
    point.mkdir()
    store.mkdir()
    with ExitStack() as ending:
        run(["mount", "-o", "loop", image, point])
        ending.callback(run, ["umount", "-l", point])
        if kind == "btrfs at its quota":
            run(["btrfs", "subvolume", "create", point / "store"])
            run(["btrfs", "quota", "enable", point])
            run(["btrfs", "qgroup", "limit", LEFT, point / "store"])
        else:
            (point / "store").mkdir()
            with (point / "ballast").open("wb") as ballast:
                space = os.statvfs(point)
                os.posix_fallocate(ballast.fileno(), 0, space.f_bavail * space.f_frsize - LEFT)
        run(["mount", "--bind", point / "store", store])
        ending.callback(run, ["umount", "-l", store])
        yield point


def fill(point: Path) -> None:
    """Somebody else takes what is left for the store, to the last block."""
    run(["sync", "-f", point])
    ballast = point / "store/.grantfs/ballast"  # below the quota, too
    try:
        fd = os.open(ballast, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except OSError:
        return  # not even a name is left
    try:
        for size in (MEGABYTE, 4096, 512):
            with suppress(OSError):
                while True:
                    os.write(fd, bytes(size))
    finally:
        with suppress(OSError):
            os.close(fd)


@pytest.mark.parametrize("most", [40, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", MAKE)
def test_a_full_disk_is_said_in_time_and_no_file_suffers(own: Mounted, kind: str, most: int) -> None:
    folder, model = own.drive / "folder", own.directory / "model"

    def work(*ways: str, seed: int) -> str:
        return run([LISTED, "-I", FULLER, folder, model, seed, most, *ways], timeout=3 * SECONDS)

    empties = () if "btrfs" in kind else ("empties",)  # there a new commit record needs new space
    with disk(own.directory, kind) as point:
        own.start()
        folder.mkdir()
        work("files", "appends", "overwrites", "holes", "shrinks", "overwrites", *empties, seed=1)
        fill(point)
        assert "call:E" in work("files", "appends", "overwrites", "holes", "overwrites", *empties, seed=2)
        work("removes", "overwrites", "holes", "files", "appends", "overwrites", seed=3)
        fill(point)
        own.stop()
        if "quota" in kind:  # emptying the log takes space there, too: nothing is lost, but the mount may be refused
            run(["btrfs", "qgroup", "limit", LEFT + 16 * MEGABYTE, point / "store"])
        own.start()
        work("overwrites", "appends", "files", seed=4)
        own.kill()
        own.unmount_dead()
        if "quota" in kind:
            run(["btrfs", "qgroup", "limit", LEFT + 32 * MEGABYTE, point / "store"])
        own.start()
        assert "files 0" not in work("removes", *empties, "files", seed=5)
        own.stop()
        assert own.log() == ""
        # The process that reads ahead ends a moment after the daemon.
        wait_until(lambda: subprocess.run(["umount", own.store], capture_output=True).returncode == 0)
        run(["mount", "--bind", point / "store", own.store])
