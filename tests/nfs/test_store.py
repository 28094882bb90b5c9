"""A drive whose store is on NFS does what one on a disk does; where NFS itself cannot, it says so."""

import errno
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mounted.mounted import LISTED, SECONDS, Mounted, MountFailed, get, listed, put, run, wait_until
from tests.mounted.test_checking import CHANGE, fsdriver, keys, verdicts
from tests.mounted.test_failures import CHECK, FILL
from tests.nfs.conftest import FULL, A, B, stored_at

pytestmark = pytest.mark.nfs

RENAME = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(sys.argv[1])
def rename(old, new, flags):
    done = libc.renameat2(-100, old.encode(), -100, new.encode(), flags)
    return 'done' if done == 0 else errno.errorcode[ctypes.get_errno()]
for name in 'ab': open(name, 'w').write(name)
for name in 'cd': os.mkdir(name)
print(rename('a', 'b', 1), rename('c', 'd', 1), rename('a', 'd', 1))
held = open('a', 'r+')
print(rename('a', 'free', 1), rename('c', 'free folder', 1), rename('b', 'free', 2))
held.write('written after'); held.close()
print(open('free').read(), *sorted(os.listdir()), os.stat('free').st_nlink)
"""


def test_rename_replaces_nothing_where_it_is_asked_not_to(drive: Mounted) -> None:
    """NFS knows no such rename: a link does it for a file, and a look for a folder. It cannot exchange two names."""
    assert listed(RENAME, drive.drive).splitlines() == [
        "EEXIST EEXIST EEXIST",
        "done done EINVAL",
        "written after b d free free folder 1",
    ]


WRITE_IN_ALL_WAYS = """
import os, sys
os.chdir(sys.argv[1])
with open('f', 'xb') as file: file.write(b'a' * 200_000)
try: open('f', 'xb')
except FileExistsError: pass
with open('f', 'r+b') as file:
    file.seek(70_000); file.write(b'b' * 10)
with open('f', 'ab') as file: file.write(b'c' * 10)
os.link('f', 'linked')
with open('new', 'wb') as file: file.write(b'new')
os.rename('new', 'f')
os.setxattr('linked', 'user.note', b'value')
fd = os.open('linked', os.O_RDWR)
os.posix_fallocate(fd, 0, 1_000_000)
"""
READ_IT = """
import os, sys
os.chdir(sys.argv[1])
data = open('linked', 'rb').read()
assert data == (b'a' * 70_000 + b'b' * 10).ljust(200_000, b'a') + b'c' * 10 + bytes(799_990), len(data)
assert open('f', 'rb').read() == b'new'
assert os.getxattr('linked', 'user.note') == b'value'
assert os.stat('linked').st_nlink == 1
fd = os.open('linked', os.O_RDONLY)
print(os.lseek(fd, 0, os.SEEK_HOLE) < 1_000_000)
"""


def test_what_is_closed_is_at_the_server_and_survives_a_kill(own: Mounted, folder: str) -> None:
    own.start()
    listed(WRITE_IN_ALL_WAYS, own.drive)
    put(own.drive / "f0", "x" * 100_000)
    # The other client has the sealed bytes as soon as close(2) has returned.
    found = fsdriver("fsck", B / folder, "--key-file", keys(own), "-o", "json").stdout.splitlines()
    assert [line["verdict"] for line in map(json.loads, found) if "path" in line] == ["ok"] * 3
    own.kill()
    own.unmount_dead()
    own.start()
    assert listed(READ_IT, own.drive) == "True\n"
    own.stop()
    assert own.log() == ""


def test_a_kill_while_files_are_written_leaves_old_or_new_ones(own: Mounted) -> None:
    own.start()
    with subprocess.Popen([LISTED, "-I", "-c", CHANGE, str(own.drive)], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(5)  # any moment will do
            own.kill()
        finally:
            writer.kill()
    own.unmount_dead()
    own.start()
    own.stop()
    assert set(verdicts(own)) <= {"ok", "overlong"}


HOLD = """
import os, sys
os.chdir(sys.argv[1])
os.makedirs('place', exist_ok=True)
for name in ('place/removed', 'place/replaced'): open(name, 'w').write('as it was')
removed, replaced = (open('place/' + name, 'r+') for name in ('removed', 'replaced'))
os.unlink('place/removed')
open('place/new', 'w').write('new')
os.rename('place/new', 'place/replaced')
print('held', flush=True)
sys.stdin.readline()
for file in (removed, replaced):
    assert file.read() == 'as it was'
    file.write(', and more'); file.flush(); os.fsync(file.fileno())
    file.seek(0)
    assert file.read() == 'as it was, and more'
    file.close()
