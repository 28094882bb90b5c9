"""Modes, owners, times, extended attributes, and who may."""

import errno
import functools
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from tests.mounted.posix.support import (
    DANA,
    GROUP,
    append,
    as_uid,
    make,
    opened,
    refused,
)


def check_chmod_chown_and_times(top: Path) -> None:
    path = make(top / "f", b"x")
    os.mkdir(top / "d")
    for target in (path, top / "d"):
        for mode in (0o777, 0o000, 0o4755 if target == path else 0o1777, 0o640):
            os.chmod(target, mode)
            assert stat.S_IMODE(target.stat().st_mode) == mode
        os.chown(target, DANA, GROUP)
        assert (target.stat().st_uid, target.stat().st_gid) == (DANA, GROUP)
        os.chown(target, -1, 0)
        assert (target.stat().st_uid, target.stat().st_gid) == (DANA, 0)
        for atime, mtime in ((1, 2), (1_700_000_000_123_456_789, 1_600_000_000_987_654_321), (-1, -1_000_000_001)):
            os.utime(target, ns=(atime, mtime))
            assert (target.stat().st_atime_ns, target.stat().st_mtime_ns) == (atime, mtime), (atime, mtime)
    before = time.time_ns()
    os.utime(path)
    assert before - 50_000_000 <= path.stat().st_mtime_ns <= time.time_ns() + 50_000_000


def check_times_move_when_content_does(top: Path) -> None:
    path = make(top / "f", b"x")
    for change in (
        lambda: make(path, b"y"),
        lambda: os.truncate(path, 100),
        lambda: os.truncate(path, 0),
        lambda: append(path),
    ):
        os.utime(path, ns=(1, 1))
        before = time.time_ns() - 20_000_000
        change()
        found = path.stat()
        assert before <= found.st_mtime_ns <= time.time_ns() + 20_000_000
        assert before <= found.st_ctime_ns
        assert found.st_atime_ns == 1
    os.utime(top, ns=(1, 1))
    make(top / "g")
    assert top.stat().st_mtime_ns > 1
    os.utime(top, ns=(1, 1))
    os.unlink(top / "g")
    assert top.stat().st_mtime_ns > 1


def check_times_set_while_open_for_writing_stay(top: Path) -> None:
    with opened(top / "f", os.O_RDWR | os.O_CREAT) as fd:
        os.write(fd, b"content")
        os.utime(fd, ns=(1_000, 2_000))
        assert os.fstat(fd).st_mtime_ns == 2_000
    assert (top / "f").stat().st_mtime_ns == 2_000
    with opened(top / "f", os.O_RDWR) as fd:
        os.read(fd, 1)
        os.fsync(fd)
    assert (top / "f").stat().st_mtime_ns == 2_000


def check_statfs(top: Path) -> None:
    make(top / "f")
    found = os.statvfs(top)
    assert found.f_blocks > found.f_bfree > 0
    assert found.f_namemax == 255
    with opened(top / "f") as fd:
        assert os.fstatvfs(fd).f_blocks == found.f_blocks


def check_user_xattrs(top: Path) -> None:
    path = make(top / "f", b"x")
    assert os.listxattr(path) == []
    os.setxattr(path, "user.a", b"value")
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "user.binary", bytes(range(256)))
    assert sorted(os.listxattr(path)) == ["user.a", "user.binary", "user.empty"]
    assert os.getxattr(path, "user.a") == b"value"
    assert os.getxattr(path, "user.empty") == b""
    assert os.getxattr(path, "user.binary") == bytes(range(256))
    with refused(errno.EEXIST):
        os.setxattr(path, "user.a", b"x", os.XATTR_CREATE)
    with refused(errno.ENODATA):
        os.setxattr(path, "user.none", b"x", os.XATTR_REPLACE)
    os.setxattr(path, "user.a", b"longer value", os.XATTR_REPLACE)
    with opened(path, os.O_RDWR) as fd:
        assert os.getxattr(fd, "user.a") == b"longer value"
        os.removexattr(fd, "user.a")
    with refused(errno.ENODATA):
        os.getxattr(path, "user.a")
    with refused(errno.ENODATA):
        os.removexattr(path, "user.a")
    os.rename(path, top / "g")
    os.link(top / "g", top / "h")
    assert os.getxattr(top / "h", "user.binary") == bytes(range(256))
    assert (top / "g").read_bytes() == b"x"


