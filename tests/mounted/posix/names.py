"""Names, directories and links."""

import errno
import os
import socket
import stat
import threading
from pathlib import Path

from tests.mounted.posix.support import (
    DANA,
    EXCHANGE,
    GROUP,
    NOREPLACE,
    child,
    ended,
    make,
    opened,
    pattern,
    refused,
    renameat2,
)


def check_mkdir_rmdir_unlink(top: Path) -> None:
    os.mkdir(top / "d", 0o750)
    assert stat.S_IMODE((top / "d").stat().st_mode) == 0o750
    with refused(errno.EEXIST):
        os.mkdir(top / "d")
    make(top / "d" / "f")
    with refused(errno.ENOTEMPTY):
        os.rmdir(top / "d")
    with refused(errno.EISDIR, errno.EPERM):
        os.unlink(top / "d")
    with refused(errno.ENOTDIR):
        os.rmdir(top / "d" / "f")
    with refused(errno.ENOTDIR):
        os.stat(top / "d" / "f" / "x")
    os.unlink(top / "d" / "f")
    with refused(errno.ENOENT):
        os.unlink(top / "d" / "f")
    os.rmdir(top / "d")
    with refused(errno.ENOENT):
        os.stat(top / "d")
    make(top / "d", b"a file where a directory was")
    assert (top / "d").is_file()
    assert os.listdir(top) == ["d"]


