"""A new file that a command makes: whole under its name, or not there at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def new_file(path: Path) -> Iterator[int]:
    """A descriptor for writing; what was written is `path` once the block has ended without an exception.

    Raises FileExistsError, before the block is entered if `path` exists then.
    """
    if path.exists():
        raise FileExistsError(17, "File exists", str(path))
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            yield fd
            os.fsync(fd)
        finally:
            os.close(fd)
        os.link(part, path)  # unlike rename, this never replaces a file made meanwhile
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