def check_permissions_hold_for_another_uid(top: Path) -> None:
    os.chmod(top, 0o755)
    make(top / "open", b"all may read", 0o644)
    make(top / "closed", b"secret", 0o600)
    make(top / "group", b"group", 0o640)
    os.chown(top / "group", 0, GROUP)
    os.mkdir(top / "shut", 0o700)
    os.mkdir(top / "shared", 0o1777)
    os.chmod(top / "shared", 0o1777)
    make(top / "shared" / "root's", b"")

    def dana() -> None:
        assert (top / "open").read_bytes() == b"all may read"
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            with refused(errno.EACCES):
                os.open(top / "open", flags)
        with refused(errno.EACCES):
            os.open(top / "closed", os.O_RDONLY)
        assert not os.access(top / "closed", os.R_OK)
        assert (top / "group").read_bytes() == b"group"
        with refused(errno.EACCES):
            os.listdir(top / "shut")
        with refused(errno.EACCES):
            os.stat(top / "shut" / "x")
        with refused(errno.EACCES):
            os.open(top / "new", os.O_WRONLY | os.O_CREAT)
        with refused(errno.EACCES):
            os.unlink(top / "open")
        with refused(errno.EACCES):
            os.rename(top / "open", top / "mine")
        with refused(errno.EPERM):
            os.chmod(top / "open", 0o777)
        with refused(errno.EPERM):
            os.utime(top / "open", ns=(1, 1))
        with refused(errno.EACCES):
            os.truncate(top / "open", 0)
        with refused(errno.EPERM):
            os.unlink(top / "shared" / "root's")
        mine = make(top / "shared" / "mine", b"my own")
        assert (mine.stat().st_uid, mine.stat().st_gid) == (DANA, DANA)
        os.mkdir(top / "shared" / "folder")
        os.symlink("x", top / "shared" / "link")
        os.mkfifo(top / "shared" / "fifo")
        for name in ("folder", "link", "fifo"):
            assert (top / "shared" / name).lstat().st_uid == DANA
        with refused(errno.EPERM):
            os.chown(mine, 0, 0)
        os.chmod(mine, 0o400)
        with refused(errno.EACCES):
            os.open(mine, os.O_RDWR)
        os.unlink(mine)

    as_uid(DANA, dana, groups=(GROUP,))
    assert (top / "open").read_bytes() == b"all may read"


def check_set_group_id_directories(top: Path) -> None:
    shared = top / "shared"
    os.mkdir(shared)
    os.chown(shared, 0, GROUP)
    os.chmod(shared, 0o2777)

    def dana() -> None:
        make(shared / "f", b"x")
        os.mkdir(shared / "d")
        os.symlink("x", shared / "s")
        for name in ("f", "d", "s"):
            found = (shared / name).lstat()
            assert (found.st_uid, found.st_gid) == (DANA, GROUP), name
        assert (shared / "d").stat().st_mode & stat.S_ISGID

    as_uid(DANA, dana)


def check_set_user_id_goes_when_another_writes(top: Path) -> None:
    changes: dict[str, Callable[[Path], object]] = {
        "write": append,
        "truncate": lambda path: os.truncate(path, 1),
        "O_TRUNC": lambda path: make(path, b"new"),
    }
    for name, change in changes.items():
        path = make(top / name, b"program")
        os.chown(path, 0, GROUP)
        os.chmod(path, 0o6777)
        assert stat.S_IMODE(path.stat().st_mode) == 0o6777
        as_uid(DANA, functools.partial(change, path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o777, (name, oct(path.stat().st_mode))
    path = make(top / "chown", b"program")
    os.chmod(path, 0o6755)
    os.chown(path, DANA, DANA)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def check_umask_applies(top: Path) -> None:
    before = os.umask(0o027)
    try:
        make(top / "f", mode=0o666)
        os.mkdir(top / "d", 0o777)
        os.mkfifo(top / "p", 0o666)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((top / name).stat().st_mode) for name in ("f", "d", "p")]
    assert modes == [0o640, 0o750, 0o640]


def check_o_tmpfile_works_or_is_not_supported(top: Path) -> None:
    try:
        fd = os.open(top, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as exc:
        assert exc.errno == errno.EOPNOTSUPP
        return
    os.close(fd)
    assert os.listdir(top) == []
