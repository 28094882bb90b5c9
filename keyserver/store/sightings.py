"""Rows of what machines told of files: a sighting for each place, old copies that are not recorded yet, and what each
machine said of its mounts. All of it can be made again from the log, up to `position`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from keyserver.sightings import Moment, OldCopy, Seen, Sighting

_TOLD = """
SELECT record.position, chain.machine, record.seq, record.body FROM record JOIN chain ON chain.number = record.chain
WHERE record.position >= ? AND record.position < ?
    AND record.event IN (SELECT value FROM json_each(?)) AND chain.machine != ?
ORDER BY record.position
"""
_TIME_BEFORE = """
SELECT record.time FROM record JOIN chain ON chain.number = record.chain WHERE chain.machine = ? AND record.seq = ?
"""
_PENDING = """
SELECT place, file, label, known_generation, known_time, known_by, opened_generation, opened_time, opened_by, number
FROM old_copy
"""
_ADD = """
INSERT INTO old_copy (place, file, label, known_generation, known_time, known_by, opened_generation, opened_time,
    opened_by, found) VALUES (?,?,?,?,?,?,?,?,?,?)
"""


class Told(NamedTuple):
    """A machine's record in the log."""

    position: int
    machine: str
    seq: int
    body: str


class Pending(NamedTuple):
    """An old copy that is not recorded yet."""

    number: int
    old_copy: OldCopy


class MountRow(NamedTuple):
    """What a machine said of how it has the store."""

    machine: str
    store: str
    """The store it has, by one of the machines that have it."""
    crashes: tuple[tuple[float, float], ...] = ()
    """From when to when it may have recorded what did not last, newest last."""


class SightingRows:
    def __init__(self, connection: Connection) -> None:
        self._execute = connection.exec_driver_sql

    def position(self) -> int:
        """The first record that is not counted yet."""
        return int(self._execute("SELECT position FROM counted").scalar() or 0)

    def set_position(self, position: int) -> None:
        self._execute("INSERT OR REPLACE INTO counted (id, position) VALUES (1, ?)", (position,))

    def told(self, first: int, end: int, events: Iterable[str], without: str) -> list[Told]:
        """Records of these events at positions from `first` to before `end`, in the order of the log, but not those of
        the chain `without`."""
        rows = self._execute(_TOLD, (first, end, json.dumps(list(events)), without))
        return [Told(*row) for row in rows.fetchall()]

    def time_of(self, machine: str, seq: int) -> str | None:
        """Of a machine's record, as it says it."""
        found = self._execute(_TIME_BEFORE, (machine, seq)).scalar()
        return None if found is None else str(found)

    # ---- sightings -------------------------------------------------------------------------------------------------

    def at(self, places: Iterable[str]) -> Iterator[Sighting]:
        wanted = json.dumps(list(places))
        rows = self._execute("SELECT * FROM sighting WHERE place IN (SELECT value FROM json_each(?))", (wanted,))
        for row in rows.fetchall():
            yield Sighting(row[0], row[1], _seen(row[2:5]), _seen(row[5:8]), _moment(row[8:10]))

    def put(self, sightings: Sequence[Sighting]) -> None:
        none = None, None, None
        rows = [
            (one.place, one.file, *(one.known or none), *(one.opened or none), *(one.put or none[:2]))
            for one in sightings
        ]
        if rows:
            self._execute("INSERT OR REPLACE INTO sighting VALUES (?,?,?,?,?,?,?,?,?,?)", rows)

    def drop_empty(self, before: float) -> None:
        """Places of which nothing is known but that something was put there, or taken away, before then."""
        self._execute("DELETE FROM sighting WHERE known_generation IS NULL AND put_time < ?", (before,))

    # ---- old copies that are not recorded yet ----------------------------------------------------------------------

    def add_pending(self, old_copy: OldCopy, found: float) -> None:
        place, file, label, known, opened = old_copy
        self._execute(_ADD, (place, file, label, *known, *opened, found))

    def pending(self, until: float, limit: int) -> list[Pending]:
        """Found until then, oldest first."""
        rows = self._execute(f"{_PENDING} WHERE found <= ? ORDER BY number LIMIT ?", (until, limit))
        return [_pending(row) for row in rows]

    def pending_at(self, place: str) -> list[Pending]:
        return [_pending(row) for row in self._execute(f"{_PENDING} WHERE place = ?", (place,))]

    def any_pending(self) -> bool:
        return self._execute("SELECT 1 FROM old_copy LIMIT 1").scalar() is not None

    def drop_pending(self, number: int) -> None:
        self._execute("DELETE FROM old_copy WHERE number = ?", (number,))

    # ---- mounts ----------------------------------------------------------------------------------------------------

    def mount(self, machine: str) -> MountRow:
        row = self._execute("SELECT store, crashes FROM mount WHERE machine = ?", (machine,)).one_or_none()
        if row is None:
            return MountRow(machine, machine)
        return MountRow(machine, row[0], tuple((low, high) for low, high in json.loads(row[1])))

    def join_stores(self, machine: str, other: str) -> None:
        """The store of `machine` is found to be that of `other`, and so for all that have either."""
        old, new = self.mount(machine), self.mount(other)
        self.set_mount(old)
        self.set_mount(new)
        self._execute("UPDATE mount SET store = ? WHERE store = ?", (new.store, old.store))
        below = old.store + "/", old.store + "0"
        moved = "UPDATE OR IGNORE sighting SET place = ? || substr(place, ?) WHERE place >= ? AND place < ?"
        self._execute(moved, (new.store, len(old.store) + 1, *below))
        self._execute("DELETE FROM sighting WHERE place >= ? AND place < ?", below)

    def set_mount(self, row: MountRow) -> None:
        values = row.machine, row.store, json.dumps(row.crashes)
        self._execute("INSERT OR REPLACE INTO mount (machine, store, crashes) VALUES (?,?,?)", values)


def _seen(values: Sequence[object]) -> Seen | None:
    return None if values[0] is None else Seen(*values)  # type: ignore[arg-type]


def _moment(values: Sequence[object]) -> Moment | None:
    return None if values[0] is None else Moment(*values)  # type: ignore[arg-type]


def _pending(row: Sequence[object]) -> Pending:
    place, file, label, *rest = row
    return Pending(rest[6], OldCopy(place, file, label, Seen(*rest[:3]), Seen(*rest[3:6])))  # type: ignore[arg-type]
