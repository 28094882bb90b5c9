import os
from dataclasses import replace
from typing import Any

import pytest

from fsdriver.identity import Caller
from fsdriver.nodes import unfinished
from fsdriver.nodes.inode import InodeTable
from fsdriver.nodes.unfinished import UnfinishedFiles, state_of
from tests.fsdriver.content.samples import memory, new_file

MAKER = Caller(7, 7, 0, 0, 100, None, "unlisted", "/usr/bin/tar", "", 1, "")


@pytest.fixture
def sealed():
    fd = memory()
    file = new_file(fd)
    yield file
    file.close()
    os.close(fd)


@pytest.fixture
def inodes(tmp_path):
    table = InodeTable(tmp_path.stat())
    names = [b"a", b"b", b"c"]
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    return [table.remember(table.root, name, (tmp_path / os.fsdecode(name)).stat()) for name in names]


def test_only_the_process_that_left_a_file_is_its_maker(sealed: Any, inodes: Any) -> None:
    files = UnfinishedFiles()
    files.leave(inodes[0], MAKER, sealed)
    left = files.by(inodes[0], replace(MAKER, tid=8))
    assert left is not None
    assert left.state == state_of(sealed)
    assert files.by(inodes[0], replace(MAKER, start_time=101)) is None, "its number was given to another process"
    assert files.by(inodes[0], replace(MAKER, pid=8)) is None
    assert files.by(inodes[1], MAKER) is None
    files.end(inodes[0])
    assert files.by(inodes[0], MAKER) is None


def test_another_content_is_another_state(sealed: Any) -> None:
    before = state_of(sealed)
    sealed.write(0, b"more")
    sealed.flush()
    assert state_of(sealed) != before


def test_the_newest_are_remembered(sealed: Any, inodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished, "_MOST", 2)
    files = UnfinishedFiles()
    for inode in (inodes[0], inodes[1], inodes[0], inodes[2]):
        files.leave(inode, MAKER, sealed)
    assert [files.by(inode, MAKER) is not None for inode in inodes] == [True, False, True]


def test_who_lets_a_file_be_copied_in_vain_again_and_again_does_not_go_on(sealed: Any, inodes: Any) -> None:
    files = UnfinishedFiles()
    files.leave(inodes[0], MAKER, sealed)
    times = 0
    while files.by(inodes[0], MAKER) is not None:
        files.tried(inodes[0])
        files.leave(inodes[0], MAKER, sealed)
        times += 1
        assert times < 100
    assert times > 1, "a writer of pieces may be taken for complete once"
    files.leave(inodes[0], replace(MAKER, pid=8), sealed)
    assert files.by(inodes[0], replace(MAKER, pid=8)) is not None
