"""What this machine last left of each file, in `states.db` of its home: path in the store, file id, generation, sum.

Nothing is lost for good when it is lost: a file that is not in it begins a new line.

The table is asked and told about many files in one statement: each statement lets go of the interpreter lock and takes
it again, which the threads that serve requests would feel. So rows are text (JSON is how SQLite takes many values at
once): paths with a character a byte, the others as hexadecimal digits.
"""

import json
import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_VERSION = 1
_TABLES = """
CREATE TABLE line (path TEXT PRIMARY KEY, file TEXT NOT NULL, generation INTEGER NOT NULL, sum TEXT NOT NULL)
    WITHOUT ROWID;
CREATE INDEX line_file ON line (file);
"""
_SELECT = "SELECT json_group_array(json_array(path, file, generation, sum)) FROM line"
_PLACES = 16
"""Of one file id: whoever copies a file a thousand times in the store does not make opening one of them slow."""


class State(NamedTuple):
    """One state of a file: its id (16 bytes), and generation and chunk sum (32 bytes) of its commit."""

    file_id: bytes
    generation: int
    sum: bytes


class Linebook:
    """The table, and what is not in it yet. Not thread-safe; what is told lasts from the next `commit` on.

    Errors: sqlite3.Error, everywhere.
    """

    def __init__(self, path: Path) -> None:
        """Opens or makes the book. One that is damaged, or of a newer program, is put aside: see `begun_anew`."""
        self.begun_anew = ""
        """Why what was remembered is not used."""
        try:
            self._table = _opened(path)
        except sqlite3.DatabaseError as exc:
            self.begun_anew = f"{path.name} cannot be used ({exc}) and was put aside"
            _put_aside(path)
            self._table = _opened(path)
        self._table.execute("BEGIN")
        self._known: dict[bytes, State | None] = {}
        """Some paths, as they are; newer than the table."""
        self._changed: set[bytes] = set()
        self._changed_files: dict[bytes, list[bytes]] = {}
        """File id -> paths where it was put since."""

    # ---- asking ----------------------------------------------------------------------------------------------------

    def expect(self, paths: Iterable[bytes]) -> None:
        """`at` will be asked about these."""
        asked = [path for path in paths if path not in self._known]
        self._known |= dict.fromkeys(asked)
        wanted = json.dumps([_text(path) for path in asked])
        self._known |= self._rows("WHERE path IN (SELECT value FROM json_each(?))", wanted)

    def at(self, path: bytes) -> State | None:
        """What was left at `path`."""
        if path not in self._known:
            self.expect([path])
        return self._known[path]

    def places(self, file_id: bytes) -> list[tuple[bytes, State]]:
        """Where the file was left."""
        rows = self._rows("WHERE path IN (SELECT path FROM line WHERE file = ? LIMIT ?)", file_id.hex(), _PLACES)
        found = {path: state for path, state in rows.items() if path not in self._changed}
        for path in self._changed_files.get(file_id, ()):
            state = self._known[path]
            if state is not None and state.file_id == file_id:
                found[path] = state
        return list(found.items())

    def below(self, folder: bytes) -> list[bytes]:
        """The paths below `folder` (b"" for the top), sorted."""
        self.flush()
        return sorted(self._rows("WHERE path >= ? AND path < ?", *_range(folder)))

    def _rows(self, which: str, *values: object) -> dict[bytes, State]:
        (found,) = self._table.execute(f"{_SELECT} {which}", values).fetchone()
        return {
            path.encode("latin-1"): State(bytes.fromhex(file), generation, bytes.fromhex(total))
            for path, file, generation, total in json.loads(found)
        }

    # ---- telling ---------------------------------------------------------------------------------------------------

    def put(self, path: bytes, state: State) -> None:
        self._known[path] = state
        self._changed.add(path)
        self._changed_files.setdefault(state.file_id, []).append(path)

    def drop(self, path: bytes) -> None:
        self._known[path] = None
        self._changed.add(path)

    def move(self, old: bytes, new: bytes) -> None:
        """The file at `old` lies at `new` now."""
        state = self.at(old)
        self.drop(old)
        self._set(new, state)

    def exchange(self, one: bytes, other: bytes) -> None:
        """The files at these two paths have each other's now."""
        first, second = self.at(one), self.at(other)
        self._set(one, second)
        self._set(other, first)

    def _set(self, path: bytes, state: State | None) -> None:
        if state is None:
            self.drop(path)
        else:
            self.put(path, state)

    def move_folder(self, old: bytes, new: bytes) -> None:
        """What was below `old` lies below `new` now, and nothing else does."""
        self.flush()
        self._table.execute("DELETE FROM line WHERE path >= ? AND path < ?", _range(new))
        self._table.execute(
            "UPDATE line SET path = ? || substr(path, ?) WHERE path >= ? AND path < ?",
            (_text(new), len(old) + 1, *_range(old)),
        )

    def flush(self) -> None:
        """Everything that was told is in the table."""
        here = [(path, state) for path in self._changed if (state := self._known[path]) is not None]
        gone = [_text(path) for path in self._changed if self._known[path] is None]
        if gone:
            self._table.execute("DELETE FROM line WHERE path IN (SELECT value FROM json_each(?))", (json.dumps(gone),))
        if here:
            rows = [(_text(path), state.file_id.hex(), state.generation, state.sum.hex()) for path, state in here]
            self._table.execute(
                "INSERT OR REPLACE INTO line SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 "
                "FROM json_each(?)",
                (json.dumps(rows),),
            )
        self._known.clear()
        self._changed.clear()
        self._changed_files.clear()

    def commit(self) -> None:
        self.flush()
        if self._table.in_transaction:  # after some errors, as of a full disk, SQLite has taken it back by itself
            self._table.execute("COMMIT")
        self._table.execute("BEGIN")

    def close(self) -> None:
        """What was told since the last `commit` is forgotten."""
        self._table.close()


def _text(path: bytes) -> str:
    """A character a byte, so that any name is text, and sorts as its bytes do."""
    return path.decode("latin-1")


def _range(folder: bytes) -> tuple[str, str]:
    return (_text(folder + b"/"), _text(folder + b"0")) if folder else ("", "\U0010ffff")


def _opened(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    table = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        table.execute("PRAGMA journal_mode = WAL")
        table.execute("PRAGMA synchronous = NORMAL")
        (version,) = table.execute("PRAGMA user_version").fetchone()
        if version == 0:
            table.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"its version is {version}, this program knows {_VERSION}")
        table.execute("SELECT path, file, generation, sum FROM line LIMIT 1").fetchone()
    except BaseException:
        table.close()
        raise
    return table


def _put_aside(path: Path) -> None:
    os.replace(path, path.with_name(path.name + ".damaged"))
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()
