"""Which operation moves whose times: of the file, and of the directories on both sides."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from tests.mounted.posix.support import DANA, EXCHANGE, append, make, opened, renameat2

TICK = 0.02
"""Seconds after which ext4's clock has moved on."""


def moved(act: Callable[[], object], *paths: Path) -> list[str]:
    """Which times `act` moves, for each path: "m", "c", "mc" or ""."""
    before = [path.lstat() for path in paths]
    time.sleep(TICK)
    act()
    after = [path.lstat() for path in paths]
    return [
        ("m" if old.st_mtime_ns < new.st_mtime_ns else "") + ("c" if old.st_ctime_ns < new.st_ctime_ns else "")
        for old, new in zip(before, after, strict=True)
    ]


def check_names_that_come_move_the_directorys_times(top: Path) -> None:
    target = make(top / "target", b"x")
    comes: dict[str, Callable[[Path], object]] = {
        "create": make,
        "mkdir": os.mkdir,
        "symlink": lambda path: os.symlink("x", path),
        "mknod": lambda path: os.mknod(path, stat.S_IFREG | 0o600),
        "mkfifo": os.mkfifo,
        "link": lambda path: os.link(target, path),
    }
    for name, act in comes.items():
        assert moved(lambda act=act, name=name: act(top / name), top) == ["mc"], name  # type: ignore[misc]
    assert moved(lambda: os.link(target, top / "another"), target) == ["c"]
    assert moved(lambda: make(target, b"y"), top) == [""]


def check_names_that_go_move_the_directorys_times(top: Path) -> None:
    stays = make(top / "stays", b"x")
    os.link(stays, top / "name")
    os.mkdir(top / "d")
    assert moved(lambda: os.unlink(top / "name"), top, stays) == ["mc", "c"]
    assert moved(lambda: os.rmdir(top / "d"), top, stays) == ["mc", ""]


def check_a_rename_moves_the_times_of_both_directories_and_ctime_of_what_moves(top: Path) -> None:
    one, two = top / "one", top / "two"
    os.mkdir(one)
    os.mkdir(two)
    f, g = make(one / "f", b"f"), two / "g"
    with opened(f) as fd:
        before = os.fstat(fd)
        assert moved(lambda: os.rename(f, g), one, two, top) == ["mc", "mc", ""]
        after = os.fstat(fd)
    assert after.st_ctime_ns > before.st_ctime_ns
    assert after.st_mtime_ns == before.st_mtime_ns
    make(one / "f", b"another")
    os.link(g, top / "hard")
    with opened(g) as victim:
        before = os.fstat(victim)
        assert moved(lambda: os.rename(one / "f", g), one, two, top / "hard") == ["mc", "mc", "c"]
        assert os.fstat(victim).st_ctime_ns > before.st_ctime_ns
    make(one / "f", b"third")
    assert moved(lambda: renameat2(one / "f", g, EXCHANGE), one, two) == ["mc", "mc"]
    os.mkdir(one / "d")
    assert moved(lambda: os.rename(one / "d", two / "d"), one, two) == ["mc", "mc"]
    make(one / "same", b"x")
    os.link(one / "same", two / "same")
    assert moved(lambda: os.rename(one / "same", two / "same"), one, two, one / "same") == ["", "", ""]


def check_attributes_move_ctime_alone(top: Path) -> None:
    path = make(top / "f", b"x")
    os.mkdir(top / "d")
    acts: dict[str, Callable[[Path], object]] = {
        "chmod": lambda path: os.chmod(path, 0o700),
        "chmod again": lambda path: os.chmod(path, 0o700),
        "chown": lambda path: os.chown(path, DANA, DANA),
    }
    for name, act in acts.items():
        for target in (path, top / "d"):
            assert moved(lambda act=act, target=target: act(target), target, top) == ["c", ""], name  # type: ignore[misc]
    assert moved(lambda: os.setxattr(path, "user.a", b"value"), path, top) == ["c", ""]
    assert moved(lambda: os.setxattr(path, "user.a", b"other"), path, top) == ["c", ""]
    assert moved(lambda: os.removexattr(path, "user.a"), path, top) == ["c", ""]
    with opened(path) as fd:
        assert moved(lambda: os.fchmod(fd, 0o600), path) == ["c"]
    os.symlink("f", top / "s")
    assert moved(lambda: os.chown(top / "s", DANA, DANA, follow_symlinks=False), top / "s", path) == ["c", ""]


def check_content_moves_both_and_reading_neither(top: Path) -> None:
    path = make(top / "f", b"x" * 100_000)
    with opened(path, os.O_RDWR) as fd:
        assert moved(lambda: os.pwrite(fd, b"y", 5), path) == ["mc"]
        assert moved(lambda: os.ftruncate(fd, 200_000), path) == ["mc"]
        assert moved(lambda: os.posix_fallocate(fd, 0, 300_000), path) == ["mc"]
        assert moved(lambda: os.pread(fd, 1000, 5), path) == [""]
        assert "m" not in moved(lambda: os.fsync(fd), path)[0]
        os.pwrite(fd, b"z", 5)
        found = os.fstat(fd)
        time.sleep(TICK)
    assert path.stat().st_mtime_ns == found.st_mtime_ns
    assert moved(lambda: append(path), path, top) == ["mc", ""]
    assert moved(lambda: os.truncate(path, 300_004), path) in (["mc"], [""])
    assert moved(path.read_bytes, path) == [""]
    assert moved(lambda: os.close(os.open(path, os.O_RDWR)), path) == [""]


def check_dates_before_1970_and_after_2038_keep_their_nanoseconds(top: Path) -> None:
    make(top / "f", b"x")
    os.mkdir(top / "d")
    os.symlink("f", top / "s")
    seconds = (-2_147_483_647, -1, 0, 2_147_483_647, 2_147_483_648, 4_294_967_296, 15_032_385_534)
    for name in ("f", "d", "s"):
        for second in seconds:
            ns = second * 1_000_000_000 + 123_456_789
            os.utime(top / name, ns=(ns, ns + 1), follow_symlinks=False)
            found = os.lstat(top / name)
            assert (found.st_atime_ns, found.st_mtime_ns) == (ns, ns + 1), (name, second)
    os.utime(top / "f", ns=(-5_000_000_001, -7_000_000_003))
    with opened(top / "f", os.O_RDWR) as fd:
        assert os.fstat(fd).st_mtime_ns == -7_000_000_003
        os.fsync(fd)
    assert (top / "f").stat().st_mtime_ns == -7_000_000_003


def check_dates_beyond_what_the_disk_keeps_become_its_first_and_last(top: Path) -> None:
    first, last = -(1 << 31), (1 << 34) - (1 << 31) - 1  # ext4 with inodes of 256 bytes
    path = make(top / "f", b"x")
    for asked, kept in ((first - 1, first), (-(1 << 40), first), (last + 1, last), (1 << 40, last)):
        os.utime(path, (asked, asked))
        assert (path.stat().st_mtime, path.stat().st_atime) == (kept, kept), asked
        with opened(path) as fd:
            assert os.fstat(fd).st_mtime == kept
