"""`fsdriver fsck`: whether the files of a store, or of a copy of one, are what they should be. Needs neither drive nor
server; with a key file everything is verified."""

import json
import os
import resource
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import click

from fsdriver.commands.failure import CommandFailed, reported
from fsdriver.commands.shown import end_shown, ranges_shown, shown
from fsdriver.content.checkup import SOUND, Checked, Unlock, Verdict, check
from fsdriver.content.keyfile import KeyFile
from fsdriver.content.tree import Found, walk
from fsdriver.exitcodes import ExitCode
from fsdriver.filesystem.store import MARK, StoreRefused
from fsdriver.filesystem.visit import CORNER, Leftovers, Visit

_RANGES = 5
"""Damaged ranges of one file that are listed for people."""
_PATH_COLUMNS, _BAR_COLUMNS = 28, 20
"""Of a terminal of 80; the rest is for percent and time."""
_BAD = (Verdict.DAMAGED, Verdict.WRONG_KEY, Verdict.BAD_ATTRIBUTES)


class _Report:
    """What is said about each file, and how many there were of each kind."""

    def __init__(self, as_json: bool, with_keys: bool) -> None:
        self.counts: Counter[Verdict] = Counter()
        self.stores = 0
        self._as_json = as_json
        self._with_keys = with_keys
        self._quiet = {Verdict.OK} if with_keys else {Verdict.OK, Verdict.STRUCTURE_OK}
        self._on_terminal = sys.stderr.isatty()

    def file(self, path: str, checked: Checked, moved: str | None = None) -> None:
        self.counts[checked.verdict] += 1
        if self._as_json:
            self._print(json.dumps(_facts(path, checked, moved)))
        elif checked.verdict not in self._quiet:
            said = [checked.reason] if checked.reason else []
            said += ["each chunk of it verifies"] if checked.ranges == () else []
            said += ranges_shown(list(checked.ranges or ()), _RANGES)
            said += [f"attribute {os.fsdecode(name)}" for name in checked.attributes]
            said += [f"moved to {moved}"] if moved else []
            line = f"{checked.verdict:14}  {shown(path)}"
            self._print(line + (": " + shown("; ".join(said)) if said else ""))

    def store(self, path: str, left: Leftovers) -> None:
        self.stores += 1
        if self._as_json:
            said = left._replace(strange=[_text(line) for line in left.strange])
            self._print(json.dumps({**_named("store", path), **said._asdict()}))
            return
        if left.mounted:
            self._note(f"{path}: a drive has it mounted; files may change while they are looked at")
        if left.groups:
            what = "the next mount makes them, and files may not verify before"
            self._note(f"{path}: changes that a crash left in redo logs: {left.groups}; {what}")
        if left.dropins:
            self._note(f"{path}: half-finished files in {CORNER}/incoming: {left.dropins}")
        for line in left.strange:
            self._note(f"{path}: passed over: {line}")

    def summary(self) -> str:
        files = self.counts.total()
        counted = ", ".join(f"{self.counts[verdict]} {verdict}" for verdict in Verdict if self.counts[verdict])
        return f"{files} file{'s' if files > 1 else ''}: {counted}" if files else "no files"

    def code(self) -> ExitCode:
        if any(self.counts[verdict] for verdict in _BAD):
            return ExitCode.VERIFICATION_FAILED
        if not self.counts and not self.stores:
            return ExitCode.FAILED  # a backup that is not there, for one
        sound = SOUND - {Verdict.STRUCTURE_OK} if self._with_keys else SOUND
        return ExitCode.OK if self.counts.keys() <= sound else ExitCode.FAILED

    @staticmethod
    def _note(line: str) -> None:
        click.echo(shown(line), err=True)

    def _print(self, line: str) -> None:
        if self._on_terminal:
            click.echo("\r\033[K", nl=False, err=True)  # where the progress bar stands
        try:
            click.echo(line)
        except OSError as exc:  # not the fault of the path that is being looked at
            _drop_output()
            raise CommandFailed(f"standard output: {exc.strerror}") from exc


