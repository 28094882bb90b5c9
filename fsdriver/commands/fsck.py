"""`fsdriver fsck`: whether the files of a store, or of a copy of one, are what they should be. Needs neither drive nor
server; with a key file everything is verified."""

import json
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import click

from fsdriver.commands.failure import CommandFailed, reported
from fsdriver.content.checkup import SOUND, Checked, Unlock, Verdict, check
from fsdriver.content.keyfile import KeyFile
from fsdriver.content.tree import Found, walk
from fsdriver.exitcodes import ExitCode
from fsdriver.filesystem.store import MARK, StoreRefused
from fsdriver.filesystem.visit import CORNER, Leftovers, Visit


class _Report:
    """What is said about each file, and how many there were of each kind."""

    def __init__(self, as_json: bool, with_keys: bool) -> None:
        self.counts: Counter[Verdict] = Counter()
        self._as_json = as_json
        self._with_keys = with_keys
        self._quiet = {Verdict.OK} if with_keys else {Verdict.OK, Verdict.STRUCTURE_OK}
        self._on_terminal = sys.stderr.isatty()

    def file(self, path: str, checked: Checked, moved: str | None = None) -> None:
        verdict, reason = checked
        self.counts[verdict] += 1
        if self._as_json:
            self._print(json.dumps({"path": path, "verdict": verdict, "reason": reason, "moved_to": moved}))
        elif verdict not in self._quiet:
            line = f"{verdict:14}  {_shown(path)}" + (f": {reason}" if reason else "")
            self._print(line + (f"; moved to {_shown(moved)}" if moved else ""))

    def store(self, path: str, left: Leftovers) -> None:
        if self._as_json:
            self._print(json.dumps({"store": path, **left._asdict()}))
            return
        if left.mounted:
            click.echo(f"{_shown(path)}: a drive has it mounted; files may change while they are looked at", err=True)
        if left.groups:
            what = "the next mount makes them, and files may not verify before"
            click.echo(f"{_shown(path)}: changes that a crash left in redo logs: {left.groups}; {what}", err=True)
        if left.dropins:
            click.echo(f"{_shown(path)}: half-finished files in {CORNER}/incoming: {left.dropins}", err=True)

    def summary(self) -> str:
        files = self.counts.total()
        counted = ", ".join(f"{self.counts[verdict]} {verdict}" for verdict in Verdict if self.counts[verdict])
        return f"{files} file{'s' if files > 1 else ''}: {counted}" if files else "no files"

    def code(self) -> ExitCode:
        if self.counts[Verdict.DAMAGED] or self.counts[Verdict.WRONG_KEY]:
            return ExitCode.VERIFICATION_FAILED
        sound = SOUND - {Verdict.STRUCTURE_OK} if self._with_keys else SOUND
        return ExitCode.OK if self.counts.keys() <= sound else ExitCode.FAILED

    def _print(self, line: str) -> None:
        if self._on_terminal:
            click.echo("\r\033[K", nl=False, err=True)  # where the progress bar stands
        click.echo(line)


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
@click.option("--key-file", type=click.Path(path_type=Path), help="JSON file with label or file keys: verify contents.")
@click.option("--repair", is_flag=True, help="Move damaged files to .grantfs/damaged; needs --key-file, and no mount.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="table: what is not ok; json: every file, an object a line.",
)
@click.pass_context
def fsck(context: click.Context, paths: tuple[Path, ...], key_file: Path | None, repair: bool, output: str) -> None:
    """Check each PATH: a store, a copy of one, a folder, or a single sealed file.

    Without a key only the form of the files is checked. Nothing is written, but by --repair, which moves and never
    deletes, and leaves files that the given keys do not fit where they are. Ends with 7 if a file is damaged or its key
    is another one, with 1 if one is not sound, could not be read, or has no key in the file of keys.
    """
    if repair and key_file is None:
        raise CommandFailed("only with --key-file is it certain which files are damaged", ExitCode.USAGE)
    report = _Report(output == "json", key_file is not None)
    with ExitStack() as opened:
        unlock = None
        if key_file is not None:
            with reported(str(key_file)):
                unlock = KeyFile.load(key_file).unlock
        found = [(path, opened.enter_context(_opened(path))) for path in paths]
        for path, fd in found:
            with reported(str(path)):
                if not stat.S_ISDIR(os.fstat(fd).st_mode):
                    if repair:
                        raise CommandFailed(f"{path}: only damaged files of a store are moved aside", ExitCode.USAGE)
                    report.file(str(path), _checked(fd, unlock, None))
                else:
                    _check_tree(report, path, fd, unlock, repair)
    click.echo(report.summary(), err=True)
    context.exit(report.code())


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    with reported(str(path)):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _check_tree(report: _Report, path: Path, top: int, unlock: Unlock | None, repair: bool) -> None:
    with ExitStack() as held:
        visit, company = None, None
        try:
            visit = Visit(top)
            held.callback(visit.close)
        except (FileNotFoundError, NotADirectoryError):
            if repair:
                message = f"{path} is not the top of a store: there is no {CORNER} to move damaged files to"
                raise CommandFailed(message, ExitCode.USAGE) from None
        if visit is not None:
            report.store(str(path), visit.leftovers())
            try:
                company = visit.company()
            except ValueError as exc:
                report.file(str(path / CORNER / MARK), Checked(Verdict.DAMAGED, str(exc)))
            if repair:
                try:
                    held.enter_context(visit.alone())
                except StoreRefused as exc:
                    raise CommandFailed(f"{path}: {exc}", ExitCode.CONFLICT) from exc
        total = _count(top) if sys.stderr.isatty() else 1
        bar = held.enter_context(
            click.progressbar(length=total, label="fsck", file=sys.stderr, hidden=not sys.stderr.isatty())
        )
        for found in held.enter_context(closing(walk(top, CORNER))):
            _check_found(report, path, found, unlock, company, visit if repair else None)
            bar.update(1)


def _count(top: int) -> int:
    with closing(walk(top, CORNER)) as files:
        return sum(1 for _ in files) or 1


def _check_found(
    report: _Report, top: Path, found: Found, unlock: Unlock | None, company: bytes | None, visit: Visit | None
) -> None:
    """`visit`: where to move the file if it is damaged."""
    path, moved = str(top / found.path), None
    if found.problem:
        report.file(path, Checked(Verdict.UNREADABLE, found.problem))
        return
    try:
        fd = found.open()
    except FileNotFoundError:
        return  # deleted meanwhile
    except OSError as exc:
        report.file(path, Checked(Verdict.UNREADABLE, exc.strerror or str(exc)))
        return
    try:
        checked = _checked(fd, unlock, company)
        if checked.verdict is Verdict.DAMAGED and visit is not None:
            try:
                moved = str(top / visit.set_aside(found, fd))
            except OSError as exc:
                checked = checked._replace(reason=f"{checked.reason}; it could not be moved: {exc.strerror}")
        report.file(path, checked, moved)
    finally:
        os.close(fd)


def _checked(fd: int, unlock: Unlock | None, company: bytes | None) -> Checked:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return Checked(Verdict.UNREADABLE, "not a regular file")
    return check(fd, unlock, company)


def _shown(path: str) -> str:
    """`path` with whatever could fool a terminal or its reader written as an escape."""
    return "".join(letter if letter.isprintable() and letter != "\\" else _escape(letter) for letter in path)


def _escape(letter: str) -> str:
    number = ord(letter)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"  # a byte that is no UTF-8
    return letter.encode("unicode_escape").decode()
