"""Every system call of the write path fails, is cut short, or is the last one of a killed process, in turn."""

import ctypes
import errno
import fcntl
import os
import random
import re
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from fsdriver.content import Group, RedoLog, SealedFile, backing, room
from fsdriver.content import redo as redo_module
from tests.fsdriver.content.samples import CHUNK, LABEL, new_file, pattern, reopened, slot_for


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def a_quick_disk(monkeypatch):
    """Some thousand logs are made here: they reserve little, and nothing is synced, as no power fails."""
    monkeypatch.setattr(backing, "_syncfs", lambda _: 0)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    monkeypatch.setattr(redo_module, "_RESERVED", 1 << 18)
    monkeypatch.setattr(room, "USUAL", 1 << 18)


class Killed(BaseException):
    """The process ends here; nothing of it runs on."""


# Of all that `os` has in C, what asks no disk.
NO_DISK = re.compile(
    r"_.*|W[A-Z]+|get.*|set(?!xattr).*|sched.*|urandom|strerror|fspath|cpu_count|close|dup|.*memfd.*|fork|kill"
)


def everything() -> list[tuple[object, str]]:
    """Every system call that the content layer can reach: all of `os`, and what it calls by way of the C library."""
    calls: list[tuple[object, str]] = [
        (os, name)
        for name, found in vars(os).items()
        if isinstance(found, types.BuiltinFunctionType) and not NO_DISK.fullmatch(name)
    ]
    calls += [(backing, name) for name, found in vars(backing).items() if hasattr(found, "argtypes")]
    return [*calls, (fcntl, "fcntl"), (os, "fdatasync"), (backing, "_syncfs")]


