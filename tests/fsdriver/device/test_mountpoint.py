import errno
import os
import stat
import subprocess

import pytest

from fsdriver.device.mountpoint import MountPoint


@pytest.fixture
def directory(tmp_path):
    directory = tmp_path / "d"
    directory.mkdir(mode=0o750)
    yield directory
    point = MountPoint(directory)
    point.release()
    point.close()


@pytest.mark.root
def test_a_guarded_directory_refuses_even_root(directory):
    point = MountPoint(directory)
    point.guard()
    with pytest.raises(PermissionError):
        (directory / "f").touch()
    point.release()
    point.close()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o750
    (directory / "f").touch()
    (directory / "f").unlink()


def test_a_directory_found_guarded_becomes_an_ordinary_one(directory):
    for release in (False, True):
        point = MountPoint(directory)
        point.guard()
        if release:
            point.release()
        point.close()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (lambda path: path.mkdir() or (path / "f").touch(), errno.ENOTEMPTY),
        (lambda path: path.touch(), errno.ENOTDIR),
        (lambda path: path.symlink_to("/tmp"), errno.ENOTDIR),
        (lambda path: None, errno.ENOENT),
    ],
)
def test_what_is_not_an_empty_directory_is_refused(tmp_path, make, number):
    make(tmp_path / "x")
    with pytest.raises(OSError, match=os.strerror(number)[1:]) as refused:
        MountPoint(tmp_path / "x")
    assert refused.value.errno == number


@pytest.mark.root
def test_a_filesystem_without_the_immutable_flag_has_mode_zero(tmp_path):
    (tmp_path / "t").mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", str(tmp_path / "t")], check=True)
    try:
        (tmp_path / "t/d").mkdir()
        point = MountPoint(tmp_path / "t/d")
        point.guard()
        assert stat.S_IMODE((tmp_path / "t/d").stat().st_mode) == 0
        point.close()
    finally:
        subprocess.run(["umount", str(tmp_path / "t")], check=True)
