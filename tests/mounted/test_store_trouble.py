"""A store that can no longer be written, or read, while the drive is mounted: said to programs, and over with it."""

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mounted.mounted import LISTED, SECONDS, Mounted, get, listed, put, run, wait_until
from tests.mounted.test_failures import small_disk

pytestmark = pytest.mark.mounted

CHANGES = """
import errno, os, sys
top = sys.argv[1]
def number(act):
    try: act()
    except OSError as exc: return errno.errorcode[exc.errno]
    return 'done'
print(*{number(act) for act in (
    lambda: os.open(top + '/f', os.O_WRONLY),
    lambda: os.open(top + '/f', os.O_WRONLY | os.O_TRUNC),
    lambda: os.truncate(top + '/f', 1),
    lambda: os.chmod(top + '/f', 0o600),
    lambda: os.chown(top + '/f', 1, 1),
    lambda: os.utime(top + '/f'),
    lambda: os.setxattr(top + '/f', 'user.a', b'x'),
    lambda: os.open(top + '/created', os.O_WRONLY | os.O_CREAT),
    lambda: os.mkdir(top + '/made'),
    lambda: os.symlink('x', top + '/symbolic'),
    lambda: os.link(top + '/f', top + '/linked'),
    lambda: os.rename(top + '/f', top + '/moved'),
    lambda: os.rename(top + '/g', top + '/h'),
    lambda: os.unlink(top + '/i'),
)})
"""
HELD = """
import errno, os, sys
held = os.open(sys.argv[1], os.O_RDWR)
def number(act):
    try: act()
    except OSError as exc: return errno.errorcode[exc.errno]
    return 'done'
print('open', flush=True)
for line in sys.stdin:
    data = line.strip().encode()
    written = number(lambda: os.pwrite(held, data, 0))
    print(written, number(lambda: os.fsync(held)), number(lambda: os.pread(held, 10, 0)), flush=True)
print(number(lambda: os.close(held)))
"""


class Holder:
    """A listed program with a file open, which writes what it is told."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [LISTED, "-I", "-c", HELD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._said() == "open"

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def writes(self, text: str) -> str:
        """What became of write, fsync and read."""
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()
        return self._said()

    def closes(self) -> str:
        return self._process.communicate(timeout=SECONDS)[0].strip()


@contextmanager
def bound(folder: Path) -> Iterator[None]:
    """`folder` as a mount of its own, which can be made read-only while the rest of the store is written."""
    run(["mount", "--bind", folder, folder])
    try:
        yield
    finally:
        run(["umount", "-l", folder])


def switch(folder: Path, mode: str) -> None:
    run(["mount", "-o", f"remount,bind,{mode}", folder])


def test_a_read_only_folder_is_read_and_comes_back(own: Mounted) -> None:
    own.start()
    put(own.drive / "outside", "x")
    (own.drive / "folder").mkdir()
    for name in "fghi":
        put(own.drive / "folder" / name, name * 1000)
    own.stop()
    with bound(own.store / "folder"):
        switch(own.store / "folder", "ro")
        own.start()
        folder = own.drive / "folder"
        assert listed(CHANGES, folder).split() == ["EROFS"]
        assert get(folder / "f") == "f" * 1000
        assert run(["cat", folder / "g"]).startswith("\ufffdGrantFS")
        assert "Read-only file system" in run(["cp", "/etc/hostname", folder / "new"], check=False)
        put(own.drive / "outside", "still written")
        with open(folder / "g", "rb"):  # open in the store for reading only, and so it stays until somebody writes
            switch(own.store / "folder", "rw")
            put(folder / "g", "written again")
            assert get(folder / "g") == "written again"
            listed("import os, sys; os.truncate(sys.argv[1], 7)", folder / "g")
        assert get(folder / "g") == "written"
        assert listed(CHANGES, folder).split() == ["done"]
        taken_back = {record.detail for record in own.records("failed")}
        assert taken_back == {f"{act}: Read-only file system" for act in ("create", "rename", "delete", "write")}
        own.stop()
        assert own.log() == ""


def closes(drive: Mounted, path: str) -> list[str]:
    """What the records of its closes say, beside the writer that made it."""
    return [record.detail for record in drive.records("close") if record.file and record.file.path == path][1:]


def test_a_disk_that_turns_read_only_loses_nothing_that_was_synced(own: Mounted) -> None:
    """As ext4 does it after an error; only a check of the disk ends that."""
    with small_disk(own.directory, 64, "store") as disk:
        device = run(["findmnt", "-no", "SOURCE", disk]).strip()
        fails = Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error")
        run(["mount", "-o", "remount,errors=remount-ro", disk])
        own.start()
        for name in (*"fghi", "held"):
            put(own.drive / name, name * 1000)
        holder = Holder(own.drive / "held")
        assert holder.writes("synced") == "done done done"
        replacer = subprocess.Popen(
            ["sh", "-c", 'exec 3>"$1" && echo half >&3 && echo begun && read line', "sh", own.drive / "h"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert replacer.stdout is not None
        assert replacer.stdout.readline() == "begun\n"
        run(["sync", "-f", disk])
        fails.write_text("1")
        replacer.communicate("end\n", timeout=SECONDS)
        wait_until(lambda: closes(own, "/h"))
        assert holder.writes("not kept") == "done EROFS done"
        assert holder.closes() == "EROFS"
        assert listed(CHANGES, own.drive).split() == ["EROFS"]
        assert get(own.drive / "g") == "g" * 1000
        for path in ("/held", "/h"):
            assert closes(own, path)[-1] == "what was written last is not in the store: Read-only file system"
        own.stop()
        run(["umount", disk])
        run(["e2fsck", "-fy", own.directory / "store.image"], check=False)
        run(["mount", "-o", "loop", own.directory / "store.image", disk])
        own.start()
        assert get(own.drive / "held") == "synced" + ("held" * 1000)[6:]
        assert get(own.drive / "h") == "h" * 1000
        assert listed(CHANGES, own.drive).split() == ["done"]
        own.stop()
        assert own.log() == ""


# ---- a disk with errors --------------------------------------------------------------------------------------------

FIBMAP, LOOP_SET_STATUS64, LOOP_GET_STATUS64 = 1, 0x4C04, 0x4C05
BLOCK = 1024


def first_block(path: Path) -> int:
    """Where on its disk the file's content begins."""
    with open(path, "rb") as file:
        (block,) = struct.unpack("i", fcntl.ioctl(file, FIBMAP, struct.pack("i", 0)))
        assert os.fstatvfs(file.fileno()).f_bsize == BLOCK
    return int(block)


