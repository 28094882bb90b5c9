"""Paths of inodes, however deep they lie."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.nodes.directories import Directories
from fsdriver.nodes.inode import Inode


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[tuple[Directories, list[Inode]]]:
    """A root and 300 directories of 100 bytes, each in the one before."""
    found = tmp_path.stat()
    inodes = [Inode(0, None, b"", found)]
    for serial in range(1, 301):
        inodes.append(Inode(serial, inodes[-1], b"%03d" % serial + b"n" * 97, found))
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Directories(inodes[0], fd), inodes
    finally:
        os.close(fd)


def test_a_path_is_all_names_above_it(chain: tuple[Directories, list[Inode]]) -> None:
    directories, inodes = chain
    for depth in (0, 1, 2, 40, 41, 300):
        expected = "".join("/" + os.fsdecode(one.name) for one in inodes[1 : depth + 1]) or "/"
        for _ in range(2):  # remembered or not
            assert directories.path(inodes[depth]) == expected
    inodes[5].name = b"moved"
    directories.renamed()
    assert directories.path(inodes[300]).split("/")[5] == "moved"


def test_what_deep_directories_remember_does_not_grow_with_their_depth(
    chain: tuple[Directories, list[Inode]],
) -> None:
    directories, inodes = chain
    for one in inodes:
        directories.path(one)
    remembered = [len(path) for _, path in directories._paths.values()]
    assert 40 < len(remembered) < 50
    assert max(remembered) < 4096 + 256


def test_of_a_million_directories_a_few_thousand_paths_are_remembered(
    chain: tuple[Directories, list[Inode]], tmp_path: Path
) -> None:
    directories, inodes = chain
    found = tmp_path.stat()
    for serial in range(1000, 20_000):
        assert directories.path(Inode(serial, inodes[1], b"%d" % serial, found)).endswith(f"/{serial}")
    assert len(directories._paths) <= 4096