def _drop_output() -> None:
    """What could not be written is not tried again at the end, where it would change the exit code."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    with suppress(OSError):  # a standard output that is no file
        os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _facts(path: str, checked: Checked, moved: str | None) -> dict[str, object]:
    return {
        **_named("path", path),
        "verdict": checked.verdict,
        "reason": checked.reason,
        "ranges": checked.ranges,
        "attributes": [name.decode(errors="replace") for name in checked.attributes],
        **_named("moved_to", moved),
    }


def _named(key: str, path: str | None) -> dict[str, object]:
    """A path for scripts. One that is no UTF-8 is no JSON text: it is told in hexadecimal besides, and is marked."""
    if path is None:
        return {key: None}
    name, text = os.fsencode(path), _text(path)
    return {key: text} if text.encode() == name else {key: text, f"{key}_hex": name.hex()}


def _text(path: str) -> str:
    return os.fsencode(path).decode(errors="replace")


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

    Without a key only the form of the files is checked. With it, contents and extended attributes are verified, and of
    a damaged file all bytes of the content that are not what they should be are listed. Nothing is written, but by
    --repair, which moves and never deletes, and leaves files that the given keys do not fit where they are.

    Ends with 7 if a file or an attribute is damaged or the key is another one; with 1 if a file is not sound, could not
    be read, or has no key in the file of keys, or if there is neither a file nor a store; else with 0.
    """
    if repair and key_file is None:
        raise CommandFailed("only with --key-file is it certain which files are damaged", ExitCode.USAGE)
    report = _Report(output == "json", key_file is not None)
    with ExitStack() as opened:
        opened.enter_context(_many_descriptors())
        unlock = None
        if key_file is not None:
            with reported(str(key_file)):
                unlock = KeyFile.load(key_file).unlock
        found = [(path, opened.enter_context(_opened(path))) for path in paths]
        try:
            for path, fd in found:
                _check_path(report, path, fd, unlock, repair)
        except KeyboardInterrupt:
            if report.counts:
                click.echo(f"\nstopped after {report.summary()}", err=True)
            raise
    click.echo(report.summary(), err=True)
    context.exit(report.code())


@contextmanager
def _many_descriptors() -> Iterator[None]:
    """Two are open for each folder on the way to a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    with reported(str(path)):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _check_path(report: _Report, path: Path, fd: int, unlock: Unlock | None, repair: bool) -> None:
    with reported(str(path)):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            _check_tree(report, path, fd, unlock, repair)
        elif repair:
            raise CommandFailed(f"{shown(path)}: only damaged files of a store are moved aside", ExitCode.USAGE)
        else:
            report.file(str(path), _checked(fd, unlock, None))


def _check_tree(report: _Report, path: Path, top: int, unlock: Unlock | None, repair: bool) -> None:
    with ExitStack() as held:
        visit = _visit(report, path, top, held)
        company = _company(report, path, visit) if visit is not None else None
        if repair:
            if visit is None:
                message = f"{shown(path)} is not the top of a store: there is no {CORNER} to move damaged files to"
                raise CommandFailed(message, ExitCode.USAGE)
            try:
                held.enter_context(visit.alone())
            except StoreRefused as exc:
                raise CommandFailed(shown(f"{path}: {exc}"), ExitCode.CONFLICT) from exc
        hidden = not sys.stderr.isatty()
        total = 1 if hidden else _count(top)
        bar = held.enter_context(
            click.progressbar(length=total, label="fsck", file=sys.stderr, hidden=hidden, width=_BAR_COLUMNS)
        )
        for found in held.enter_context(closing(walk(top, CORNER))):
            bar.label = "fsck " + end_shown(found.path, _PATH_COLUMNS)
            bar.render_progress()  # before a file that may take long
            _check_found(report, path, found, unlock, company, visit if repair else None)
            bar.update(1)


def _visit(report: _Report, path: Path, top: int, held: ExitStack) -> Visit | None:
    try:
        visit = Visit(top)
    except FileNotFoundError:
        return None
    except OSError as exc:  # a link, for one, which is not followed; or a copy that this user may not read as a whole
        report.file(str(path / CORNER), Checked(Verdict.UNREADABLE, exc.strerror or str(exc)))
        return None
    held.callback(visit.close)
    report.store(str(path), visit.leftovers())
    return visit


def _company(report: _Report, path: Path, visit: Visit) -> bytes | None:
    mark = str(path / CORNER / MARK)
    try:
        return visit.company()
    except ValueError as exc:
        report.file(mark, Checked(Verdict.DAMAGED, str(exc)))
    except OSError as exc:
        report.file(mark, Checked(Verdict.UNREADABLE, exc.strerror or str(exc)))
    return None


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
