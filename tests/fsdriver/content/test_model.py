"""A sealed file is a bytearray: any order of operations, crashes and reopenings included."""

import os
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fsdriver.content import RedoLog, SealedFile, sealed_size
from fsdriver.content.offsets import plain_size
from tests.fsdriver.content.samples import CHUNK, new_file, pattern, reopened

offsets = st.one_of(st.integers(0, 12 * CHUNK), st.integers(0, 12).map(lambda n: n * CHUNK))
lengths = st.one_of(
    st.integers(1, 4 * CHUNK), st.sampled_from([1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 5 * CHUNK + 7])
)


class SealedFileMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = os.open(self.folder.name, os.O_RDONLY | os.O_DIRECTORY)
        self.redo = RedoLog(self.store, b"log")
        self.fd = os.open(f"{self.folder.name}/file", os.O_RDWR | os.O_CREAT)
        self.seed = 0
        self.model = bytearray()
        self.flushed = b""

    @initialize()
    def create(self) -> None:
        self.file: SealedFile = new_file(self.fd, redo=self.redo, path=b"file")

    @rule(offset=offsets, length=lengths)
    def write(self, offset, length):
        self.seed += 1
        data = pattern(length, self.seed)
        self.file.write(offset, data)
        if offset > len(self.model):
            self.model.extend(bytes(offset - len(self.model)))
        self.model[offset : offset + length] = data

    @rule(length=lengths)
    def append(self, length):
        self.write(len(self.model), length)

    @rule(size=offsets)
    def truncate(self, size):
        shrinks = size < len(self.model)
        self.file.truncate(size)
        self.model = self.model[:size].ljust(size, b"\0")
        if shrinks:
            self.flushed = bytes(self.model)

    @rule(offset=offsets, length=lengths)
    def punch(self, offset, length):
        self.file.punch(offset, length)
        end = min(len(self.model), offset + length)
        if offset < end:
            self.model[offset:end] = bytes(end - offset)

    @rule(offset=offsets, length=lengths, keep_size=st.booleans())
    def allocate(self, offset, length, keep_size):
        self.file.allocate(offset, length, keep_size=keep_size)
        if not keep_size:
            self.model = self.model.ljust(offset + length, b"\0")

    @rule(durable=st.booleans())
    def flush(self, durable):
        if durable:
            self.file.sync()
        else:
            self.file.flush()
        self.flushed = bytes(self.model)
        assert not self.file.dirty

    @rule()
    def reopen(self):
        overlong = self.file.overlong and not self.file.dirty
        self.file.close()
        if not overlong:  # what a crash left behind the end goes at the next write only
            size = os.fstat(self.fd).st_size
            assert size == sealed_size(len(self.model), CHUNK)
            assert plain_size(size, CHUNK) == len(self.model)
        self.file = reopened(self.fd, redo=self.redo, path=b"file")
        self.flushed = bytes(self.model)
        assert self.file.overlong == overlong

    @rule()
    def crash(self):
        """The process ends without a flush: what was flushed last is there, as a whole."""
        os.close(self.file._fd)
        self.redo.close()
        self.redo = RedoLog(self.store, b"log")
        assert self.redo.replay() == []
        self.file = reopened(self.fd, redo=self.redo, path=b"file")
        self.model = bytearray(self.flushed)

    @rule(offset=offsets, length=lengths)
    def read(self, offset, length):
        assert self.file.read(offset, length) == self.model[offset : offset + length]

    @precondition(lambda self: self.model)
    @rule(offset=offsets)
    def seek(self, offset):
        offset %= len(self.model)
        hole = self.file.seek(offset, os.SEEK_HOLE)
        assert offset <= hole <= len(self.model)
        try:
            data = self.file.seek(offset, os.SEEK_DATA)
        except OSError:
            data = len(self.model)
        assert not any(self.model[offset:data])
        assert (hole == offset) or (data == offset)

    @rule()
    def verify(self):
        self.file.verify()

    @invariant()
    def same_bytes(self):
        if hasattr(self, "file"):
            assert self.file.size == len(self.model)
            assert self.file.read(0, len(self.model) + 1) == self.model

    def teardown(self):
        if hasattr(self, "file"):
            self.file.verify()
            self.file.close()
        self.redo.close()
        os.close(self.fd)
        os.close(self.store)
        self.folder.cleanup()


TestSealedFile = SealedFileMachine.TestCase
TestSealedFile.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
