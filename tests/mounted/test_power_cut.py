"""The store's ext4 is shut down under load, as a power cut leaves it: what it had not written is gone."""

import fcntl
import os
import struct
import subprocess
from pathlib import Path

import pytest

from tests.mounted.mounted import LISTED, SECONDS, Mounted, listed, run, wait_until

pytestmark = pytest.mark.mounted

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
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
        fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
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
        # The process that reads ahead ends a moment after the daemon.
        wait_until(lambda: subprocess.run(["umount", own.store], capture_output=True).returncode == 0)
        run(["mount", "-o", "loop", image, own.store])
        own.start()
        for path, lines in zip(paths, said, strict=True):
            letters, version, first = listed(READER, path).split()
            assert letters == "1", "a version is whole"
            assert last(lines, "synced") <= float(version) <= last(lines, "begun")
            assert int(first, 16) == float(version) % 251
        assert own.records("damaged") == []
        own.stop()
    finally:
        own.end()
        run(["umount", "-l", own.store])
