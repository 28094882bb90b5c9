"""A directory in which an NFS client keeps files without a name."""

import os
import threading

import pytest

from fsdriver.filesystem import removing
from fsdriver.filesystem.asker import Asker, MustWait
from fsdriver.filesystem.removing import remove_directory
from fsdriver.identity import Caller
from fsdriver.nodes.directories import Descriptor
from policy import ProgramFacts

SILLY = ".nfs" + "0123456789abcdef" + "0000002a"


def asker(*, may_wait: bool) -> Asker:
    facts = ProgramFacts(path="/usr/bin/rm", clean=True)
    return Asker(Caller(1, 1, 0, 0, 0, facts, "", "/usr/bin/rm", "", 1, ""), may_wait)


@pytest.fixture
def top(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def folder(tmp_path) -> Descriptor:
    (tmp_path / "folder").mkdir()
    return Descriptor(os.open(tmp_path / "folder", os.O_RDONLY | os.O_DIRECTORY))


def test_a_folder_is_removed_once_the_last_file_in_it_is_closed(top, tmp_path):
    directory = folder(tmp_path)
    held = tmp_path / "folder" / SILLY
    held.touch()
    closing = threading.Timer(0.1, held.unlink)
    closing.start()
    remove_directory(b"folder", top, directory, asker(may_wait=True))
    closing.join()
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("name", [SILLY, "document"])
def test_a_folder_that_is_not_empty_stays(top, tmp_path, name, monkeypatch):
    monkeypatch.setattr(removing, "_MOMENT", 0.1)
    directory = folder(tmp_path)
    (tmp_path / "folder" / name).touch()
    with pytest.raises(OSError, match="not empty"):
        remove_directory(b"folder", top, directory, asker(may_wait=True))
    assert (tmp_path / "folder" / name).exists()


def test_a_thread_that_serves_others_does_not_wait_for_it(top, tmp_path):
    directory = folder(tmp_path)
    (tmp_path / "folder" / SILLY).touch()
    with pytest.raises(MustWait):
        remove_directory(b"folder", top, directory, asker(may_wait=False))
    (tmp_path / "folder" / "document").touch()
    with pytest.raises(OSError, match="not empty"):
        remove_directory(b"folder", top, directory, asker(may_wait=False))
