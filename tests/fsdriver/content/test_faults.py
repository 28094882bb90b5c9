"""Every system call of the write path fails, is cut short, or is the last one of a killed process, in turn."""

import ctypes
import errno
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsdriver.content import RedoLog, SealedFile, backing
from tests.fsdriver.content.samples import CHUNK, LABEL, new_file, pattern, reopened, slot_for


class Killed(BaseException):
    """The process ends here; nothing of it runs on."""


class Faults:
    """Counts the changing system calls and spoils number `at`."""

    def __init__(self, at: int, kind: str) -> None:
        self.at = at
        self.kind = kind
        self.seen = 0
        self.killed = False
        self._real = (os.pwrite, os.ftruncate, os.fdatasync, backing._fallocate, backing._syncfs)

    def _spoil(self, half: Callable[[], object]) -> None:
        if self.killed:
            raise Killed
        self.seen += 1
        if self.seen != self.at:
            return
        if self.kind in ("half then EIO", "half then kill"):
            half()
        if self.kind.endswith("kill"):
            self.killed = True
            raise Killed
        number = errno.ENOSPC if self.kind == "ENOSPC" else errno.EIO
        raise OSError(number, os.strerror(number))

    def pwrite(self, fd, data, offset):
        half = memoryview(data)[: len(data) // 2]
        # The commit record is one sector in one page: a write to it is whole or not there.
        self._spoil(lambda: self._real[0](fd, half, offset) if len(data) > 512 else None)
        return self._real[0](fd, data, offset)

    def ftruncate(self, fd, size):
        self._spoil(lambda: None)
        self._real[1](fd, size)

    def fdatasync(self, fd):
        self._spoil(lambda: None)

    def fallocate(self, fd, mode, offset, length):
        try:
            self._spoil(lambda: self._real[3](fd, mode, offset, length // 2))
        except OSError as exc:
            ctypes.set_errno(exc.errno or 0)
            return -1
        return self._real[3](fd, mode, offset, length)

    def syncfs(self, fd):
        try:
            self._spoil(lambda: None)
        except OSError as exc:
            ctypes.set_errno(exc.errno or 0)
            return -1
        return 0

    @contextmanager
    def injected(self) -> Iterator[None]:
        os.pwrite, os.ftruncate, os.fdatasync = self.pwrite, self.ftruncate, self.fdatasync
        backing._fallocate, backing._syncfs = self.fallocate, self.syncfs  # type: ignore[assignment]
        try:
            yield
        finally:
            os.pwrite, os.ftruncate, os.fdatasync, backing._fallocate, backing._syncfs = self._real


def put(file: SealedFile, offset: int, data: bytes) -> None:
    """What a program does: it writes the rest after a short write."""
    while data:
        done = file.write(offset, data)
        assert done > 0
        offset, data = offset + done, data[done:]


Step = Callable[[SealedFile], object]

SCENARIOS: dict[str, list[Step]] = {
    "new file": [
        lambda f: put(f, 0, pattern(3 * CHUNK + 5, 1)),
        lambda f: f.flush(),
        lambda f: put(f, 3 * CHUNK + 5, pattern(2 * CHUNK, 2)),
        lambda f: f.sync(),
    ],
    "overwrites": [
        lambda f: put(f, 0, pattern(6 * CHUNK + 5, 1)),
        lambda f: f.flush(),
        lambda f: put(f, 100, pattern(2 * CHUNK, 2)),
        lambda f: put(f, 4 * CHUNK, pattern(CHUNK, 3)),
        lambda f: f.flush(),
        lambda f: put(f, 0, pattern(CHUNK, 4)),
        lambda f: f.sync(),
    ],
    "shrinking and growing": [
        lambda f: put(f, 0, pattern(6 * CHUNK + 5, 1)),
        lambda f: f.flush(),
        lambda f: f.truncate(2 * CHUNK + 9),
        lambda f: f.truncate(9 * CHUNK + 9),
        lambda f: f.flush(),
        lambda f: f.truncate(5 * CHUNK),
        lambda f: f.truncate(0),
        lambda f: put(f, 0, pattern(10, 5)),
        lambda f: f.flush(),
    ],
    "new wraps": [
        lambda f: put(f, 0, pattern(2 * CHUNK, 1)),
        lambda f: f.rewrap(LABEL, [slot_for()]),
        lambda f: put(f, 10, pattern(CHUNK, 2)),
        lambda f: f.rewrap(LABEL, [slot_for(), slot_for()]),
        lambda f: f.truncate(0),
    ],
    "holes": [
        lambda f: f.truncate(10 * CHUNK + 1),
        lambda f: f.flush(),
        lambda f: put(f, 5 * CHUNK + 3, pattern(20, 1)),
        lambda f: f.flush(),
        lambda f: put(f, 0, pattern(2 * CHUNK, 2)),
        lambda f: f.punch(CHUNK, 5 * CHUNK),
        lambda f: put(f, 2 * CHUNK, pattern(CHUNK + 7, 3)),
        lambda f: f.sync(),
        lambda f: f.punch(0, 11 * CHUNK),
        lambda f: f.flush(),
    ],
}


class Bench:
    """A store folder with one file and a log."""

    def __init__(self, folder: Path) -> None:
        self.store = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.redo = RedoLog(self.store, b"log")
        self.fd = os.open(folder / "file", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.file = new_file(self.fd, redo=self.redo, path=b"file")

    def close(self) -> None:
        self.redo.close()
        for fd in (self.store, self.fd, self.file._fd):
            os.close(fd)


def states(folder: Path, steps: list[Step]) -> list[bytes]:
    """The content after each step, without faults."""
    bench = Bench(folder)
    found = [b""]
    for step in steps:
        step(bench.file)
        found.append(bench.file.read(0, 1 << 20))
    bench.close()
    return found


def calls(folder: Path, steps: list[Step]) -> int:
    bench, faults = Bench(folder), Faults(0, "")
    with faults.injected():
        for step in steps:
            step(bench.file)
    bench.close()
    return faults.seen


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", ["ENOSPC", "half then EIO"])
def test_a_failed_call_is_raised_and_the_next_try_succeeds(tmp_path, name, kind):
    steps = SCENARIOS[name]
    expected = states(tmp_path, steps)
    for at in range(1, calls(tmp_path, steps) + 1):
        bench, faults = Bench(tmp_path), Faults(at, kind)
        raised = 0
        for number, step in enumerate(steps):
            try:
                with faults.injected():
                    step(bench.file)
            except OSError:
                raised += 1
                assert bench.file.read(0, 1 << 20) in expected[number : number + 2], f"call {at}, step {number}"
                step(bench.file)
            assert bench.file.read(0, 1 << 20) == expected[number + 1], f"call {at}, step {number}"
        assert raised <= 1
        bench.file.flush()
        again = reopened(bench.fd)
        again.verify()
        assert again.read(0, 1 << 20) == expected[-1], f"call {at}"
        again.close()
        bench.close()


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", ["kill", "half then kill"])
def test_a_kill_leaves_the_old_state_or_the_new_one(tmp_path, name, kind):
    steps = SCENARIOS[name]
    expected = states(tmp_path, steps)
    for at in range(1, calls(tmp_path, steps) + 1):
        bench, faults = Bench(tmp_path), Faults(at, kind)
        flushed = b""
        number = 0
        with faults.injected():
            try:
                for number, step in enumerate(steps):
                    step(bench.file)
                    if not bench.file.dirty:
                        flushed = expected[number + 1]
            except Killed:
                pass
        os.close(bench.redo._fd)
        bench.redo = RedoLog(bench.store, b"log")
        assert all(not outcome.problem for outcome in bench.redo.replay())
        after = reopened(bench.fd)
        after.verify()
        assert after.read(0, 1 << 20) in (flushed, expected[number + 1]), f"call {at}, step {number}"
        # And it can be worked with.
        after.write(CHUNK // 2, pattern(3 * CHUNK, 9))
        after.flush()
        after.verify()
        after.close()
        bench.close()


def random_change(chooser: random.Random, model: bytearray) -> tuple[Step, bytearray]:
    """A change, and what the content is after it."""
    after = bytearray(model)
    near = CHUNK * chooser.choice([1, 4, 12])
    kind = chooser.choice(["write", "write", "append", "truncate", "flush", "sync", "punch"])
    if kind in ("write", "append"):
        size = chooser.choice([1, 10, CHUNK, 3 * CHUNK + 7, chooser.randrange(1, 4 * CHUNK)])
        offset = len(model) if kind == "append" else chooser.randrange(near)
        offset -= chooser.choice([0, offset % CHUNK])
        data = chooser.randbytes(size)
        after.extend(bytes(max(0, offset - len(after))))
        after[offset : offset + size] = data
        return lambda f: put(f, offset, data), after
    if kind == "truncate":
        size = chooser.choice([0, chooser.randrange(near), chooser.randrange(12) * CHUNK, len(model) + 5 * CHUNK])
        return lambda f: f.truncate(size), after[:size].ljust(size, b"\0")
    if kind == "punch":
        offset, size = chooser.randrange(near), chooser.randrange(1, near)
        end = max(offset, min(len(after), offset + size))
        after[offset:end] = bytes(end - offset)
        return lambda f: f.punch(offset, size), after
    return (SealedFile.sync if kind == "sync" else SealedFile.flush), after


@pytest.mark.parametrize("kind", ["ENOSPC", "half then EIO", "kill", "half then kill"])
@pytest.mark.parametrize("seed", range(15))
def test_random_changes_with_random_faults(tmp_path, kind, seed):
    chooser = random.Random(seed)
    bench = Bench(tmp_path)
    model, flushed = bytearray(), b""
    for _ in range(25):
        step, after = random_change(chooser, model)
        faults = Faults(chooser.choice([0, 0, 1, 1, 2, 3, 4]), kind)
        try:
            with faults.injected():
                step(bench.file)
            model = after
        except OSError:
            step(bench.file)
            model = after
        except Killed:
            os.close(bench.file._fd)
            os.close(bench.redo._fd)
            bench.redo = RedoLog(bench.store, b"log")
            bench.redo.replay()
            bench.file = reopened(bench.fd, redo=bench.redo, path=b"file")
            bench.file.verify()
            content = bench.file.read(0, 1 << 20)
            assert content in (flushed, model, after)
            model = bytearray(content)
        assert bench.file.read(0, 1 << 20) == model
        if not bench.file.dirty:
            flushed = bytes(model)
    bench.file.flush()
    again = reopened(bench.fd)
    again.verify()
    assert again.read(0, 1 << 20) == model
    again.close()
    bench.close()
