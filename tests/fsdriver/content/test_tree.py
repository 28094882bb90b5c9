import os
import socket

import pytest

from fsdriver.content.tree import walk


@pytest.fixture
def top(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def paths(top: int) -> list[str]:
    return sorted(found.path for found in walk(top, ".grantfs"))


def test_only_regular_files_are_found_and_no_link_is_followed(top, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    inside = tmp_path / "inside"
    (inside / "folder").mkdir(parents=True)
    (inside / "folder/file").touch()
    (inside / "link").symlink_to(tmp_path / "outside")
    (inside / "file link").symlink_to(tmp_path / "outside/secret")
    os.mkfifo(inside / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(inside / "socket"))
    fd = os.open(inside, os.O_RDONLY)
    assert paths(fd) == ["folder/file"]
    os.close(fd)


def test_the_corner_is_skipped_at_the_top_only(top, tmp_path):
    for path in (".grantfs", "folder/.grantfs"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "file").touch()
    assert paths(top) == ["folder/.grantfs/file"]


def test_a_file_is_opened_where_it_was_found_and_not_where_a_link_leads_now(top, tmp_path):
    (tmp_path / "file").touch()
    for found in walk(top, ".grantfs"):
        os.close(found.open())
        (tmp_path / "file").unlink()
        (tmp_path / "file").symlink_to("/etc/passwd")
        with pytest.raises(OSError, match="symbolic"):
            found.open()


def test_names_that_are_no_text_come_through(top, tmp_path):
    name = b"\xff\n\x1b[2J"
    os.close(os.open(os.fsencode(tmp_path) + b"/" + name, os.O_CREAT))
    (found,) = walk(top, ".grantfs")
    assert os.fsencode(found.path) == name


def test_what_is_too_deep_is_said_and_the_rest_is_walked(top, tmp_path):
    depth = 700
    at = os.dup(top)
    for _ in range(depth):
        os.mkdir("d", dir_fd=at)
        inside = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inside
    os.close(os.open("deep", os.O_CREAT, dir_fd=at))
    os.close(at)
    (tmp_path / "shallow").touch()
    before = set(os.listdir("/proc/self/fd"))
    found = {entry.path: entry.problem for entry in walk(top, ".grantfs")}
    assert found.pop("shallow") == ""
    ((path, problem),) = found.items()
    assert (path == "/".join(["d"] * depth) + "/deep" and problem == "") or "Too many open files" in problem
    assert set(os.listdir("/proc/self/fd")) == before


def test_folders_that_are_removed_meanwhile_are_no_problem(top, tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    files = walk(top, ".grantfs")
    first = next(files).path.split("/")[0]
    for name in set("abc") - {first}:
        (tmp_path / name / "file").unlink()
        (tmp_path / name).rmdir()
    assert list(files) == []


def test_a_walk_that_is_given_up_leaves_no_descriptor(top, tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    before = set(os.listdir("/proc/self/fd"))
    files = walk(top, ".grantfs")
    next(files)
    assert set(os.listdir("/proc/self/fd")) > before
    files.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_files_that_are_open_and_removed_on_nfs_are_none(top, tmp_path):
    (tmp_path / (".nfs" + "0" * 24)).touch()
    (tmp_path / ".nfs").touch()
    assert paths(top) == [".nfs"]
