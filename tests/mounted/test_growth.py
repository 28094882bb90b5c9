"""What the drive holds while much is known, much is open, or work never ends (benchmarks/growth.py has the figures)."""

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from tests.mounted.mounted import LISTED, Mounted, listed, run
from tests.patience import eventually

pytestmark = pytest.mark.mounted

MAKE = """
import sys
for number in range(int(sys.argv[2])):
    with open(f"{sys.argv[1]}/{number}", "w") as file:
        file.write("content")
"""
HOLD = """
import os, sys
fds = [os.open(f"{sys.argv[1]}/{number}", os.O_RDONLY) for number in range(int(sys.argv[2])) for _ in range(3)]
print("open", flush=True)
sys.stdin.read()
"""
WALK = """
import os, sys
print(sum(os.lstat(f"{above}/{name}").st_ino > 0 for above, folders, names in os.walk(sys.argv[1])
          for name in folders + names))
"""
REMOVE = "import shutil, sys; shutil.rmtree(sys.argv[1])"
OTHERS = 24
"""Descriptors that come and go with programs the drive looks at."""


def test_an_open_file_takes_one_descriptor_however_many_handles_it_has(mounted: Mounted) -> None:
    folder = mounted.drive / "open"
    folder.mkdir()
    files = 200
    listed(MAKE, folder, files)
    eventually(lambda: mounted.holds()["files"] == 0)
    before = mounted.descriptors()
    command = [LISTED, "-I", "-c", HOLD, str(folder), str(files)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"open\n"
        assert mounted.holds()["files"] == files
        assert files - OTHERS <= mounted.descriptors() - before <= files + OTHERS
        program.communicate()
    eventually(lambda: mounted.holds()["files"] == 0)
    assert mounted.descriptors() - before <= OTHERS


def test_what_is_unpacked_and_removed_again_and_again_leaves_nothing(mounted: Mounted, tmp_path: Path) -> None:
    archive, folder = tmp_path / "tree.tar", mounted.drive / "again"
    pack(archive)
    before, sizes = mounted.holds()["nodes"], []
    for _ in range(10):
        folder.mkdir()
        run(["/usr/bin/tar", "xf", archive, "-C", folder])
        listed(REMOVE, folder)
        eventually(lambda: mounted.holds()["files"] == 0)
        eventually(lambda: mounted.holds()["nodes"] <= before + 20)  # the kernel says so a little later
        sizes.append(mounted.resident())
    assert max(sizes[5:]) - max(sizes[:5]) < 3 << 20


@pytest.fixture
def store() -> Iterator[Path]:
    """In memory: a used ext4 takes seconds to make so many files."""
    with tempfile.TemporaryDirectory(prefix="grantfs-test-", dir="/dev/shm") as directory:
        yield Path(directory)


def test_a_node_takes_no_descriptor_and_less_than_700_bytes(own: Mounted, store: Path) -> None:
    own.store = store
    own.start()
    for name, folders in (("few", 10), ("many", 1100)):
        for number in range(folders):
            folder = store / name / f"folder-{number}"
            folder.mkdir(parents=True)
            for child in range(13):
                os.symlink("nowhere", folder / f"link-{child}")
                (folder / f"file-{child}").touch()
    assert listed(WALK, own.drive / "few") == "270\n"  # who asks was found out by then
    nodes = 1100 * 27
    before, descriptors = own.resident(), own.descriptors()
    assert listed(WALK, own.drive / "many") == f"{nodes}\n"
    assert own.resident() - before < 700 * nodes
    kept = 1024  # of directories
    assert own.descriptors() - descriptors <= kept + OTHERS
    own.stop()


def pack(archive: Path) -> None:
    """200 files in 10 folders."""
    with tarfile.open(archive, "w") as tar:
        for folder in range(10):
            entry = tarfile.TarInfo(f"folder-{folder}")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
            for number in range(20):
                entry = tarfile.TarInfo(f"folder-{folder}/file-{number}")
                entry.size = 100 * number
                tar.addfile(entry, BytesIO(bytes(entry.size)))
