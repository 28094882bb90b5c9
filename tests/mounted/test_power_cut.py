"""The store's filesystem is shut down, as a power cut leaves it: what it had not written is gone."""

import ctypes
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounted.mounted import LISTED, SECONDS, Mounted, get, listed, run, wait_until

pytestmark = pytest.mark.mounted

IOC_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN: one number, one meaning of the flags."""
NO_LOG_FLUSH = 2
WRITE_AND_WAIT = 7
"""sync_file_range(2): SYNC_FILE_RANGE_WAIT_BEFORE, WRITE and WAIT_AFTER."""
MEGABYTE = 1 << 20

# A version is one letter all over, a little longer each time: written in place, and only now and then synced.
WRITER = """
import itertools, os, sys
path, said = sys.argv[1], open(sys.argv[2], 'w', buffering=1)
for version in itertools.count(1):
    print('begun', version, file=said)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, bytes([version % 251]) * (70_000 + 777 * version), 0)
        synced = version % 7 == 1
        if synced: os.fsync(fd)
        os.close(fd)
    except OSError as exc:
        sys.exit(0)
    if synced: print('synced', version, file=said)
"""
READER = """
import sys
data = open(sys.argv[1], 'rb').read()
print(len(set(data)), (len(data) - 70_000) / 777, data[:1].hex())
"""


def shut_down(disk: Path) -> None:
    fd = os.open(disk, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    finally:
        os.close(fd)


def last(said: Path, word: str) -> int:
    return max((int(line.split()[1]) for line in said.read_text().splitlines() if line.startswith(word)), default=0)


@pytest.mark.parametrize("synced", [1, 8, 36])
def test_a_file_that_was_synced_is_whole_after_a_power_cut(own: Mounted, synced: int) -> None:
    image, said = own.directory / "image", [own.directory / f"said-{number}" for number in range(3)]
    with image.open("wb") as file:
        file.truncate(96 * MEGABYTE)
    run(["mkfs.ext4", "-q", image])
    own.store.mkdir()
    run(["mount", "-o", "loop", image, own.store])
    try:
        own.start()
        paths = [own.drive / f"file-{number}" for number in range(3)]
        writers = [
            subprocess.Popen([LISTED, "-I", "-c", WRITER, path, lines]) for path, lines in zip(paths, said, strict=True)
        ]
        wait_until(lambda: all(lines.exists() and last(lines, "synced") >= synced for lines in said))
        shut_down(own.store)
        for writer in writers:
            assert writer.wait(SECONDS) == 0
        own.kill()
        own.unmount_dead()
        disk_gone = own.records("damaged")  # who opened a file just then
        assert all("Errno 5" in record.detail for record in disk_gone)
        # The process that reads ahead ends a moment after the daemon.
        wait_until(lambda: subprocess.run(["umount", own.store], capture_output=True).returncode == 0)
        run(["mount", "-o", "loop", image, own.store])
        own.start()
        for path, lines in zip(paths, said, strict=True):
            letters, version, first = listed(READER, path).split()
            assert letters == "1", "a version is whole"
            assert last(lines, "synced") <= float(version) <= last(lines, "begun")
            assert int(first, 16) == float(version) % 251
        assert own.records("damaged") == disk_gone
        own.stop()
    finally:
        own.end()
        run(["umount", "-l", own.store])


FILESYSTEMS = {
    "ext4": (96 * MEGABYTE, "mkfs.ext4", "loop,commit=600"),
    "xfs": (320 * MEGABYTE, "mkfs.xfs", "loop"),
}
SIZE = 200_000
BEGUN = "o" * SIZE
FIRST = "a" * 50_000 + BEGUN[50_000:]
SECOND = FIRST[:100_000] + "b" * 50_000 + BEGUN[150_000:]

# Where the log begins over in space that it had before, a sync of it writes nothing of the filesystem's own with it.
BEGIN = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for _ in range(8):
    os.pwrite(fd, bytes(400_000), 0)
    os.fsync(fd)
os.pwrite(fd, bytes(100_000), 400_000)
os.fsync(fd)
for path in sys.argv[2:]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b'o' * 200_000, 0)
    os.fsync(fd)
"""
OVERWRITE = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b'a' * 50_000, 0)
os.fsync(fd)
exec(sys.argv[3])
if sys.argv[2] != sys.argv[1]: fd = os.open(sys.argv[2], os.O_RDWR)
os.pwrite(fd, b'b' * 50_000, 100_000)
os.close(fd)
"""


class Store:
    """A store with a filesystem of its own, and its drive."""

    def __init__(self, own: Mounted, kind: str) -> None:
        self._own = own
        self._image = own.directory / "image"
        size, make, self._options = FILESYSTEMS[kind]
        with self._image.open("wb") as file:
            file.truncate(size)
        run([make, "-q", self._image])
        own.store.mkdir()
        run(["mount", "-o", self._options, self._image, own.store])

    def cut(self, written: str) -> None:
        """The power fails and comes back. Of the file `written` the disk has the chunks as they were written last, and
        of everything else what was synced."""
        with (self._own.store / written).open("rb") as file:
            chunks = ctypes.c_int64(4096), ctypes.c_int64(0)
            assert ctypes.CDLL(None).sync_file_range(file.fileno(), *chunks, WRITE_AND_WAIT) == 0
        shut_down(self._own.store)
        self._own.kill()
        self._own.unmount_dead()
        self._unmount()
        run(["mount", "-o", self._options, self._image, self._own.store])

    def _unmount(self) -> None:
        # The process that reads ahead ends a moment after the daemon.
        wait_until(lambda: subprocess.run(["umount", self._own.store], capture_output=True).returncode == 0)

    def end(self) -> None:
        self._own.end()
        run(["umount", "-l", self._own.store])


@pytest.fixture(params=FILESYSTEMS)
def store(own: Mounted, request: pytest.FixtureRequest) -> Iterator[Store]:
    store = Store(own, request.param)
    try:
        own.start()
        (own.drive / "folder").mkdir()
        listed(BEGIN, own.drive / "another", own.drive / "folder/file", own.drive / "folder/spare")
        sync_filesystem(own.store)
        yield store
    finally:
        store.end()


def sync_filesystem(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        assert ctypes.CDLL(None).syncfs(fd) == 0
    finally:
        os.close(fd)


CHANGES = {
    "renamed": ("folder/new", "os.rename('folder/file', 'folder/new')"),
    "exchanged": (
        "folder/spare",
        "import ctypes; assert ctypes.CDLL(None).renameat2(-100, b'folder/file', -100, b'folder/spare', 2) == 0",
    ),
    "folder renamed": ("new/file", "os.rename('folder', 'new')"),
    "linked": ("new", "os.link('folder/file', 'new')"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_power_cut_that_takes_a_rename_back_leaves_the_file_whole(own: Mounted, store: Store, change: str) -> None:
    there, script = CHANGES[change]
    inode = (own.store / "folder/file").stat().st_ino
    listed(OVERWRITE, own.drive / "folder/file", own.drive / there, f"os.chdir({str(own.drive)!r}); {script}")
    assert (own.store / there).stat().st_ino == inode
    store.cut(written=there)
    assert (own.store / "folder/file").stat().st_ino == inode, "nothing had written the change to the disk"
    own.start()
    assert get(own.drive / "folder/file") == SECOND
    assert get(own.drive / "folder/spare") == BEGUN
    assert own.records("damaged") == []
    own.stop()


@pytest.mark.parametrize("taken_back", [False, True])
def test_a_file_that_lost_a_name_is_whole_after_a_power_cut(own: Mounted, store: Store, taken_back: bool) -> None:
    own.stop()
    os.link(own.store / "folder/file", own.store / "other")
    sync_filesystem(own.store)
    own.start()  # and nobody looks the other name up
    listed(BEGIN, own.drive / "more")
    path = own.drive / "folder/file"
    script = f"os.unlink({str(path)!r})"
    if not taken_back:
        script += f"; os.fsync(os.open({str(own.store / 'folder')!r}, os.O_RDONLY))"
    listed(OVERWRITE, path, path, script)
    store.cut(written="other")
    assert (own.store / "folder/file").exists() == taken_back
    own.start()
    assert get(own.drive / "other") == SECOND
    assert own.records("damaged") == []
    own.stop()
