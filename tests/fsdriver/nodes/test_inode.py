"""Which backing file is which inode."""

import os
from pathlib import Path

import pytest

from fsdriver.nodes.inode import InodeTable


@pytest.mark.parametrize("later", ["file", "folder", "link"])
def test_a_number_that_another_machine_gave_to_something_else_is_another_inode(tmp_path: Path, later: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    found = {path.name: os.lstat(path) for path in tmp_path.iterdir()}
    for before in found.keys() - {later}:
        table = InodeTable(os.stat(tmp_path))
        first = table.remember(table.root, b"name", found[before])
        number = list(found[later])
        number[1] = found[before].st_ino
        second = table.remember(table.root, b"name", os.stat_result(number))
        assert second is not first
        assert (second.is_regular, second.is_directory) == (later == "file", later == "folder")
        assert table.remember(table.root, b"name", os.stat_result(number)) is second