@contextmanager
def cut(device: str, size: int) -> Iterator[None]:
    """The disk ends after `size` bytes: what lies behind is an I/O error, until it is whole again."""
    with open(device, "rb") as loop:
        whole = fcntl.ioctl(loop, LOOP_GET_STATUS64, bytes(232))
        fcntl.ioctl(loop, LOOP_SET_STATUS64, whole[:32] + struct.pack("Q", size) + whole[40:])
        try:
            yield
        finally:
            fcntl.ioctl(loop, LOOP_SET_STATUS64, whole)


def test_errors_of_the_disk_reach_programs_and_the_log_and_nothing_else(own: Mounted) -> None:
    with small_disk(own.directory, 32, "store") as disk:
        device = run(["findmnt", "-no", "SOURCE", disk]).strip()
        own.start()
        (own.drive / "checked").mkdir()
        for name in ("checked/near", "near", "checked/f", "checked/held"):
            put(own.drive / name, name * 8_000)
        run(["sync", "-f", disk])
        holder = Holder(own.drive / "checked/held")
        files = [own.store / "checked" / name for name in ("f", "held")]
        with cut(device, min(map(first_block, files)) * BLOCK):
            for file in files:  # not before the cut: the process that reads ahead would have time to bring them back
                with open(file, "rb") as forgotten:
                    os.posix_fadvise(forgotten.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with pytest.raises(AssertionError, match="Input/output error"):
                get(own.drive / "checked/f")
            assert "Input/output error" in run(["cat", own.drive / "checked/f"], check=False)
            assert holder.writes("not yet") == "EIO done EIO"
            assert get(own.drive / "near") == "near" * 8_000
        assert get(own.drive / "checked/f") == "checked/f" * 8_000
        assert holder.writes("written") == "done done done"
        assert holder.closes() == "done"
        assert get(own.drive / "checked/held") == "written" + ("checked/held" * 8_000)[7:]
        damaged = own.records("damaged")
        assert {record.file.path for record in damaged if record.file} == {"/checked/f", "/checked/held"}
        assert {record.detail for record in damaged} == {f"OSError: [Errno {errno.EIO}] Input/output error"}
        own.stop()