"""


def silly(place: Path) -> list[str]:
    return [name for name in os.listdir(place) if name.startswith(".nfs")]


def test_files_that_are_open_without_a_name_are_no_documents(drive: Mounted) -> None:
    """An NFS client keeps them under names of its own."""
    place = drive.drive / "place"
    with subprocess.Popen(
        [LISTED, "-I", "-c", HOLD, str(drive.drive)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        put(drive.drive / "f0", "x")
        hidden = silly(drive.store / "place")
        assert len(hidden) == 2
        assert os.listdir(place) == ["replaced"]
        assert get(place / "replaced") == "new"
        for name in hidden:
            assert not (place / name).exists()
        with pytest.raises(PermissionError):
            (place / (".nfs" + "0" * 24)).mkdir()
        assert verdicts(drive) == ["ok", "ok"]
        holder.communicate("go on\n", timeout=SECONDS)
        assert holder.returncode == 0
    wait_until(lambda: not silly(drive.store / "place"))
    run(["rm", "-r", place])
    assert drive.records("conflict") == drive.records("rollback") == []


TREE = """
import os, sys
os.chdir(sys.argv[1])
for folder in 'abc':
    os.makedirs(f'tree/{folder}')
    for number in range(20): open(f'tree/{folder}/{number}', 'w').write('x' * 5000)
for place, _, names in os.walk('tree'):
    for name in names:
        open(f'{place}/{name}').read()
        open(f'{place}/new', 'w').write('saved')
        os.rename(f'{place}/new', f'{place}/{name}')
"""


def test_a_tree_that_was_just_read_and_written_can_be_removed(drive: Mounted) -> None:
    """A file of it that the daemon still has open would keep a name on NFS, and its folder not be empty."""
    for _ in range(3):
        listed(TREE, drive.drive)
        run(["rm", "-r", drive.drive / "tree"])
        assert os.listdir(drive.store) == [".grantfs"]


def test_one_machines_log_is_held_at_one_client_only(own: Mounted, folder: str) -> None:
    own.start()
    with stored_at(B / folder) as second:
        with pytest.raises(MountFailed, match="is mounted on this machine already"):
            second.start()
        put(own.drive / "f", "content")
        own.kill()
        own.unmount_dead()
        second.start()
        assert get(second.drive / "f") == "content"
        second.stop()


def test_it_is_as_large_as_the_export(drive: Mounted) -> None:
    here, there = os.statvfs(drive.drive), os.statvfs(A)
    assert (here.f_blocks * here.f_frsize, here.f_files) == (there.f_blocks * there.f_frsize, there.f_files)


MANY = """
import os, sys
for number in range(1000):
    with open(f'{sys.argv[1]}/small{number}', 'wb') as file: file.write(b'x' * 30_000)
"""


# ---- a server that is away, and one that is full ---------------------------------------------------------------------


@contextmanager
def server_stopped() -> Iterator[None]:
    threads = Path("/proc/fs/nfsd/threads")
    threads.write_text("0")
    try:
        yield
    finally:
        threads.write_text("8")


def test_a_server_that_is_away_is_waited_for(drive: Mounted) -> None:
    put(drive.drive / "f", "before")
    script = (
        "import os, sys\nf = open(sys.argv[1], 'r+')\nprint('open', flush=True)\nsys.stdin.readline()\n"
        "f.write('AFTER!')\nf.flush()\nos.fsync(f.fileno())\nprint('synced', flush=True)"
    )
    with subprocess.Popen(
        [LISTED, "-I", "-c", script, str(drive.drive / "f")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        with server_stopped():
            writer.stdin.write("go on\n")
            writer.stdin.flush()
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(5)
        assert writer.stdout.readline() == "synced\n"
    assert writer.returncode == 0
    assert get(drive.drive / "f") == "AFTER!"
    put(drive.drive / "g", "a new one")
    assert get(drive.drive / "g") == "a new one"


def test_a_full_store_is_said_and_loses_nothing_that_was_written_before() -> None:
    with stored_at(FULL) as own:
        own.start()
        put(own.drive / "before", "kept" * 10_000)
        number, written = map(int, listed(FILL, own.drive / "big", timeout=2 * SECONDS).split())
        assert number == errno.ENOSPC
        assert 5_000_000 < written < 40_000_000
        assert int(listed(CHECK, own.drive / "big")) == written
        assert get(own.drive / "before") == "kept" * 10_000
        with pytest.raises(AssertionError, match="No space left"):
            listed(MANY, own.drive)
        own.stop()
        assert own.log() == ""
        run(["find", own.store, "-mindepth", "1", "-delete"])
