"""Whole old files: whether what lies in the store is what this machine left there (docs/decisions/0029).

Each file has a line at its path: the commits, one after the other, that this machine made or met there. A file that is
met with an older commit than the last one was rolled back; with another commit of the same generation, or another file
than the one that was left, somebody changed it behind the drive's back. Either is recorded. Then what is there goes on
as the line, except an older commit under a label that says `rollback: refuse`: that one stays EIO until somebody puts
the right file there, or accepts it.

In a store that other machines use as well, files that were moved, copied or replaced are those machines' work, as far
as this one can tell: there only an older commit or a fork of the file that lay at the same path is somebody's doing.

Whoever serves a request only tells; a thread compares and remembers. What is told about one file is told in the order
in which it happened, under the file's lock.
"""

import ctypes
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from fsdriver.content import PEEK_SIZE, SealedFile, peek
from fsdriver.content.beneath import open_beneath
from fsdriver.errors import FileRolledBack, FsError, ViewRefused
from fsdriver.filesystem.corner import STATE_DIRECTORY
from fsdriver.filesystem.linebook import Linebook, State
from fsdriver.filesystem.recorder import Recorder
from fsdriver.identity import Caller
from fsdriver.nodes.inode import Inode
from fsdriver.views import Views

log = logging.getLogger(__name__)

_libc = ctypes.CDLL(None, use_errno=True)

_COMPARED_EVERY = 0.5
"""Seconds."""
_MANY = 4096
"""Told and not compared yet: the thread does not wait any longer."""
_TELLING = 0.02
"""Seconds within which who has changed something in the store has told of it."""
_KEPT_EVERY = 30.0
"""Seconds between commits of the book. Before each the store is synced, since a book that knows more than a power cut
has left of the files would call them rolled back."""
_CORNER = STATE_DIRECTORY + b"/"
_ASIDE = b"//"
"""A path that no file has, for the moment in which two exchange theirs."""


class Finding(NamedTuple):
    """What a file that was met is, if not what was left: a record's event and detail."""

    event: str
    detail: str
    older: bool
    left_at: bytes
    """Where it was left."""


class _Told(NamedTuple):
    """Something that is not compared or remembered yet."""

    change: Callable[[], None]
    paths: tuple[bytes, ...]
    by_drive: bool = True
    """Whether the drive has put, renamed or removed something at these paths."""
    folders: bool = False
    """Whether it also concerns what is below."""


class _Met(NamedTuple):
    path: bytes
    state: State
    caller: Caller
    label: str
    inode: Inode


