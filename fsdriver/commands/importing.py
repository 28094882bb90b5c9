"""`fsdriver import`: bring an existing tree into the drive, sealed, verified, and only then deleted where it was.

Every file is written beside its name and renamed when it is whole, so an import that was interrupted is simply run
again: what is there and the same is skipped. The drive seals what this command writes, as it does for every program
without the plaintext view, and says a digest of what it holds, which is compared with the source.
"""

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import click

from fsdriver.commands.failure import CommandFailed
from fsdriver.commands.home import home_of
from fsdriver.content import MAGIC
from fsdriver.control import ControlError, ask
from fsdriver.exitcodes import ExitCode

_BLOCK = 1 << 20
_SUFFIX = ".grantfs-import"


@dataclass
class _Import:
    """One run: where to, what came of it."""

    home: Path
    delete: bool
    sealed: int = 0
    skipped: int = 0
    problems: list[str] = field(default_factory=list)
    folders: list[tuple[Path, Path, os.stat_result]] = field(default_factory=list)
    """Source, target and what the source was before anything in it was deleted; deeper ones later."""


@click.command("import")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--delete", is_flag=True, help="Delete each source file once its sealed copy was verified.")
@click.pass_context
def import_(context: click.Context, source: Path, target: Path, delete: bool) -> None:
    """Seal SOURCE (a file or a tree) as TARGET, a path in the drive that does not exist yet or was begun before."""
    run = _Import(home_of(context).path, delete)
    entries = list(_entries(source, target))
    total = sum(size for *_, size in entries)
    with click.progressbar(length=max(total, 1), label="Sealing", file=sys.stderr) as progress:
        for path, into, size in entries:
            try:
                _bring(run, path, into)
            except (OSError, ControlError) as exc:
                run.problems.append(f"{path}: {exc}")
            progress.update(size)
    _finish_folders(run)
    click.echo(f"{run.sealed} sealed, {run.skipped} were there already, {len(run.problems)} failed", err=True)
    for problem in run.problems:
        click.echo(f"  {problem}", err=True)
    if run.problems:
        raise CommandFailed(
            "not everything could be brought in; what could not is still where it was", ExitCode.CONFLICT
        )


def _entries(source: Path, target: Path) -> Iterator[tuple[Path, Path, int]]:
    """Source, target and size of everything below `source`, directories before what is in them."""
    found = source.lstat()
    yield source, target, found.st_size if stat.S_ISREG(found.st_mode) else 0
    if stat.S_ISDIR(found.st_mode):
        for entry in sorted(source.iterdir()):
            yield from _entries(entry, target / entry.name)


def _bring(run: _Import, source: Path, target: Path) -> None:
    found = source.lstat()
    if stat.S_ISDIR(found.st_mode):
        target.mkdir(mode=0o700, exist_ok=True)
        run.folders.append((source, target, found))
    elif stat.S_ISLNK(found.st_mode):
        _bring_link(run, source, target)
    elif stat.S_ISREG(found.st_mode):
        _bring_file(run, source, target, found)
    else:
        run.problems.append(f"{source}: only files, directories and symlinks are brought in")


def _bring_link(run: _Import, source: Path, target: Path) -> None:
    text = os.readlink(source)
    if target.is_symlink() and os.readlink(target) == text:
        run.skipped += 1
    else:
        os.symlink(text, target)
        _take_owner(source.lstat(), target)
        run.sealed += 1
    if run.delete:
        source.unlink()


def _bring_file(run: _Import, source: Path, target: Path, found: os.stat_result) -> None:
    if target.exists():
        if not _same(run, source, target):
            raise FileExistsError(f"{target} exists and holds something else")
        run.skipped += 1
    else:
        beside = target.with_name(target.name + _SUFFIX)
        with suppress(FileNotFoundError):
            beside.unlink()  # of an import that was interrupted
        with source.open("rb") as content, beside.open("xb", buffering=0) as sealed:
            while block := content.read(_BLOCK):
                view = memoryview(block)
                while view:
                    view = view[sealed.write(view) :]
            os.fsync(sealed.fileno())
            _take_owner(found, beside)
            os.chmod(beside, stat.S_IMODE(found.st_mode))
            os.utime(beside, ns=(found.st_atime_ns, found.st_mtime_ns))
        if not _same(run, source, beside):
            beside.unlink()
            raise OSError("what the drive holds is not what was read: it changed while it was brought in?")
        beside.rename(target)
        run.sealed += 1
    if run.delete:
        source.unlink()


def _same(run: _Import, source: Path, target: Path) -> bool:
    """Whether the drive holds just what `source` does."""
    digest = hashlib.sha256()
    with source.open("rb") as content:
        if content.read(len(MAGIC)) == MAGIC:
            return _same_bytes(source, target)  # a sealed file is kept as the sealed file it is
        content.seek(0)
        while block := content.read(_BLOCK):
            digest.update(block)
    answer = ask(run.home, "digest", file=str(target.absolute()))
    return bool(answer["sha256"] == digest.hexdigest())


def _same_bytes(source: Path, target: Path) -> bool:
    with source.open("rb") as one, target.open("rb") as other:
        while True:
            block = one.read(_BLOCK)
            if block != other.read(_BLOCK):
                return False
            if not block:
                return True


def _take_owner(found: os.stat_result, target: Path) -> None:
    if os.geteuid() == 0:
        os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)


def _finish_folders(run: _Import) -> None:
    """Modes and times last, deepest first: what is made inside changes them. Empty sources go where asked."""
    for source, into, found in reversed(run.folders):
        _take_owner(found, into)
        os.chmod(into, stat.S_IMODE(found.st_mode))
        os.utime(into, ns=(found.st_atime_ns, found.st_mtime_ns))
        if run.delete and not run.problems:
            with suppress(OSError):
                source.rmdir()
