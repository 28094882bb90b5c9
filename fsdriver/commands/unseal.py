"""`fsdriver unseal`: the content of a sealed file, with nothing but the file and a key (docs/threat-model.md P7)."""

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import click

from fsdriver.commands.failure import CommandFailed, reported
from fsdriver.commands.newfile import new_file
from fsdriver.content import SealedFile
from fsdriver.content.keyfile import KeyFile
from fsdriver.exitcodes import ExitCode

_STEP = 1 << 20


def open_regular(path: Path) -> int:
    """A descriptor of the regular file at `path`, for reading. Raises CommandFailed and OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise CommandFailed(f"{path} is not a regular file")
    return fd


def open_sealed(path: Path, keys: KeyFile) -> SealedFile:
    """The sealed file at `path`, for reading. Raises CommandFailed, FsError and OSError."""
    fd = open_regular(path)
    try:
        return SealedFile.open(fd, keys.unlock)
    except BaseException:
        os.close(fd)
        raise


@click.command("unseal")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key-file", required=True, type=click.Path(path_type=Path), help="JSON file with label or file keys.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write to this new file instead of standard output."
)
def unseal(file: Path, key_file: Path, output: Path | None) -> None:
    """Decrypt the sealed FILE; needs neither the drive nor the key server.

    The whole file is verified before its first byte is written.
    """
    with reported(str(file)):
        keys = KeyFile.load(key_file)
        sealed = open_sealed(file, keys)
        try:
            sealed.verify()
            if sealed.overlong:
                click.echo(f"{file}: bytes behind the end of the content are left out", err=True)
            if output is None:
                if sys.stdout.isatty():
                    raise CommandFailed("the content goes to a file or a pipe: use -o FILE", ExitCode.USAGE)
                _copy(sealed, lambda data: _write_all(sys.stdout.fileno(), data))
            else:
                _copy_to(sealed, output)
        finally:
            sealed.close()


def _copy_to(sealed: SealedFile, output: Path) -> None:
    """Makes `output` with the whole content, or not at all."""
    with new_file(output) as fd:
        _copy(sealed, lambda data: _write_all(fd, data), lambda size: os.lseek(fd, size, os.SEEK_CUR))
        os.ftruncate(fd, sealed.size)


def _copy(sealed: SealedFile, write: Callable[[memoryview], None], skip: Callable[[int], object] | None = None) -> None:
    """Hands the content to `write` in order; holes go to `skip` where there is one."""
    buffer = memoryview(bytearray(_STEP))
    bar = click.progressbar(length=sealed.size, label="unseal", file=sys.stderr, hidden=not sys.stderr.isatty())
    with bar:
        at = 0
        while at < sealed.size:
            data = _next_data(sealed, at) if skip else at
            if skip and data > at:
                skip(data - at)
            else:
                size = sealed.read_into(at, buffer)
                write(buffer[:size])
                data = at + size
            bar.update(data - at)
            at = data


def _next_data(sealed: SealedFile, at: int) -> int:
    try:
        return sealed.seek(at, os.SEEK_DATA)
    except OSError:
        return sealed.size


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