class Lines(threading.Thread):
    """The lines of all files of a store. Every method but `run` and `stop` may be called from any thread."""

    def __init__(
        self, book: Linebook, store: int, recorder: Recorder, views: Views, used_by_others: Callable[[], bool]
    ) -> None:
        """`store`: a descriptor of its top directory. `used_by_others`: whether other machines have, or had, it."""
        super().__init__(name="lines", daemon=True)
        self._book = book
        self._store = store
        self._recorder = recorder
        self._views = views
        self._used_by_others = used_by_others
        self._told: deque[_Told] = deque()
        self._now: deque[_Told] = deque()
        """Of what was told, what is being compared."""
        self._lock = threading.Lock()
        """Held while something is compared or remembered."""
        self._wake = threading.Event()
        self._stopping = False
        self._changes = self._kept = 0
        """Told to the book in all, and of these made to last."""

    # ---- told by the drive -----------------------------------------------------------------------------------------

    def left(self, sealed: SealedFile) -> None:
        """The drive has committed, made or moved this file."""
        path, state = sealed.path, _state(sealed)
        if path.startswith(_CORNER):  # it is to take a name later
            return
        self._tell(_Told(lambda: self._book.put(path, state), (path,)))

    def gone(self, path: str) -> None:
        """A file has lost this name."""
        place = _in_store(path)
        self._tell(_Told(lambda: self._book.drop(place), (place,)))

    def moved(self, old: str, new: str, *, folder: bool) -> None:
        """A file or folder was renamed; there is nothing else at `new`."""
        before, after = _in_store(old), _in_store(new)
        self._tell(_Told(lambda: self._move(before, after, folder), (before, after), folders=folder))

    def exchanged(self, one: str, other: str, *, folders: tuple[bool, bool]) -> None:
        """What lay at `one` and `other` have exchanged their names. `folders`: which of the two were folders."""
        first, second = _in_store(one), _in_store(other)

        def exchange() -> None:
            if folders == (False, False):
                self._book.exchange(first, second)
            else:
                self._move(first, _ASIDE, folders[0])
                self._move(second, first, folders[1])
                self._move(_ASIDE, second, folders[0])

        self._tell(_Told(exchange, (first, second), folders=any(folders)))

    def met(self, sealed: SealedFile, caller: Caller, inode: Inode) -> None:
        """A file was unlocked. Errors: FileRolledBack, where its label refuses an old copy; it was recorded."""
        label = self._views.label_of(inode)
        if label is None:
            raise ViewRefused("no policy knows the file's label any more")
        met = _Met(sealed.path, _state(sealed), caller, label.qualified, inode)
        if label.rollback != "refuse":
            self._tell(_Told(lambda: self._compare(met), (met.path,), by_drive=False))
            return
        with self._lock:
            self._catch_up()
            try:
                self._require_no_older(met)
            except sqlite3.Error as exc:
                raise FileRolledBack(f"/{os.fsdecode(met.path)}: what was left there is not known: {exc}") from exc

    def _tell(self, told: _Told) -> None:
        self._told.append(told)
        if len(self._told) >= _MANY:
            self._wake.set()

    # ---- asked by an admin -----------------------------------------------------------------------------------------

    def remembered(self, path: str) -> list[str]:
        """The files with a line at `path` or below it."""
        place = _in_store(path)
        with self._lock:
            self._catch_up()
            found = [place] if self._book.at(place) is not None else []
            found += self._book.below(place)
        return ["/" + os.fsdecode(one) for one in found]

    def accept(self, path: str) -> str:
        """What lies at `path` begins a new line. What was remembered until now, for the record."""
        place = _in_store(path)
        with self._lock:
            self._catch_up()
            known = self._book.at(place)
            self._book.drop(place)
            self._changes += 1
        return f"generation {known.generation} was the newest known" if known is not None else ""

    # ---- comparing -------------------------------------------------------------------------------------------------

    def _compare(self, met: _Met) -> None:
        self._go_on(met, self._finding(met))

    def _require_no_older(self, met: _Met) -> None:
        finding = self._finding(met)
        if finding is not None and finding.older:
            self._record(met, finding)
            raise FileRolledBack(f"/{os.fsdecode(met.path)}: {finding.detail}")
        self._go_on(met, finding)

    def _go_on(self, met: _Met, finding: Finding | None) -> None:
        if finding is not None:
            self._record(met, finding)
            if finding.left_at != met.path:  # its line moves with it, and what was left here is still looked for
                self._book.exchange(finding.left_at, met.path)
        self._book.put(met.path, met.state)

    def _finding(self, met: _Met) -> Finding | None:
        known, place = self._book.at(met.path), met.path
        if known == met.state:
            return None
        other = known is not None and known.file_id != met.state.file_id
        if known is None or other:
            if self._used_by_others():
                return None  # another machine has moved, replaced or copied it
            known, place = self._moved(met)
        if known is None:  # new to this machine, or a copy, which begins a line of its own
            return _conflict("another file than the one that was left here", place) if other else None
        if met.state.generation < known.generation:
            detail = f"an old copy: generation {met.state.generation}, {known.generation} was left"
            return Finding("rollback", detail, older=True, left_at=place)
        if met.state.generation == known.generation and met.state.sum != known.sum:
            return _conflict(f"another state of generation {known.generation} than the one that was left", place)
        if place != met.path:
            return _conflict(f"moved here from /{os.fsdecode(place)}, and not by this drive", place)
        return None

    def _moved(self, met: _Met) -> tuple[State | None, bytes]:
        """Where the file was left, if it lies there no longer, and in which state."""
        for path, state in self._book.places(met.state.file_id):
            if path != met.path and not self._lies_at(path, met.state.file_id) and not self._about_to_hear_of(path):
                return state, path
        return None, met.path

    def _about_to_hear_of(self, path: bytes) -> bool:
        """Whether the drive itself has changed something at `path` since: what has been told is behind the store."""
        time.sleep(_TELLING)
        return any(
            path == changed or (told.folders and path.startswith(changed + b"/"))
            for told in (*self._now, *self._told.copy())
            if told.by_drive
            for changed in told.paths
        )

    def _lies_at(self, path: bytes, file_id: bytes) -> bool:
        """Whether the file is still where it was left: then this one is a copy of it, or another name."""
        try:
            fd = open_beneath(self._store, path, os.O_RDONLY | os.O_NOATIME)
        except (OSError, ValueError):
            return False
        try:
            return peek(os.read(fd, PEEK_SIZE)).file_id == file_id
        except (OSError, FsError):
            return False
        finally:
            os.close(fd)

    def _record(self, met: _Met, finding: Finding) -> None:
        path = "/" + os.fsdecode(met.path)
        if finding.older:
            log.warning("%s: %s", path, finding.detail)
        self._recorder.record(
            finding.event,
            met.caller,
            met.inode,
            path=path,
            label=met.label,
            generation=met.state.generation,
            detail=finding.detail,
        )

    def _move(self, old: bytes, new: bytes, folder: bool) -> None:
        if folder:
            self._book.move_folder(old, new)
        else:
            self._book.move(old, new)

    # ---- remembering -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        due = time.monotonic() + _KEPT_EVERY
        while not self._stopping:
            self._wake.wait(_COMPARED_EVERY)
            self._wake.clear()
            with self._lock:
                self._catch_up()
            if time.monotonic() >= due:
                self._keep()
                due = time.monotonic() + _KEPT_EVERY

    def stop(self) -> None:
        """Remember everything that was told, and end."""
        self._stopping = True
        self._wake.set()
        self.join()
        with self._lock:
            self._catch_up()
        self._keep()
        self._book.close()

    def _catch_up(self) -> None:
        """Everything that was told so far. The lock is held."""
        while self._told:
            told = [self._told.popleft() for _ in range(min(len(self._told), _MANY))]
            self._changes += len(told)
            self._now.extend(told)
            try:
                self._book.expect({path for one in told for path in one.paths})
                while self._now:
                    self._now.popleft().change()
                self._book.flush()
            except FsError as exc:
                log.warning("what was found about a file could not be recorded: %s", exc)
            except sqlite3.Error as exc:
                log.warning("what became of files is not remembered: %s", exc)

    def _keep(self) -> None:
        """Make it last: what was told before the store was synced."""
        for patience in (True, True, False):
            with self._lock:
                changes = self._changes
                if changes == self._kept:
                    return
                if not patience:
                    _libc.syncfs(self._store)
                    self._commit(changes)
                    return
            _libc.syncfs(self._store)
            with self._lock:
                if self._changes == changes:
                    self._commit(changes)
                    return

    def _commit(self, changes: int) -> None:
        try:
            self._book.commit()
        except sqlite3.Error as exc:
            log.warning("what became of files could not be made to last: %s", exc)
            return
        self._kept = changes


def _conflict(detail: str, left_at: bytes) -> Finding:
    return Finding("conflict", detail, older=False, left_at=left_at)


def _state(sealed: SealedFile) -> State:
    return State(sealed.header.file_id, sealed.generation, sealed.sum)


def _in_store(path: str) -> bytes:
    return os.fsencode(path[1:])
