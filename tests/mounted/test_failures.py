"""Full disks, wrong stores, mount points in use, and a daemon that is killed."""

import errno
import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fsdriver.filesystem.store import Store, StoreInUse
from tests.mounted.harness import COMPANY
from tests.mounted.mounted import LISTED, SECONDS, Mounted, MountFailed, get, listed, mount_points, put, run, wait_until

pytestmark = pytest.mark.mounted

MEGABYTE = 1 << 20

FILL = """
import os, sys
done, fd = 0, os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
try:
    while True:
        done += os.write(fd, bytes([done // 65536 % 256]) * 65536)
except OSError as exc:
    print(exc.errno, done)
os.close(fd)
"""
CHECK = """
import sys
data = open(sys.argv[1], 'rb').read()
for at in range(0, len(data), 65536):
    part = data[at:at + 65536]
    assert part == bytes([at // 65536 % 256]) * len(part), at
print(len(data))
"""
CODE = "import sys\ntry: print(open(sys.argv[1], sys.argv[2]).read())\nexcept OSError as exc: print(exc.errno)"


@contextmanager
def small_disk(directory: Path, megabytes: int, name: str) -> Iterator[Path]:
    """An ext4 of its own at `directory / name`."""
    image, point = directory / f"{name}.image", directory / name
    with open(image, "wb") as file:
        file.truncate(megabytes * MEGABYTE)
    run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image])
    point.mkdir()
    run(["mount", "-o", "loop", image, point])
    try:
        yield point
    finally:
        run(["umount", "-l", point])


@pytest.fixture
def small_store(own: Mounted) -> Iterator[Mounted]:
    with small_disk(own.directory, 64, "store"):
        own.start()
        yield own
        own.stop()


@pytest.fixture
def small_spool(own: Mounted) -> Iterator[Mounted]:
    with small_disk(own.directory, 24, "spool"):
        own.start()
        yield own
        own.stop()


# ---- full disks ----------------------------------------------------------------------------------------------------


def test_a_full_store_is_said_by_write_and_loses_nothing(small_store: Mounted) -> None:
    drive = small_store.drive
    put(drive / "before", "kept")
    number, written = map(int, listed(FILL, drive / "big").split())
    assert number == errno.ENOSPC
    assert written > 20 * MEGABYTE
    assert int(listed(CHECK, drive / "big")) == written
    assert get(drive / "before") == "kept"
    script = "import os, sys\nos.pwrite(os.open(sys.argv[1], os.O_WRONLY), b'KEPT', 0)"
    listed(script, drive / "before", check=False)
    assert get(drive / "before") in ("kept", "KEPT")
    listed("import os, sys; os.truncate(sys.argv[1], 1000000)", drive / "big")
    put(drive / "after", "room again" * 1000)
    assert get(drive / "after") == "room again" * 1000
    listed("import os, sys; os.unlink(sys.argv[1])", drive / "big")
    assert int(listed(FILL, drive / "again").split()[1]) >= written - 2 * MEGABYTE
    assert small_store.log() == ""


def test_a_drop_in_that_does_not_fit_leaves_the_old_file(small_store: Mounted, tmp_path: Path) -> None:
    put(small_store.drive / "f", "old")
    with open(tmp_path / "big", "wb") as file:
        file.write(os.urandom(80 * MEGABYTE))
    assert "No space left" in run(["cp", tmp_path / "big", small_store.drive / "new"], check=False)
    run(["rm", small_store.drive / "new"])
    put(small_store.drive / "other", "fits")
    assert get(small_store.drive / "f") == "old"


