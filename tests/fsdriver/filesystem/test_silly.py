"""Names that an NFS client gives to files without one."""

import os
import threading

import pytest

from fsdriver.filesystem import silly
from fsdriver.filesystem.silly import is_silly, rmdir
from fsdriver.nodes.directories import Descriptor

SILLY = ".nfs" + "0123456789abcdef" + "0000002a"


@pytest.fixture
def top(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def folder(tmp_path) -> Descriptor:
    (tmp_path / "folder").mkdir()
    return Descriptor(os.open(tmp_path / "folder", os.O_RDONLY | os.O_DIRECTORY))


def test_only_what_a_client_makes_is_silly():
    assert is_silly(SILLY.encode())
    for name in (".nfs", ".nfs1", "x" + SILLY, SILLY + "0", SILLY.upper(), SILLY + "\n"):
        assert not is_silly(name.encode())


def test_a_folder_is_removed_once_the_last_file_in_it_is_closed(top, tmp_path):
    directory = folder(tmp_path)
    held = tmp_path / "folder" / SILLY
    held.touch()
    closing = threading.Timer(0.1, held.unlink)
    closing.start()
    rmdir(b"folder", top, directory)
    closing.join()
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("name", [SILLY, "document"])
def test_a_folder_that_is_not_empty_stays(top, tmp_path, name, monkeypatch):
    monkeypatch.setattr(silly, "_MOMENT", 0.1)
    directory = folder(tmp_path)
    (tmp_path / "folder" / name).touch()
    with pytest.raises(OSError, match="not empty"):
        rmdir(b"folder", top, directory)
    assert (tmp_path / "folder" / name).exists()
