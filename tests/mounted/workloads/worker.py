"""A process that does file operations as it is told: `main` is what runs in it, `Worker` is how a test tells it.

Requests are pickled (operation, arguments), answers pickled outcomes, over the process's standard input and output.
"""

import mmap
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.mounted.posix.support import EXCHANGE, fallocate, pattern, renameat2

ROOT = Path(__file__).parents[3]
START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from tests.mounted.workloads.worker import main; main()"
FOLDERS = ("x", "y")
"""In the folder that a worker enters."""

Outcome = tuple[str, Any]
"""("is", what it gave), or ("errno", number)."""


def outcome(operations: object, operation: str, arguments: Sequence[object]) -> Outcome:
    """What an operation of an object gives, its OSError included."""
    try:
        return "is", getattr(operations, operation)(*arguments)
    except OSError as exc:
        return "errno", exc.errno


class Worker:
    """The process, as its starter sees it. `python` decides what a drive shows it."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, "-I", "-c", START, ROOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._process:  # the end of its input ends it
            pass

    def ask(self, operation: str, *arguments: object) -> Outcome:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((operation, arguments), self._process.stdin)
        self._process.stdin.flush()
        found: Outcome = pickle.load(self._process.stdout)
        return found


class Files:
    """The operations, on the files of one folder. Descriptors and mappings have the numbers that the caller gives."""

    def __init__(self) -> None:
        self._fds: dict[int, int] = {}
        self._mappings: dict[int, mmap.mmap] = {}

    def enter(self, folder: str) -> None:
        for inside in FOLDERS:
            os.makedirs(os.path.join(folder, inside), exist_ok=True)
        os.chdir(folder)

    def leave(self) -> None:
        """Whatever is open is closed, of a dead mount too."""
        os.chdir("/")
        for number in list(self._mappings):
            self.unmap(number)
        for number in list(self._fds):
            with suppress(OSError):
                self.close(number)

    # ---- names -------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return sorted(str(path) for path in Path().rglob("*") if not path.is_dir())

    def exchange_folders(self, one: str, other: str) -> None:
        renameat2(Path(one), Path(other), EXCHANGE)

    def stat(self, name: str) -> tuple[int, int]:
        """(size, links)."""
        found = os.stat(name)
        return found.st_size, found.st_nlink

    def rename(self, old: str, new: str, flags: int) -> None:
        renameat2(Path(old), Path(new), flags)

    def link(self, old: str, new: str) -> None:
        os.link(old, new)

    def unlink(self, name: str) -> None:
        os.unlink(name)

    def truncate_name(self, name: str, size: int) -> None:
        os.truncate(name, size)

    def content(self, name: str, anew: bool) -> bytes:
        """The whole file; `anew`: nothing of it from the kernel's cache."""
        with open(name, "rb") as file:
            if anew:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return file.read()

    # ---- descriptors -------------------------------------------------------------------------------------------

    def open(self, number: int, name: str, flags: int) -> None:
        self._fds[number] = os.open(name, flags, 0o644)

    def close(self, number: int) -> None:
        os.close(self._fds.pop(number))

    def fstat(self, number: int) -> tuple[int, int]:
        found = os.fstat(self._fds[number])
        return found.st_size, found.st_nlink

    def read(self, number: int, size: int) -> bytes:
        return os.read(self._fds[number], size)

    def pread(self, number: int, size: int, offset: int) -> bytes:
        return os.pread(self._fds[number], size, offset)

    def write(self, number: int, size: int, seed: int) -> int:
        return os.write(self._fds[number], pattern(size, seed))

    def pwrite(self, number: int, size: int, seed: int, offset: int) -> int:
        return os.pwrite(self._fds[number], pattern(size, seed), offset)

    def seek(self, number: int, offset: int, whence: int) -> int:
        return os.lseek(self._fds[number], offset, whence)

    def truncate(self, number: int, size: int) -> None:
        os.ftruncate(self._fds[number], size)

    def allocate(self, number: int, mode: int, offset: int, length: int) -> None:
        fallocate(self._fds[number], mode, offset, length)

    def copy(self, source: int, target: int, size: int, offset_from: int, offset_to: int) -> int:
        """Bytes that copy_file_range(2) moved, asked again until it has moved what was there at first."""
        size, done = max(0, min(size, self.fstat(source)[0] - offset_from)), 0
        while True:
            step = os.copy_file_range(
                self._fds[source], self._fds[target], size - done, offset_from + done, offset_to + done
            )
            done += step
            if not step or done == size:
                return done

    def sync(self, number: int, data_only: bool) -> None:
        (os.fdatasync if data_only else os.fsync)(self._fds[number])

    def forget(self, number: int) -> None:
        """The kernel drops what it has cached of the file."""
        os.fsync(self._fds[number])
        os.posix_fadvise(self._fds[number], 0, 0, os.POSIX_FADV_DONTNEED)

    # ---- mappings ----------------------------------------------------------------------------------------------

    def map(self, mapping: int, number: int, size: int) -> None:
        """The first `size` bytes, shared."""
        self._mappings[mapping] = mmap.mmap(self._fds[number], size)

    def map_read(self, mapping: int, offset: int, size: int) -> bytes:
        return self._mappings[mapping][offset : offset + size]

    def map_write(self, mapping: int, size: int, seed: int, offset: int) -> None:
        self._mappings[mapping][offset : offset + size] = pattern(size, seed)

    def map_sync(self, mapping: int) -> None:
        self._mappings[mapping].flush()

    def unmap(self, mapping: int) -> None:
        self._mappings.pop(mapping).close()


def main() -> None:
    files = Files()
    while True:
        try:
            operation, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        pickle.dump(outcome(files, operation, arguments), sys.stdout.buffer)
        sys.stdout.buffer.flush()