def test_a_spool_that_cannot_be_written_refuses_opens_and_nothing_else_is_lost(small_spool: Mounted) -> None:
    drive, ballast = small_spool.drive, small_spool.spool / "ballast"
    put(drive / "f", "content")
    holder = subprocess.Popen(
        [
            LISTED,
            "-I",
            "-c",
            "import sys; f = open(sys.argv[1], 'rb', 0); sys.stdin.read(); print(f.read())",
            str(drive / "f"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    wait_until(lambda: any(record.event == "open" for record in small_spool.records()))
    with open(ballast, "wb") as file:
        space = os.statvfs(small_spool.spool)
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize)
    codes: list[str] = []

    def is_refused() -> bool:
        codes.append(listed(CODE, drive / "f", "rb").strip())
        return codes[-1] == str(errno.EIO)

    # What the last segment has in hand is used up first.
    wait_until(is_refused)
    opens = len([record for record in small_spool.records("open") if record.file and record.file.path == "/f"])
    assert opens >= len(codes) - 1, "an open that succeeded has its record"
    answers = {name: listed(CODE, drive / name, "ab").strip() for name in ("a", "b", "c", "d", "e")}
    made = {record.file.path for record in small_spool.records("create") if record.file}
    for name, answer in answers.items():
        refused = answer == str(errno.EIO)
        assert refused == (name not in os.listdir(drive)) == (f"/{name}" not in made)
    assert str(errno.EIO) in answers.values()
    assert holder.communicate(timeout=SECONDS)[0].strip() == b"b'content'"
    ballast.unlink()
    assert get(drive / "f") == "content"


# ---- stores and mount points ---------------------------------------------------------------------------------------


def test_a_store_of_another_company_is_refused(own: Mounted) -> None:
    own.start()
    own.stop()
    mark = own.store / ".grantfs" / "store.json"
    mark.write_text(mark.read_text().replace(COMPANY.hex(), "ff" * 16))
    with pytest.raises(MountFailed, match="another company"):
        own.start()
    assert str(own.drive) not in mount_points()


def test_a_folder_with_files_is_not_taken_for_a_store(own: Mounted) -> None:
    own.store.mkdir()
    (own.store / "letter").write_text("plain")
    with pytest.raises(MountFailed, match="no GrantFS store"):
        own.start()
    assert os.listdir(own.store) == ["letter"]


def test_a_mount_point_that_is_not_empty_is_refused(own: Mounted) -> None:
    own.drive.mkdir()
    (own.drive / "letter").write_text("plain")
    with pytest.raises(MountFailed, match="not empty"):
        own.start()
    assert (own.drive / "letter").read_text() == "plain"


def test_a_second_mount_of_the_same_store_is_refused(own: Mounted) -> None:
    own.start()
    with pytest.raises(StoreInUse, match="mounted on this machine already"):
        Store.open(str(own.store), COMPANY, "test")
    put(own.drive / "f", "works")
    assert get(own.drive / "f") == "works"
    own.stop()


def test_a_store_that_cannot_be_written_says_so(own: Mounted) -> None:
    with small_disk(own.directory, 32, "store") as disk:
        own.start()
        put(own.drive / "f", "content")
        own.stop()
        run(["mount", "-o", "remount,ro", disk])
        with pytest.raises(MountFailed, match="Read-only file system"):
            own.start()
        assert str(own.drive) not in mount_points()


def test_a_drive_in_use_is_let_go_at_the_end_and_serves_who_holds_it(own: Mounted) -> None:
    own.start()
    put(own.drive / "f", "held")
    holder = subprocess.Popen(
        [
            LISTED,
            "-I",
            "-c",
            "import sys; f = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()",
            str(own.drive / "f"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        assert holder.stdout.readline() == b"open\n"
        os.kill(own.pid, 15)
        wait_until(lambda: str(own.drive) not in mount_points())
        assert os.listdir(own.drive) == []
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
        own.end()


# ---- a daemon that is killed ---------------------------------------------------------------------------------------

WRITES = """
import os, sys
top, number = sys.argv[1], 0
while True:
    path = f'{top}/{number}'
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(fd, b'%d ' % number * 20000)
    os.close(fd)
    if number % 3 == 0:
        with open(path, 'r+b') as f: f.seek(70000); f.write(b'CHANGED' * 9)
    if number % 5 == 0: os.rename(path, path + '.renamed'); path += '.renamed'
    sys.stdout.write(path + chr(10)); sys.stdout.flush()
    number += 1
"""
COMPARE = """
import os, sys
for line in sys.stdin:
    path = line.rstrip()
    number = int(os.path.basename(path).removesuffix('.renamed'))
    wanted = bytearray(b'%d ' % number * 20000)
    if number % 3 == 0:
        wanted.extend(bytes(max(0, 70063 - len(wanted)))); wanted[70000:70063] = b'CHANGED' * 9
    data = open(path, 'rb').read()
    assert data == wanted, (path, len(data), len(wanted))
"""


def killed_after(own: Mounted, lines: int, *commands: list[str]) -> list[str]:
    """All that the commands have written when the daemon is killed, a little after each has written so many lines."""
    with ExitStack() as stack:
        outputs = []
        for command in commands:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            assert process.stdout is not None
            outputs.append(stack.enter_context(process).stdout)
        said = [output.readline() for output in outputs for _ in range(lines) if output is not None]
        time.sleep(random.uniform(0.0, 0.1))
        own.kill()
        return [line.rstrip("\n") for line in said + [line for output in outputs if output for line in output]]


@pytest.mark.parametrize("count", [11, 60])
def test_what_was_closed_before_the_daemon_was_killed_is_whole_and_recorded(own: Mounted, count: int) -> None:
    own.start()
    closed = killed_after(own, count, [LISTED, "-I", "-c", WRITES, str(own.drive)])
    assert len(closed) >= count
    with pytest.raises(OSError, match="not connected|connection abort|canceled"):
        os.listdir(own.drive)
    own.unmount_dead()
    for refused in (own.drive / "letter", own.drive / "folder"):
        with pytest.raises(PermissionError):
            refused.write_text("plain") if refused.name == "letter" else refused.mkdir()
    own.start()
    for _ in range(2):
        done = subprocess.run([LISTED, "-I", "-c", COMPARE], input="\n".join(closed), text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
    recorded = {record.file.path for record in own.records("create") if record.file}
    for path in closed:
        assert "/" + Path(path).name.removesuffix(".renamed") in recorded
    files = [name for name in os.listdir(own.drive)]
    listed(
        "import os, sys\nfor name in os.listdir(sys.argv[1]): open(os.path.join(sys.argv[1], name), 'rb').close()"
        if len(files) == len(closed)
        else "pass",
        own.drive,
    )
    own.stop()


UNDER_WAY = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(fd, b'kept')
os.fsync(fd)
os.write(fd, b'lost' * 50_000)
print('written', flush=True)
sys.stdin.read()
"""
GOES_ON = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_APPEND)
print(os.fstat(fd).st_size)
os.write(fd, b' and more')
print(os.pread(fd, 100, 0).decode())
"""


def test_what_was_under_way_when_the_daemon_was_killed_counts_for_nothing(own: Mounted) -> None:
    own.start()
    command = [LISTED, "-I", "-c", UNDER_WAY, str(own.drive / "f")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        own.kill()
    own.unmount_dead()
    assert (own.store / "f").stat().st_size > 100_000
    own.start()
    assert listed(GOES_ON, own.drive / "f").splitlines() == ["4", "kept and more"]
    own.stop()


def test_records_of_every_open_outlive_the_daemon_and_numbers_have_no_gaps(own: Mounted) -> None:
    own.start()
    for name in "abc":
        put(own.drive / name, name)
    script = (
        "import sys\nn = 0\n"
        "while True:\n"
        "    for name in 'abc':\n"
        "        open(f'{sys.argv[1]}/{name}', 'rb').close(); n += 1; sys.stdout.write(f'{n}\\n'); sys.stdout.flush()\n"
    )
    opened = len(killed_after(own, 100, *[[LISTED, "-I", "-c", script, str(own.drive)]] * 3))
    own.unmount_dead()
    assert opened >= 300
    assert len(own.records("open")) >= opened
    own.start()
    own.stop()
    numbers = [record.seq for record in own.records()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_an_interrupted_replacement_is_cleared_away_at_the_next_mount(own: Mounted) -> None:
    own.start()
    put(own.drive / "f", "old")
    fd = os.open(own.drive / "f", os.O_WRONLY | os.O_TRUNC)
    os.write(fd, b"half")
    own.kill()
    _close_dead(fd)
    own.unmount_dead()
    assert os.listdir(own.store / ".grantfs" / "incoming")
    own.start()
    assert os.listdir(own.store / ".grantfs" / "incoming") == []
    assert get(own.drive / "f") == "old"
    own.stop()


IN_PLACE = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b'new', 0)
os.fsync(fd)
"""


@pytest.mark.parametrize("deleted", [False, True])
def test_a_document_that_was_put_back_stays_so_when_the_drive_is_killed(own: Mounted, deleted: bool) -> None:
    own.start()
    document, copy = own.drive / "document", own.directory / "copy"
    put(document, "old" * 10_000)
    run(["cp", document, copy])
    listed(IN_PLACE, document)
    if deleted:  # then the one that is put back may get its inode number
        document.unlink()
    run(["cp", copy, document])
    own.kill()
    own.unmount_dead()
    with open(own.store / ".grantfs/redo/test", "rb") as log:
        assert log.read(8) == bytes(8), "no group is left that the old document had"
    own.start()
    assert get(document) == "old" * 10_000
    own.stop()


TWO_NAMES = """
import os, sys
taken, left = sys.argv[1:]
open(taken, 'wb').write(b'old' * 30_000)
os.link(taken, left)
"""
OVERWRITES = """
import os, sys
taken, how = sys.argv[1:]
fd = os.open(taken, os.O_RDWR)
if how == 'renamed over':
    open(taken + '.new', 'x').close()
    os.rename(taken + '.new', taken)
else:
    os.unlink(taken)
os.pwrite(fd, b'new' * 20_000, 0)
os.fsync(fd)
print('synced', flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["unlinked", "renamed over", "mounted again"])
def test_a_file_that_lost_a_name_is_repaired_under_the_other(own: Mounted, how: str) -> None:
    own.start()
    taken, left = own.drive / "taken", own.drive / "left"
    listed(TWO_NAMES, taken, left)
    if how == "mounted again":  # nobody has looked the other name up since
        own.stop()
        own.start()
    command = [LISTED, "-I", "-c", OVERWRITES, str(taken), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"synced\n"
        own.kill()
    own.unmount_dead()
    # As if it had been killed a moment earlier: the log has the group, its place does not.
    with open(own.store / ".grantfs/redo/test", "r+b") as log, open(own.store / "left", "r+b") as stored:
        log.seek(8)
        log.write(b"\x01")
        stored.seek(4096)
        stored.write(bytes(1000))
    own.start()
    assert get(own.drive / "left") == "new" * 20_000 + "old" * 10_000


def _close_dead(fd: int) -> None:
    """The kernel says that the drive is dead in one of these words, as far as it has come in ending the transport."""
    with pytest.raises(OSError, match=r"Errno") as refused:
        os.close(fd)
    assert refused.value.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED)


def test_a_dead_mount_is_named_by_the_next_start(own: Mounted) -> None:
    own.start()
    own.kill()
    with pytest.raises(MountFailed, match="dead drive"):
        own.start()
