"""Long paths, and trees deeper than any path can say."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.mounted.posix.support import make, pattern, refused

PATH_MAX = 4096
FOLDER = os.O_RDONLY | os.O_DIRECTORY


@contextmanager
def descended(top: Path, names: list[str]) -> Iterator[int]:
    """A chain of folders, made one inside the other; a descriptor of the last. They are removed afterwards."""
    at = os.open(top, FOLDER)
    try:
        for name in names:
            os.mkdir(name, dir_fd=at)
            at = below(at, name)
        yield at
        for name in reversed(names):
            at = below(at, "..")
            os.rmdir(name, dir_fd=at)
        assert os.path.samestat(os.fstat(at), top.stat())
    finally:
        os.close(at)


def below(at: int, name: str) -> int:
    try:
        return os.open(name, FOLDER, dir_fd=at)
    finally:
        os.close(at)


def check_paths_up_to_path_max(top: Path) -> None:
    name = "n" * 250
    room = PATH_MAX - 1 - len(os.fsencode(top)) - len("/f")
    names = [name] * (room // 251)
    with descended(top, names) as fd:
        path = top.joinpath(*names, "f" * (room - 251 * len(names) + 1))
        if len(path.name) > 255:
            path = path.with_name(path.name[:255])
        make(path, b"deep")
        assert path.read_bytes() == b"deep"
        assert os.listdir(fd) == [path.name]
        with refused(errno.ENAMETOOLONG):
            os.stat(path.with_name("f" * 255) / ("x" * 255))
        os.unlink(path)


def check_a_tree_deeper_than_path_max(top: Path) -> None:
    data = pattern(100_000)
    with descended(top, [f"{number:03}" + "n" * 200 for number in range(60)]) as at:
        fd = os.open("f", os.O_RDWR | os.O_CREAT, 0o644, dir_fd=at)
        try:
            os.write(fd, data)
            os.fsync(fd)
            os.pwrite(fd, b"over what a commit covers", 40_000)
            os.fsync(fd)
            os.setxattr(fd, "user.a", b"value")
        finally:
            os.close(fd)
        os.link("f", "g", src_dir_fd=at, dst_dir_fd=at)
        os.rename("f", "h", src_dir_fd=at, dst_dir_fd=at)
        os.chmod("h", 0o600, dir_fd=at)
        os.utime("h", ns=(1, 2), dir_fd=at)
        assert sorted(os.listdir(at)) == ["g", "h"]
        fd = os.open("g", os.O_RDONLY, dir_fd=at)
        try:
            expected = bytearray(data)
            expected[40_000:40_025] = b"over what a commit covers"
            assert os.pread(fd, 200_000, 0) == expected
            assert os.fstat(fd).st_mtime_ns == 2
            assert os.getxattr(fd, "user.a") == b"value"
        finally:
            os.close(fd)
        os.rename("g", top / "g", src_dir_fd=at)
        assert len((top / "g").read_bytes()) == 100_000
        os.unlink("h", dir_fd=at)


def check_a_tree_of_seven_hundred_levels(top: Path) -> None:
    with descended(top, ["a level of a hundred bytes".ljust(100, ".")] * 700) as at:
        fd = os.open("f", os.O_RDWR | os.O_CREAT, 0o644, dir_fd=at)
        try:
            os.write(fd, b"deep")
            assert os.pread(fd, 10, 0) == b"deep"
        finally:
            os.close(fd)
        os.rename("f", top / "f", src_dir_fd=at)
    assert (top / "f").read_bytes() == b"deep"
