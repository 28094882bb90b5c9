"""Files are bytes, in whatever order programs write, map, cut, rename, link and copy them: first on a plain directory,
which says that the model is right, then on the drive, where the daemon is killed at the end of it.

A listed program does it. An unlisted one reads the same names meanwhile, and what it gets opens to the same content.
"""

import errno
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fsdriver.content import SealedFile
from fsdriver.content.keyfile import KeyFile
from tests.mounted.mounted import LISTED, Mounted, remove, temporary_directory, unlisted_python
from tests.mounted.posix.support import CHUNK, EXCHANGE, KEEP_SIZE, NOREPLACE, PUNCH_HOLE, ZERO_RANGE
from tests.mounted.workloads.model import Model
from tests.mounted.workloads.worker import FOLDERS, Outcome, Worker, outcome

pytestmark = pytest.mark.mounted

PAGE = 4096
LABEL = b"company/internal".ljust(16, b"\0")[:16]
KEYS = KeyFile({(bytes(16), 1): LABEL + LABEL}, {})

names = st.sampled_from(["a", "b", "x/a", "y/b"])
places = st.one_of(
    st.integers(0, 5 * CHUNK),
    st.builds(lambda pages, beside: max(0, pages * PAGE + beside), st.integers(0, 40), st.sampled_from([-1, 0, 1])),
    st.integers(0, 5).map(lambda chunks: chunks * CHUNK),
)
sizes = st.one_of(
    st.integers(1, 3 * CHUNK), st.sampled_from([1, 2, PAGE, PAGE + 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
)
seeds = st.integers(1, 255)
flags = st.builds(
    lambda access, more: access | more,
    st.sampled_from([*[os.O_RDWR] * 5, os.O_RDONLY, os.O_WRONLY]),
    st.sampled_from([*[os.O_CREAT] * 5, 0, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_APPEND, os.O_APPEND]),
)


class Folder:
    """Where the files of all examples are, and who works on them."""

    def __init__(self, top: Path, worker: Worker, stranger: Worker | None = None) -> None:
        self.top = top
        self.worker = worker
        self.stranger = stranger
        self.examples = 0

    def next(self) -> Path:
        self.examples += 1
        return self.top / str(self.examples)

    def safe(self) -> None:
        """All is closed or synced: what comes now must not matter."""


class DriveFolder(Folder):
    """A folder of a drive whose daemon is killed after every so many examples."""

    def __init__(self, drive: Mounted, worker: Worker, stranger: Worker, *, killed_after: int) -> None:
        super().__init__(drive.drive / "folder", worker, stranger)
        self._drive = drive
        self._killed_after = killed_after

    def safe(self) -> None:
        if self.examples % self._killed_after == 0:
            self._drive.kill()
            self._drive.unmount_dead()
            self._drive.start()


class FilesMachine(RuleBasedStateMachine):
    descriptors = Bundle("descriptors")
    mappings = Bundle("mappings")

    folder: Folder

    def __init__(self) -> None:
        super().__init__()
        self._path = self.folder.next()
        self._model = Model()
        self._numbers = itertools.count()
        self._right = True
        self._same("is", None, self.folder.worker.ask("enter", str(self._path)))

    def teardown(self) -> None:
        if self._right and self.folder.examples % 2:  # all is synced, and open when the daemon is killed
            for mapping in self._model.mappings:
                self._both("map_sync", mapping)
            for number in self._model.descriptors:
                self._both("sync", number, False)
        else:
            self._both("leave")
        if self._right:
            self.folder.safe()
            self._both("leave")
            self._same("is", None, self.folder.worker.ask("enter", str(self._path)))
            self._both("names")
            for name in self._model.files:
                self._both("stat", name)
                self._both("content", name, True)
            self._both("leave")

    def _both(self, operation: str, *arguments: object) -> Outcome:
        """The same on the model and on the files, with the same outcome."""
        expected = outcome(self._model, operation, arguments)
        self._same(*expected, self.folder.worker.ask(operation, *arguments))
        return expected

    def _same(self, kind: str, value: object, found: Outcome) -> None:
        if found != (kind, value):
            self._right = False
            raise AssertionError(f"expected {kind} {_short(value)}, found {found[0]} {_short(found[1], value)}")

    def _there(self, name: str) -> str:
        """The name, or one that is there instead: what has no name teaches little."""
        there = self._model.names()
        return name if name in there or not there else there[ord(name[-1]) % len(there)]

    @initialize(target=descriptors, name=names, size=sizes, seed=seeds)
    def begin(self, name, size, seed):
        number = next(self._numbers)
        self._both("open", number, name, os.O_RDWR | os.O_CREAT)
        self._both("write", number, size, seed)
        return number

    # ---- names -------------------------------------------------------------------------------------------------

    @rule(old=names, new=names, how=st.sampled_from([0, 0, NOREPLACE, EXCHANGE]))
    def rename(self, old, new, how):
        if how != EXCHANGE or new in self._model.files:
            self._both("rename", self._there(old), new, how)

    @rule()
    def exchange_folders(self):
        self._both("exchange_folders", *FOLDERS)

    @rule(old=names, new=names)
    def link(self, old, new):
        self._both("link", self._there(old), new)

    @precondition(lambda self: len(self._model.files) > 1)
    @rule(name=names)
    def unlink(self, name):
        self._both("unlink", self._there(name))

    @rule(name=names, size=places)
    def truncate_name(self, name, size):
        self._both("truncate_name", self._there(name), size)

    @rule(name=names, anew=st.booleans())
    def look(self, name, anew):
        self._both("content", self._there(name), anew)
        self._both("stat", self._there(name))
        self._both("names")

    # ---- descriptors -------------------------------------------------------------------------------------------

    @rule(target=descriptors, name=names, how=flags, empty=st.sampled_from([0, 0, os.O_TRUNC]))
    def open(self, name, how, empty):
        number = next(self._numbers)
        if how & os.O_ACCMODE == os.O_RDONLY:
            empty = 0
        kind, _ = self._both("open", number, name, how | empty)
        return number if kind == "is" else multiple()

    @rule(number=consumes(descriptors))
    def close(self, number):
        self._both("close", number)

    @rule(number=descriptors, size=sizes)
    def read(self, number, size):
        self._both("read", number, size)

    @rule(number=descriptors, size=sizes, offset=places)
    def pread(self, number, size, offset):
        self._both("pread", number, size, offset)

    @rule(number=descriptors, size=sizes, seed=seeds)
    def write(self, number, size, seed):
        self._both("write", number, size, seed)

    @rule(number=descriptors, size=sizes, seed=seeds, offset=places)
    def pwrite(self, number, size, seed, offset):
        self._both("pwrite", number, size, seed, offset)

    @rule(number=descriptors, size=places)
    def truncate(self, number, size):
        self._both("truncate", number, size)

    @rule(
        number=descriptors,
        mode=st.sampled_from([0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE]),
        offset=places,
        length=sizes,
    )
    def allocate(self, number, mode, offset, length):
        arguments = (number, mode, offset, length)
        found = self.folder.worker.ask("allocate", *arguments)
        if found != ("errno", errno.EOPNOTSUPP):
            self._same(*outcome(self._model, "allocate", arguments), found)
        else:
            assert mode & ZERO_RANGE

    @rule(source=descriptors, into=descriptors, size=sizes, offset_from=places, offset_to=places)
    def copy(self, source, into, size, offset_from, offset_to):
        same = self._model.descriptors[source].file is self._model.descriptors[into].file
        if not (same and abs(offset_from - offset_to) < size):
            self._both("copy", source, into, size, offset_from, offset_to)

    @rule(number=descriptors, data_only=st.booleans())
    def sync(self, number, data_only):
        self._both("sync", number, data_only)

    @rule(number=descriptors)
    def forget(self, number):
        self._both("forget", number)

    @rule(number=descriptors, offset=places)
    def seek(self, number, offset):
        """Where holes begin and end is the filesystem's own business, as long as they are zeros."""
        descriptor = self._model.descriptors[number]
        content = descriptor.file.content
        (kind, data), (other, hole) = (
            self.folder.worker.ask("seek", number, offset, whence) for whence in (os.SEEK_DATA, os.SEEK_HOLE)
        )
        self._same("is", descriptor.position, self.folder.worker.ask("seek", number, descriptor.position, os.SEEK_SET))
        if offset >= len(content):
            assert (kind, data, other, hole) == ("errno", errno.ENXIO, "errno", errno.ENXIO)
        elif not descriptor.file.map_dirty:
            if (kind, data) == ("errno", errno.ENXIO):
                kind, data = "is", len(content)
            assert (kind, other) == ("is", "is")
            assert offset <= data <= len(content)
            assert offset <= hole <= len(content)
            assert offset in (data, hole)
            assert not any(content[offset:data])

    # ---- mappings ----------------------------------------------------------------------------------------------

    @rule(target=mappings, number=descriptors)
    def map(self, number):
        descriptor = self._model.descriptors[number]
        size = len(descriptor.file.content)
        if not size or descriptor.flags & os.O_ACCMODE != os.O_RDWR:
            return multiple()
        mapping = next(self._numbers)
        self._both("map", mapping, number, size)
        return mapping

    @rule(mapping=consumes(mappings))
    def unmap(self, mapping):
        self._both("unmap", mapping)

    @rule(mapping=mappings, offset=places, size=sizes)
    def map_read(self, mapping, offset, size):
        size = min(size, self._model.mappings[mapping].usable - offset)
        if size > 0:
            self._both("map_read", mapping, offset, size)

    @rule(mapping=mappings, offset=places, size=sizes, seed=seeds)
    def map_write(self, mapping, offset, size, seed):
        size = min(size, self._model.mappings[mapping].usable - offset)
        if size > 0:
            self._both("map_write", mapping, size, seed, offset)

    @rule(mapping=mappings)
    def map_sync(self, mapping):
        self._both("map_sync", mapping)

    # ---- who is not listed -------------------------------------------------------------------------------------

    @precondition(lambda self: self.folder.stranger is not None)
    @rule(name=names)
    def a_stranger_reads(self, name):
        """After fsync the sealed bytes are the content's, to the last one."""
        assert self.folder.stranger is not None
        name = self._there(name)
        if name not in self._model.files:
            return
        file, path = self._model.files[name], str(self._path / name)
        number = next(self._numbers)
        self._both("open", number, name, os.O_RDWR)
        self._both("sync", number, False)
        sealed_size = self.folder.stranger.ask("stat", path)
        kind, sealed = self.folder.stranger.ask("content", path, False)
        assert kind == "is"
        assert sealed_size == ("is", (len(sealed), file.links))
        self._same("is", bytes(file.content), ("is", opened(sealed)))
        self._both("close", number)

    @invariant()
    def sizes_and_links_are_right(self):
        for number in self._model.descriptors:
            self._both("fstat", number)


def opened(sealed: bytes) -> bytes:
    """The content of sealed bytes, with the key that the mounted tests have for the default label."""
    fd = os.memfd_create("sealed")
    try:
        os.write(fd, sealed)
        file = SealedFile.open(fd, KEYS.unlock)
        file.verify()
        return file.read(0, file.size)
    finally:
        os.close(fd)


def _short(value: object, other: object = None) -> str:
    """A value for a message: of two unlike byte strings where they part, of others the whole."""
    if not isinstance(value, bytes):
        return repr(value)
    text = f"{len(value)} bytes"
    if isinstance(other, bytes):
        at = len(os.path.commonprefix([value, other]))
        text += f", at {at}: {value[at : at + 16]!r} instead of {other[at : at + 16]!r}"
    return text


def run(folder: Folder, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        type("FilesMachine", (FilesMachine,), {"folder": folder}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=True,
            database=None,
            phases=[Phase.generate, Phase.shrink],
        ),
    )


LITTLE, MUCH = (25, 60), (150, 100)
AMOUNTS = [pytest.param(LITTLE, id="little"), pytest.param(MUCH, id="much", marks=pytest.mark.slow)]


@pytest.mark.parametrize("amount", AMOUNTS)
def test_a_plain_directory_is_like_the_model(amount: tuple[int, int]) -> None:
    top = temporary_directory()
    with Worker(LISTED) as worker:
        run(Folder(top, worker), *amount)
    remove(top)


@pytest.mark.parametrize("transport", ["io_uring", "dev"])
@pytest.mark.parametrize("amount", AMOUNTS)
def test_the_drive_is_like_the_model(own: Mounted, transport: str, amount: tuple[int, int]) -> None:
    own.transport = transport
    own.start()
    with Worker(LISTED) as worker, Worker(unlisted_python()) as stranger:
        run(DriveFolder(own, worker, stranger, killed_after=5), *amount)
    assert own.log() == ""
