"""A new file that a command makes: whole under its name, or not there at all."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fsdriver.content.backing import AT_FDCWD, RENAME_NOREPLACE, renameat2


@contextmanager
def new_file(path: Path) -> Iterator[int]:
    """A descriptor for writing; what was written is `path` once the block has ended without an exception.

    Raises FileExistsError, before the block is entered if `path` exists then; OSError, with its name.
    """
    if path.exists():
        raise FileExistsError(17, "File exists", str(path))
    part = path.with_name(f".grantfs-{secrets.token_hex(6)}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            yield fd
            with about(path):
                os.fsync(fd)
        finally:
            os.close(fd)
        with about(path):
            _name(part, path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


@contextmanager
def about(path: Path) -> Iterator[None]:
    """What goes wrong with a descriptor is told of the file that it writes to."""
    try:
        yield
    except OSError as exc:
        exc.filename, exc.filename2 = str(path), None
        raise


def _name(part: Path, path: Path) -> None:
    """Unlike rename(2), this never replaces a file that was made meanwhile."""
    try:
        os.link(part, path)
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        # A stick with FAT has no links.
        renameat2(AT_FDCWD, os.fsencode(part), AT_FDCWD, os.fsencode(path), RENAME_NOREPLACE)
