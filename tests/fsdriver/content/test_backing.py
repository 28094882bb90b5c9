"""What a filesystem without the system call gets in its place."""

import ctypes
import errno
import os

import pytest

from fsdriver.content import backing
from fsdriver.content.backing import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2, reserve


@pytest.fixture
def top(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


class Refusing:
    """As NFS: no flag of renameat2(2) is known."""

    def renameat2(self, *arguments: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_rename_that_must_replace_nothing_does_not(top, tmp_path, monkeypatch, by_hand):
    if by_hand:
        monkeypatch.setattr(backing, "_libc", Refusing())
    for name in ("file", "other"):
        (tmp_path / name).write_text(name)
    for name in ("folder", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("file")
    for old in (b"file", b"folder", b"link"):
        for taken in (b"other", b"empty"):
            with pytest.raises(FileExistsError):
                renameat2(top, old, top, taken, RENAME_NOREPLACE)
        renameat2(top, old, top, b"new " + old, RENAME_NOREPLACE)
        assert not os.path.lexists(tmp_path / os.fsdecode(old))
    assert (tmp_path / "new file").read_text() == "file"
    assert (tmp_path / "new file").stat().st_nlink == 1
    assert (tmp_path / "new link").is_symlink()
    assert (tmp_path / "new folder").is_dir()
    assert (tmp_path / "other").read_text() == "other"


def test_where_two_names_cannot_be_exchanged_that_is_said(top, tmp_path, monkeypatch):
    monkeypatch.setattr(backing, "_libc", Refusing())
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    with pytest.raises(OSError, match="Invalid argument"):
        renameat2(top, b"a", top, b"b", RENAME_EXCHANGE)


def without_keep_size(fd: int, mode: int, offset: int, length: int) -> None:
    if mode:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    os.posix_fallocate(fd, offset, length)


@pytest.mark.parametrize(("may_grow", "size"), [(False, 0), (True, 5000)])
def test_space_is_reserved_by_making_a_file_longer_where_that_is_allowed(tmp_path, monkeypatch, may_grow, size):
    monkeypatch.setattr(backing, "_allocate", without_keep_size)
    with open(tmp_path / "file", "wb") as file:
        reserve(file.fileno(), 0, 5000, may_grow=may_grow)
    assert (tmp_path / "file").stat().st_size == size
