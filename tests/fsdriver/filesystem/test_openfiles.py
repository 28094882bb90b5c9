"""A file is unlocked once, and every caller is decided for itself."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from fsdriver.content import HEADER_SIZE, FileKey, Header, RedoLog, SealedFile
from fsdriver.errors import HeaderDamaged, LeaseMissing, ViewRefused
from fsdriver.filesystem.asker import Asker
from fsdriver.filesystem.claims import Claims
from fsdriver.filesystem.filekeys import GivenKey
from fsdriver.filesystem.lines import Lines
from fsdriver.filesystem.openfiles import OpenFiles
from fsdriver.filesystem.peers import Peers
from fsdriver.identity import Caller
from fsdriver.nodes.directories import Directories
from fsdriver.nodes.inode import Inode, InodeTable
from fsdriver.views import Views
from policy import ProgramFacts
from tests.fsdriver.content import samples
from tests.fsdriver.content.samples import COMPANY, new_file


def unlock(header: Header) -> GivenKey:
    """As somebody who may, of a label whose key is on loan."""
    return GivenKey(lambda: samples.unlock(header), on_loan=True)


class NoLines:
    """Nothing is compared with what was left."""

    def left(self, sealed: SealedFile) -> None: ...

    def met(self, sealed: SealedFile, caller: Caller, inode: Inode) -> None: ...


def asker(may_wait: bool) -> Asker:
    facts = ProgramFacts(path="/usr/bin/tar", clean=True)
    return Asker(Caller(1, 1, 0, 0, 0, facts, "", "/usr/bin/tar", "", 1, ""), may_wait)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[OpenFiles, Inode]]:
    """The open files of a store that holds one sealed file, `letter`, and its inode."""
    fd = os.open(tmp_path / "letter", os.O_RDWR | os.O_CREAT)
    new_file(fd).close()
    os.close(fd)
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    inodes = InodeTable(os.fstat(top))
    directories = Directories(inodes.root, top)
    views, lines = Views(directories, "root", time.time), cast("Lines", NoLines())
    claims = Claims(cast("Peers", None), cast("RedoLog", None))  # who is alone asks nobody
    files = OpenFiles(inodes, directories, views, COMPANY, RedoLog(top, b"log"), claims, lines)
    yield files, inodes.remember(inodes.root, b"letter", (tmp_path / "letter").stat())
    os.close(top)


@pytest.mark.parametrize("wait", [False, True])
def test_who_comes_while_another_unlocks_the_file_is_decided_too(store: tuple[OpenFiles, Inode], wait: bool) -> None:
    files, inode = store
    unlocking, comes = threading.Event(), threading.Event()

    def may(header: Header) -> GivenKey:
        unlocking.set()
        assert comes.wait(10)
        return unlock(header)

    def may_not(header: Header) -> GivenKey:
        raise ViewRefused("this caller sees no plaintext")

    def second() -> None:
        unlocking.wait(10)
        with files.borrowed(inode) as file:
            assert file.sealed is None
            comes.set()
            try:
                files.unlock(file, "/letter", may_not, asker(wait))
            except ViewRefused:
                refused.append(True)

    refused: list[bool] = []
    other = threading.Thread(target=second)
    other.start()
    with files.borrowed(inode) as file:
        files.unlock(file, "/letter", may, asker(False))
    other.join(10)
    assert refused == [True]


def test_a_file_that_is_open_is_decided_anew(store: tuple[OpenFiles, Inode]) -> None:
    files, inode = store

    def without_a_lease(header: Header) -> GivenKey:
        raise LeaseMissing("no key")

    with files.borrowed(inode) as file:
        sealed = files.unlock(file, "/letter", unlock, asker(False))
        with pytest.raises(LeaseMissing):
            files.unlock(file, "/letter", without_a_lease, asker(False))
        assert file.sealed is sealed
        assert files.unlock(file, "/letter", unlock, asker(False)) is sealed
    assert inode.opened is None


def test_pages_of_a_file_that_somebody_else_changed_are_not_believed(store: tuple[OpenFiles, Inode]) -> None:
    files, inode = store
    with files.borrowed(inode) as file:
        files.unlock(file, "/letter", unlock, asker(False))
        inode.commit_cached = b"a state"
    with files.borrowed(inode) as file:
        files.unlock(file, "/letter", unlock, asker(False))
        assert inode.commit_cached == b"a state"
        fd = file.fd
        os.fchmod(fd, 0o600)
        os.utime(fd)  # the clock of the filesystem may not have moved since
        while os.fstat(fd).st_ctime_ns == inode.store_ctime:
            os.utime(fd)
    with files.borrowed(inode) as file:
        files.unlock(file, "/letter", unlock, asker(False))
        assert inode.commit_cached is None


def test_a_header_that_was_checked_is_not_unwrapped_again_until_keys_are_taken_back(
    store: tuple[OpenFiles, Inode],
) -> None:
    files, inode = store
    unwrapped: list[bytes] = []

    def counted(header: Header) -> GivenKey:
        def unwrap() -> FileKey:
            unwrapped.append(header.file_id)
            return samples.unlock(header)

        return GivenKey(unwrap, on_loan=True)

    def opened() -> None:
        with files.borrowed(inode) as file:
            files.unlock(file, "/letter", counted, asker(False))

    opened()
    opened()
    assert len(unwrapped) == 1
    files.verified.forget()
    opened()
    assert len(unwrapped) == 2


def test_the_key_of_a_single_grant_is_not_remembered(store: tuple[OpenFiles, Inode]) -> None:
    files, inode = store
    asked = []

    def granted(header: Header) -> GivenKey:
        key = samples.unlock(header)
        return GivenKey(lambda: asked.append(1) or key, on_loan=False)  # type: ignore[func-returns-value]

    for _ in range(2):
        with files.borrowed(inode) as file:
            files.unlock(file, "/letter", granted, asker(False))
    assert len(asked) == 2


@pytest.mark.parametrize("wait", [False, True])
def test_a_key_that_is_taken_back_while_a_file_is_opened_leaves_nothing(
    store: tuple[OpenFiles, Inode], wait: bool
) -> None:
    files, inode = store

    def taken_back(header: Header) -> GivenKey:
        files.verified.forget()
        return unlock(header)

    with files.borrowed(inode) as file:
        files.unlock(file, "/letter", taken_back, asker(wait))
        assert files.verified.get(os.pread(file.fd, HEADER_SIZE, 0)) is None


def test_a_header_that_was_changed_is_checked_from_the_start(store: tuple[OpenFiles, Inode]) -> None:
    files, inode = store
    with files.borrowed(inode) as file:
        files.unlock(file, "/letter", unlock, asker(False))
        text = os.pread(file.fd, 1, 300)
        os.pwrite(file.fd, bytes([text[0] ^ 1]), 300)
    with files.borrowed(inode) as file, pytest.raises(HeaderDamaged):
        files.unlock(file, "/letter", unlock, asker(False))