def check_a_removed_directory_stays_usable_to_who_is_in_it(top: Path) -> None:
    os.mkdir(top / "d")
    with opened(top / "d", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir(top / "d")
        assert os.listdir(fd) == []
        with refused(errno.ENOENT):
            os.open("new", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
        with refused(errno.ENOENT):
            os.mkdir("new", dir_fd=fd)
        assert stat.S_ISDIR(os.fstat(fd).st_mode)
    os.mkdir(top / "d")
    make(top / "d" / "f")


def check_directory_link_counts(top: Path) -> None:
    before = top.stat().st_nlink
    os.mkdir(top / "a")
    os.mkdir(top / "b")
    assert top.stat().st_nlink == before + 2
    os.rename(top / "a", top / "b" / "a")
    assert top.stat().st_nlink == before + 1
    assert (top / "b").stat().st_nlink == 3
    os.rmdir(top / "b" / "a")
    assert (top / "b").stat().st_nlink == 2


def check_rename_files(top: Path) -> None:
    make(top / "a", b"A")
    make(top / "b", b"B")
    inode = (top / "a").stat().st_ino
    os.rename(top / "a", top / "c")
    assert (top / "c").stat().st_ino == inode
    with refused(errno.ENOENT):
        os.stat(top / "a")
    with opened(top / "b") as victim, opened(top / "c", os.O_RDWR) as mover:
        os.pwrite(mover, b"CC", 0)
        os.rename(top / "c", top / "b")
        assert os.pread(victim, 10, 0) == b"B"
        assert os.fstat(victim).st_nlink == 0
        os.pwrite(mover, b"!", 2)
        assert os.fstat(mover).st_nlink == 1
        assert (top / "b").read_bytes() == b"CC!"
    assert (top / "b").read_bytes() == b"CC!"
    assert os.listdir(top) == ["b"]
    os.mkdir(top / "d")
    with refused(errno.EISDIR):
        os.rename(top / "b", top / "d")
    with refused(errno.ENOTDIR):
        os.rename(top / "d", top / "b")
    os.rename(top / "b", top / "b")
    with refused(errno.ENOENT):
        os.rename(top / "nothing", top / "x")


def check_rename_noreplace_and_exchange(top: Path) -> None:
    make(top / "a", b"A")
    make(top / "b", b"B" * 50_000)
    with refused(errno.EEXIST):
        renameat2(top / "a", top / "b", NOREPLACE)
    renameat2(top / "a", top / "c", NOREPLACE)
    with opened(top / "b") as fd:
        renameat2(top / "b", top / "c", EXCHANGE)
        assert os.pread(fd, 1, 0) == b"B"
    assert (top / "b").read_bytes() == b"A"
    assert (top / "c").read_bytes() == b"B" * 50_000
    os.mkdir(top / "d")
    make(top / "d" / "x", b"X")
    renameat2(top / "d", top / "b", EXCHANGE)
    assert (top / "b" / "x").read_bytes() == b"X"
    assert (top / "d").read_bytes() == b"A"
    renameat2(top / "b" / "x", top / "d", EXCHANGE)
    assert (top / "b" / "x").read_bytes() == b"A"
    assert (top / "d").read_bytes() == b"X"
    with refused(errno.ENOENT):
        renameat2(top / "b", top / "nothing", EXCHANGE)
    with refused(errno.EINVAL):
        renameat2(top / "b", top / "d", EXCHANGE | NOREPLACE)


def check_rename_directories(top: Path) -> None:
    for name in ("a", "a/in", "b", "empty", "full"):
        os.mkdir(top / name)
    make(top / "a" / "in" / "f", b"deep")
    make(top / "full" / "f")
    with refused(errno.EINVAL):
        os.rename(top / "a", top / "a" / "in" / "a")
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        os.rename(top / "b", top / "full")
    with refused(errno.ENOTEMPTY):
        os.rename(top / "a" / "in", top / "a")
    os.rename(top / "b", top / "empty")
    assert sorted(os.listdir(top)) == ["a", "empty", "full"]
    with opened(top / "a" / "in" / "f", os.O_RDWR) as fd:
        os.rename(top / "a", top / "empty" / "moved")
        os.pwrite(fd, b"DEEP", 0)
        os.fsync(fd)
        assert (top / "empty" / "moved" / "in" / "f").read_bytes() == b"DEEP"
    os.rename(top / "empty" / "moved" / "in", top / "in")
    assert (top / "in" / "f").read_bytes() == b"DEEP"
    assert os.listdir(top / "empty" / "moved") == []
    assert (top / "in" / "..").stat().st_ino == top.stat().st_ino


def check_hard_links(top: Path) -> None:
    path = make(top / "a", b"one")
    os.mkdir(top / "d")
    os.link(path, top / "d" / "b")
    assert path.stat().st_nlink == 2
    assert path.stat().st_ino == (top / "d" / "b").stat().st_ino
    with opened(top / "d" / "b", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b" two")
        assert path.read_bytes() == b"one two"
        assert path.stat().st_size == 7
    os.link(top / "d" / "b", top / "c")
    os.rename(top / "a", top / "c")  # two names of one file: nothing happens
    assert path.stat().st_nlink == 3
    with refused(errno.EEXIST):
        os.link(path, top / "c")
    with refused(errno.EPERM):
        os.link(top / "d", top / "e")
    os.unlink(path)
    assert (top / "c").stat().st_nlink == 2
    assert (top / "c").read_bytes() == b"one two"
    make(path, b"another")
    os.rename(path, top / "c")
    assert (top / "d" / "b").stat().st_nlink == 1
    assert (top / "d" / "b").read_bytes() == b"one two"
    os.chmod(top / "d" / "b", 0o600)
    os.rename(top / "d", top / "e")
    assert stat.S_IMODE((top / "e" / "b").stat().st_mode) == 0o600
    assert (top / "e" / "b").read_bytes() == b"one two"


def check_symlinks(top: Path) -> None:
    make(top / "f", b"target")
    os.symlink("f", top / "s")
    assert os.readlink(top / "s") == "f"
    assert (top / "s").read_bytes() == b"target"
    assert (top / "s").lstat().st_size == 1
    os.symlink("x" * 4095, top / "long")
    assert os.readlink(top / "long") == "x" * 4095
    os.symlink("nowhere", top / "dangling")
    with refused(errno.ENOENT):
        os.stat(top / "dangling")
    with refused(errno.EEXIST):
        os.symlink("f", top / "s")
    with refused(errno.EINVAL):
        os.readlink(top / "f")
    with refused(errno.ELOOP):
        os.open(top / "s", os.O_RDONLY | os.O_NOFOLLOW)
    os.link(top / "s", top / "hard", follow_symlinks=False)
    assert os.readlink(top / "hard") == "f"
    os.chown(top / "s", DANA, GROUP, follow_symlinks=False)
    assert ((top / "s").lstat().st_uid, (top / "f").stat().st_uid) == (DANA, 0)
    os.utime(top / "s", ns=(5, 6), follow_symlinks=False)
    assert (top / "s").lstat().st_mtime_ns == 6
    os.symlink("loop", top / "loop")
    with refused(errno.ELOOP):
        os.stat(top / "loop")
    os.rename(top / "s", top / "t")
    assert (top / "t").read_bytes() == b"target"
    with opened(top / "dangling", os.O_WRONLY | os.O_CREAT) as fd:
        os.write(fd, b"made")
    assert (top / "nowhere").read_bytes() == b"made"


def check_fifos_sockets_and_mknod(top: Path) -> None:
    os.mkfifo(top / "fifo", 0o600)
    assert stat.S_ISFIFO((top / "fifo").stat().st_mode)

    def writes() -> None:
        with opened(top / "fifo", os.O_WRONLY) as fd:
            os.write(fd, b"through")

    pid = child(writes)
    with opened(top / "fifo") as fd:
        assert os.read(fd, 100) == b"through"
    assert ended(pid) == 0
    os.chdir(top)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("sock")
        server.listen()
        client.connect("sock")
    assert stat.S_ISSOCK((top / "sock").stat().st_mode)
    os.mknod(top / "regular", stat.S_IFREG | 0o640)
    assert stat.S_IMODE((top / "regular").stat().st_mode) == 0o640
    assert make(top / "regular", b"x").read_bytes() == b"x"
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert (top / "null").stat().st_rdev == os.makedev(1, 3)
    for name in ("fifo", "sock", "regular", "null"):
        os.unlink(top / name)


def check_unlinked_but_open(top: Path) -> None:
    path = make(top / "f", b"content" * 10_000)
    with opened(path, os.O_RDWR) as fd, opened(path) as second:
        os.unlink(path)
        make(path, b"another file")
        assert os.fstat(fd).st_nlink == 0
        assert os.pread(second, 7, 7) == b"content"
        os.pwrite(fd, b"CHANGED", 0)
        assert os.pread(second, 7, 0) == b"CHANGED"
        os.ftruncate(fd, 3)
        os.fchmod(fd, 0o600)
        os.utime(fd, ns=(1, 2))
        os.fsync(fd)
        found = os.fstat(second)
        assert (found.st_size, stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (3, 0o600, 2)
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        assert os.read(again, 100) == b"CHA"
        os.close(again)
    assert path.read_bytes() == b"another file"


def check_created_and_unlinked_at_once(top: Path) -> None:
    for _ in range(20):
        with opened(top / "tmp", os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
            os.unlink(top / "tmp")
            os.write(fd, pattern(70_000))
            assert os.pread(fd, 80_000, 0) == pattern(70_000)
    assert os.listdir(top) == []


def check_long_and_odd_names(top: Path) -> None:
    names = [
        b"n" * 255,
        "名".encode() * 85,
        b"\xff\xfe invalid \x80",
        b"new\nline",
        b" ",
        b"-rf",
        b"tab\t\\\"'",
        b"a" * 254,
    ]
    for name in names:
        path = Path(os.fsdecode(os.fsencode(top) + b"/" + name))
        make(path, name)
        assert path.read_bytes() == name
        assert path.stat().st_size == len(name)
    assert sorted(os.listdir(os.fsencode(top))) == sorted(names)
    for name in names:
        path = Path(os.fsdecode(os.fsencode(top) + b"/" + name))
        os.link(path, top / "link")
        os.rename(top / "link", top / "moved")
        os.unlink(path)
        os.rename(top / "moved", path)
        assert path.read_bytes() == name
    with refused(errno.ENAMETOOLONG):
        os.stat(top / ("n" * 256))
    with refused(errno.ENAMETOOLONG):
        os.open(top / ("n" * 256), os.O_WRONLY | os.O_CREAT)
    with refused(errno.ENAMETOOLONG):
        os.mkdir(top / ("n" * 256))
    folder = Path(os.fsdecode(os.fsencode(top) + b"/\xff folder"))
    os.mkdir(folder)
    make(folder / "f", b"in")
    os.rename(folder, top / "folder")
    assert (top / "folder" / "f").read_bytes() == b"in"


def check_listing_of_five_thousand_names_that_change_meanwhile(top: Path) -> None:
    stays = {f"stays-{number}" for number in range(4000)}
    goes = {f"goes-{number}" for number in range(1000)}
    for name in stays | goes:
        os.mknod(top / name, stat.S_IFREG | 0o644)
    with os.scandir(top) as listing:
        seen = [next(listing).name for _ in range(100)]
        for name in goes:
            os.unlink(top / name)
        for number in range(200):
            make(top / f"comes-{number}")
        seen += [entry.name for entry in listing]
    assert len(seen) == len(set(seen))
    assert stays <= set(seen)
    assert set(os.listdir(top)) == stays | {f"comes-{number}" for number in range(200)}
    with opened(top, os.O_RDONLY | os.O_DIRECTORY) as fd:
        before = len(os.listdir(fd))
        make(top / "late")
        os.lseek(fd, 0, os.SEEK_SET)
        assert len(os.listdir(fd)) == before + 1
    for name in os.listdir(top):
        os.unlink(top / name)
    assert os.listdir(top) == []


def check_listings_at_once_are_each_complete(top: Path) -> None:
    for number in range(400):
        os.mkdir(top / f"d{number}") if number % 2 else make(top / f"f{number}")
    short: list[int] = []

    def lists() -> None:
        for _ in range(60):
            os.utime(top)  # what the kernel has kept of an earlier listing is void
            with opened(top, os.O_RDONLY | os.O_DIRECTORY) as fd:
                found = len(os.listdir(fd))
            if found != 400:
                short.append(found)

    threads = [threading.Thread(target=lists) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert short == []


def check_listing_tells_types_and_inodes(top: Path) -> None:
    make(top / "f")
    os.mkdir(top / "d")
    os.symlink("f", top / "s")
    os.mkfifo(top / "p")
    kinds = {
        entry.name: (entry.is_file(follow_symlinks=False), entry.is_dir(follow_symlinks=False), entry.is_symlink())
        for entry in os.scandir(top)
    }
    assert kinds == {
        "f": (True, False, False),
        "d": (False, True, False),
        "s": (False, False, True),
        "p": (False, False, False),
    }
    for entry in os.scandir(top):
        assert entry.inode() == os.lstat(entry.path).st_ino


def check_a_removed_directory_has_no_parent_to_make_things_in(top: Path) -> None:
    os.makedirs(top / "a" / "b")
    os.chdir(top / "a" / "b")
    os.rename(top / "a" / "b", top / "b")
    assert Path.cwd() == top / "b"
    assert Path("..").stat().st_ino == top.stat().st_ino
    make(Path("here"), b"x")
    os.unlink(top / "b" / "here")
    os.rmdir(top / "b")
    with refused(errno.ENOENT):
        os.open("new", os.O_WRONLY | os.O_CREAT)
    with refused(errno.ENOENT):
        os.link(make(top / "f"), "g")
    with refused(errno.ENOENT):
        os.rename(top / "f", "g")
    with refused(errno.ENOENT):
        os.symlink("x", "s")


def check_rename_with_flags_and_odd_targets(top: Path) -> None:
    os.makedirs(top / "a" / "b" / "c")
    make(top / "f", b"x")
    with refused(errno.EINVAL):
        renameat2(top / "f", top / "g", 1 << 10)
    with refused(errno.EINVAL):
        renameat2(top / "a", top / "a" / "b" / "c", EXCHANGE)
    with refused(errno.EINVAL):
        renameat2(top / "a" / "b", top / "a", EXCHANGE)
    with refused(errno.EEXIST):
        renameat2(top / "f", top / "f", NOREPLACE)
    renameat2(top / "f", top / "f", EXCHANGE)
    with refused(errno.ENOTDIR):
        os.rename(top / "f", os.fspath(top / "new") + "/")
    for dots in (".", ".."):
        with refused(errno.EBUSY, errno.EINVAL, errno.ENOTEMPTY, errno.EEXIST):
            os.rename(top / "a", top / "a" / "b" / dots)
    os.mkdir(os.fspath(top / "slash") + "/")
    assert (top / "f").read_bytes() == b"x"