class Faults:
    """Counts the system calls, whichever they are, and spoils number `at`."""

    def __init__(self, at: int, kind: str) -> None:
        self.at = at
        self.kind = kind
        self.seen: list[str] = []
        self.killed = False

    def _called(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if self.killed:
            raise Killed
        self.seen.append(name)
        spoiled = len(self.seen) == self.at
        if spoiled and self.kind == "short" and name == "pwrite" and len(arguments[1]) > 512:
            fd, data, offset = arguments
            return real(fd, memoryview(data)[: len(data) // 2], offset)
        if spoiled and self.kind == "kill after":
            real(*arguments, **named)
        elif spoiled and self.kind.startswith("half"):
            self._half(name, real, arguments)
        if spoiled and "kill" in self.kind:
            self.killed = True
            raise Killed
        if spoiled and self.kind != "short":
            return self._fail(name, errno.ENOSPC if self.kind == "ENOSPC" else errno.EIO)
        return real(*arguments, **named)

    def _half(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        # The commit record is one sector in one page: a write to it is whole or not there.
        if name == "pwrite" and len(arguments[1]) > 512:
            fd, data, offset = arguments
            real(fd, memoryview(data)[: len(data) // 2], offset)
        elif name == "_fallocate":
            fd, mode, offset, length = arguments
            real(fd, mode, offset, length // 2)

    def _fail(self, name: str, number: int) -> int:
        if name.startswith("_"):  # as the C library says it
            ctypes.set_errno(number)
            return -1
        raise OSError(number, os.strerror(number))

    @contextmanager
    def injected(self) -> Iterator[None]:
        reals = [(module, name, getattr(module, name)) for module, name in everything()]

        def spoiled(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *arguments, **named: self._called(name, real, arguments, named)

        for module, name, real in reals:
            setattr(module, name, spoiled(name, real))
        try:
            yield
        finally:
            for module, name, real in reals:
                setattr(module, name, real)


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


SCENARIOS |= {
    "appends": [
        lambda f: put(f, 0, pattern(CHUNK + 5, 1)),
        lambda f: f.sync(),
        lambda f: put(f, f.size, pattern(7, 2)),
        lambda f: f.flush(),
        lambda f: put(f, f.size, pattern(3 * CHUNK + 1, 3)),
        lambda f: f.flush(),
    ],
    "allocated": [
        lambda f: put(f, 0, pattern(CHUNK + 5, 1)),
        lambda f: f.allocate(0, 6 * CHUNK + 3),
        lambda f: f.flush(),
        lambda f: put(f, 3 * CHUNK, pattern(CHUNK, 2)),
        lambda f: f.sync(),
    ],
    "a checkpoint between": [
        lambda f: put(f, 0, pattern(3 * CHUNK, 1)),
        lambda f: f.sync(),
        lambda f: put(f, 9, pattern(CHUNK, 2)),
        lambda f: f.flush(),
        lambda f: cast(RedoLog, f._redo).checkpoint(),
        lambda f: put(f, CHUNK, pattern(CHUNK, 3)),
        lambda f: f.flush(),
    ],
}


class Bench:
    """A store folder with one file and a log."""

    def __init__(self, folder: Path) -> None:
        for old in folder.iterdir():
            old.unlink()
        self.store = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.redo = RedoLog(self.store, b"log")
        self.fd = os.open(folder / "file", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.file = new_file(self.fd, redo=self.redo, path=b"file")

    def mounted_again(self) -> None:
        """After a kill."""
        os.close(self.redo._fd)
        self.redo = RedoLog(self.store, b"log")
        assert all(not outcome.problem for outcome in self.redo.replay())

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


def calls(folder: Path, steps: list[Step]) -> range:
    """The numbers of the system calls."""
    bench, faults = Bench(folder), Faults(0, "")
    with faults.injected():
        for step in steps:
            step(bench.file)
    bench.close()
    return range(1, len(faults.seen) + 1)


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", ["EIO", "ENOSPC", "half then EIO", "short"])
def test_a_failed_call_is_raised_and_the_next_try_succeeds(tmp_path, name, kind):
    steps = SCENARIOS[name]
    expected = states(tmp_path, steps)
    for at in calls(tmp_path, steps):
        bench, faults = Bench(tmp_path), Faults(at, kind)
        raised = 0
        for number, step in enumerate(steps):
            where = f"step {number}, call {at}: {faults.seen[-1:]}"
            try:
                with faults.injected():
                    step(bench.file)
            except OSError:
                raised += 1
                assert bench.file.read(0, 1 << 20) in expected[number : number + 2], where
                step(bench.file)
            assert bench.file.read(0, 1 << 20) == expected[number + 1], where
        assert raised <= (kind != "short")
        bench.file.flush()
        again = reopened(bench.fd)
        again.verify()
        assert again.read(0, 1 << 20) == expected[-1], f"call {at}"
        again.close()
        bench.close()


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", ["EIO", "half then EIO"])
def test_what_a_failed_close_left_is_old_or_new(tmp_path, name, kind):
    """The file is closed after the failure, and opened again: by the same daemon, and after its death."""
    steps = SCENARIOS[name]
    expected = states(tmp_path, steps)
    for at in calls(tmp_path, steps):
        bench, faults = Bench(tmp_path), Faults(at, kind)
        number = flushed = 0
        with suppress(OSError), faults.injected():
            for number, step in enumerate(steps):
                step(bench.file)
                if not bench.file.dirty:
                    flushed = number + 1
        bench.file.give_up()
        bench.redo.finish(bench.fd)
        after = reopened(bench.fd, redo=bench.redo, path=b"file")
        after.verify()
        content = after.read(0, 1 << 20)
        assert content in expected[flushed : number + 2], f"call {at}, step {number}"
        after.write(CHUNK // 2, pattern(3 * CHUNK, 9))
        after.flush()
        content = after.read(0, 1 << 20)
        after.close()
        bench.mounted_again()
        again = reopened(bench.fd)
        again.verify()
        assert again.read(0, 1 << 20) == content
        again.close()
        bench.close()


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", ["kill", "half then kill", "kill after"])
def test_a_kill_leaves_the_old_state_or_the_new_one(tmp_path, name, kind):
    steps = SCENARIOS[name]
    expected = states(tmp_path, steps)
    for at in calls(tmp_path, steps):
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
        bench.mounted_again()
        after = reopened(bench.fd)
        after.verify()
        assert after.read(0, 1 << 20) in (flushed, expected[number + 1]), f"call {at}, step {number}"
        # And it can be worked with.
        after.write(CHUNK // 2, pattern(3 * CHUNK, 9))
        after.flush()
        after.verify()
        after.close()
        bench.close()


def killed_at_once(*_: object) -> None:
    raise Killed


KINDS = ["EIO", "ENOSPC", "half then EIO", "short", "kill", "half then kill", "kill after"]
LEFT: list[Step] = [
    lambda f: put(f, 5, pattern(2 * CHUNK, 2)),
    lambda f: f.truncate(5 * CHUNK + 1),
    lambda f: f.punch(0, 2 * CHUNK),
    lambda f: put(f, 2 * CHUNK, pattern(2 * CHUNK, 3)),
]


def left_in_the_log(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, bytes]:
    """A store whose daemon was killed with groups in the log, the last of which is not placed; and the content."""
    bench = Bench(folder)
    put(bench.file, 0, pattern(8 * CHUNK, 1))
    bench.file.sync()
    for step in LEFT:
        bench.file.flush()
        step(bench.file)
    content = bench.file.read(0, 1 << 20)
    with monkeypatch.context() as killed:
        killed.setattr(Group, "place", killed_at_once)
        with pytest.raises(Killed):
            bench.file.flush()
    os.close(bench.redo._fd)
    return bench, content


@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_that_fails_or_is_killed_is_made_again(tmp_path, monkeypatch, kind):
    at = 0
    while True:
        at += 1
        bench, content = left_in_the_log(tmp_path, monkeypatch)
        faults = Faults(at, kind)
        with suppress(OSError, Killed), faults.injected():
            RedoLog(bench.store, b"log").replay()
        for fd in map(int, os.listdir("/proc/self/fd")):
            with suppress(OSError):
                if os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path / "log"):
                    os.close(fd)
        bench.redo = RedoLog(bench.store, b"log")
        bench.redo.replay()
        after = reopened(bench.fd)
        after.verify()
        assert after.read(0, 1 << 20) == content, f"call {at}: {faults.seen[-1]}"
        after.close()
        bench.close()
        if len(faults.seen) < at:
            break
    assert at > 20


@pytest.mark.parametrize("kind", ["EIO", "ENOSPC", "half then EIO"])
def test_a_file_that_cannot_be_made_is_said(tmp_path, kind):
    for at in range(1, 10):
        fd = os.open(tmp_path / str(at), os.O_RDWR | os.O_CREAT)
        faults = Faults(at, kind)
        try:
            with faults.injected():
                new_file(fd).close()
            break
        except OSError:
            os.close(fd)
    assert at > 1
    assert len(faults.seen) == at - 1
    os.close(fd)


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(15))
def test_random_changes_with_random_faults(tmp_path, kind, seed):
    chooser = random.Random(seed)
    bench = Bench(tmp_path)
    model, flushed = bytearray(), b""
    for _ in range(25):
        step, after = random_change(chooser, model)
        faults = Faults(chooser.choice([0, 0, 1, 1, 2, 3, 4, 7, 12]), kind)
        try:
            with faults.injected():
                step(bench.file)
            model = after
        except OSError:
            step(bench.file)
            model = after
        except Killed:
            os.close(bench.file._fd)
            bench.mounted_again()
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
