"""What set-user-id, groups and owners mean where somebody else acts."""

import errno
import functools
import mmap
import os
import stat
from collections.abc import Callable
from pathlib import Path

from tests.mounted.posix.support import (
    DANA,
    GROUP,
    KEEP_SIZE,
    PUNCH_HOLE,
    as_uid,
    fallocate,
    make,
    opened,
    refused,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def check_whatever_changes_content_takes_set_user_id_away(top: Path) -> None:
    source = make(top / "source", b"from")

    def copies(path: Path) -> None:
        with opened(source) as one, opened(path, os.O_WRONLY) as two:
            assert os.copy_file_range(one, two, 4) == 4

    def fallocates(how: int, path: Path) -> None:
        with opened(path, os.O_RDWR) as fd:
            fallocate(fd, how, 0, 10)

    def writes_directly(path: Path) -> None:
        with opened(path, os.O_RDWR | os.O_DIRECT) as fd, mmap.mmap(-1, 4096) as page:
            assert os.pwrite(fd, page, 0) == 4096

    changes: dict[str, Callable[[Path], object]] = {
        "copy_file_range": copies,
        "fallocate": functools.partial(fallocates, 0),
        "punch": functools.partial(fallocates, PUNCH_HOLE | KEEP_SIZE),
        "O_DIRECT": writes_directly,
    }
    for name, change in changes.items():
        path = make(top / name, b"program")
        os.chmod(path, 0o6777)
        as_uid(DANA, functools.partial(change, path))
        assert mode(path) == 0o777, (name, oct(mode(path)))
        os.chmod(path, 0o6777)
        change(path)  # root may keep them
        assert mode(path) == 0o6777, (name, oct(mode(path)))


def check_set_group_id_without_group_execution_stays(top: Path) -> None:
    path = make(top / "f", b"x")
    os.chown(path, DANA, DANA)
    os.chmod(path, 0o2666)
    as_uid(DANA, functools.partial(make, path, b"y"))
    assert mode(path) == 0o2666


def check_chown_takes_set_user_id_away_and_spares_directories(top: Path) -> None:
    path = make(top / "f", b"x")
    os.mkdir(top / "d")
    for target in (path, top / "d"):
        os.chmod(target, 0o6755)
        os.chown(target, DANA, GROUP)
    assert (mode(path), mode(top / "d")) == (0o755, 0o6755)
    os.chmod(path, 0o2644)
    os.chown(path, 0, 0)
    assert mode(path) == 0o2644


def check_an_owner_gives_a_file_to_groups_of_its_own_only(top: Path) -> None:
    path = make(top / "f", b"x")
    os.chown(path, DANA, DANA)

    def dana() -> None:
        os.chown(path, -1, GROUP)
        with refused(errno.EPERM):
            os.chown(path, -1, GROUP + 1)
        with refused(errno.EPERM):
            os.chown(path, 0, -1)
        os.chmod(path, 0o2755)

    os.chmod(top, 0o755)
    as_uid(DANA, dana, groups=(GROUP,))
    assert (path.stat().st_gid, mode(path)) == (GROUP, 0o2755)
    os.chown(path, DANA, GROUP + 1)
    as_uid(DANA, lambda: os.chmod(path, 0o2755), groups=(GROUP,))
    assert mode(path) == 0o755  # of a group that is not its owner's


def check_a_group_that_is_only_supplementary_gives_access(top: Path) -> None:
    folder = top / "folder"
    os.mkdir(folder)
    os.chown(folder, 0, GROUP)
    os.chmod(folder, 0o2770)
    make(folder / "f", b"group's", 0o660)
    os.chmod(folder / "f", 0o660)

    def member() -> None:
        assert (folder / "f").read_bytes() == b"group's"
        make(folder / "f", b"written")
        made = make(folder / "new", b"x", 0o2775)
        os.mkdir(folder / "d", 0o770)
        os.mknod(folder / "node", stat.S_IFREG | 0o660)
        for path in (made, folder / "d", folder / "node"):
            assert (path.stat().st_uid, path.stat().st_gid) == (DANA, GROUP), path
        assert mode(folder / "d") & stat.S_ISGID
        make(folder / "d" / "inner", b"x")
        assert (folder / "d" / "inner").stat().st_gid == GROUP
        os.rename(folder / "new", folder / "d" / "moved")
        os.unlink(folder / "f")

    def stranger() -> None:
        with refused(errno.EACCES):
            os.listdir(folder)

    os.chmod(top, 0o755)
    as_uid(DANA, member, groups=(GROUP,))
    as_uid(DANA, stranger)


def check_a_stranger_to_the_group_makes_no_set_group_id_programs(top: Path) -> None:
    folder = top / "folder"
    os.mkdir(folder)
    os.chown(folder, 0, GROUP)
    os.chmod(folder, 0o2777)

    def dana() -> None:
        os.umask(0)
        fd = os.open(folder / "f", os.O_WRONLY | os.O_CREAT, 0o2775)
        os.close(fd)
        os.mknod(folder / "n", stat.S_IFREG | 0o2775)

    as_uid(DANA, dana)
    for name in ("f", "n"):
        assert ((folder / name).stat().st_gid, mode(folder / name)) == (GROUP, 0o775), name


def check_sticky_directories_protect_from_rename_too(top: Path) -> None:
    folder = top / "folder"
    os.mkdir(folder)
    os.chmod(folder, 0o1777)
    make(folder / "root's", b"x", 0o666)
    os.mkdir(folder / "root's folder")

    def dana() -> None:
        make(folder / "mine", b"x")
        for name in ("root's", "root's folder"):
            with refused(errno.EPERM):
                os.rename(folder / name, folder / "taken")
        with refused(errno.EPERM):
            os.rename(folder / "mine", folder / "root's")
        with refused(errno.EPERM):
            os.rmdir(folder / "root's folder")
        os.rename(folder / "mine", folder / "still mine")

    as_uid(DANA, dana)
    os.chown(folder, DANA, -1)  # who owns the directory may
    as_uid(DANA, lambda: os.unlink(folder / "root's"))
