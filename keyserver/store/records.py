"""Rows of the log: records, the head of each machine's chain, the tree over all records, checkpoints.

Ingest is the one hot path to the database, so it speaks plain SQL in bulk (decisions/0021).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, insert, select

from keyserver.store.schema import chain, checkpoint, record, subtree

Stored = tuple[int, int, int, str, str, str, str, str, bytes, str]
"""position, chain, seq, time, event, person, path, file, leaf, body"""

_INSERT = "INSERT INTO record VALUES (?,?,?,?,?,?,?,?,?,?)"
_SET_TREE = "INSERT INTO tree (id, size, roots) VALUES (1,?,?) ON CONFLICT (id) DO UPDATE SET size=?, roots=?"
_SET_HEAD = "UPDATE chain SET seq=?, value=? WHERE number=?"


class Head(NamedTuple):
    """The end of one machine's chain."""

    number: int
    machine: str
    seq: int
    value: bytes


class RecordFilter(NamedTuple):
    """What `audit list` asks for; None stands for any."""

    machine: str | None = None
    """The id, or its beginning."""
    user: str | None = None
    event: str | None = None
    since: str | None = None
    """RFC 3339 as in records."""
    file: str | None = None
    """A path in the drive, or a file id."""
    limit: int | None = None
    """The newest so many."""


class RecordRows:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def head(self, machine: str) -> Head:
        """The machine's chain, begun where there was none."""
        row = self._connection.execute(select(chain).where(chain.c.machine == machine)).one_or_none()
        if row is None:
            added = self._connection.execute(insert(chain).values(machine=machine, seq=0, value=bytes(32)))
            (number,) = added.inserted_primary_key or (0,)
            return Head(number, machine, 0, bytes(32))
        return Head(*row)

    def heads(self) -> list[Head]:
        return [Head(*row) for row in self._connection.execute(select(chain))]

    def set_head(self, head: Head) -> None:
        self._connection.exec_driver_sql(_SET_HEAD, (head.seq, head.value, head.number))

    def tree(self) -> tuple[int, bytes]:
        """Size, and the roots of the complete subtrees that make it up, largest first, 32 bytes each."""
        row = self._connection.exec_driver_sql("SELECT size, roots FROM tree").one_or_none()
        return (0, b"") if row is None else (row[0], row[1])

    def set_tree(self, size: int, roots: bytes) -> None:
        self._connection.exec_driver_sql(_SET_TREE, (size, roots, size, roots))

    def add(self, rows: Sequence[Stored], subtrees: Sequence[tuple[int, int, bytes]]) -> None:
        self._connection.exec_driver_sql(_INSERT, list(rows))
        if subtrees:
            self._connection.exec_driver_sql("INSERT INTO subtree VALUES (?,?,?)", list(subtrees))

    def bodies(self, number: int, first: int, last: int) -> list[str]:
        """The stored records `first` to `last` of a chain."""
        query = select(record.c.body).where(record.c.chain == number, record.c.seq.between(first, last))
        return list(self._connection.scalars(query.order_by(record.c.seq)))

    def stream(self) -> Iterator[Stored]:
        """Every record in the order of the log."""
        query = select(record).order_by(record.c.position).execution_options(yield_per=1000)
        for row in self._connection.execute(query):
            yield tuple(row)

    def select(self, wanted: RecordFilter) -> Iterator[str]:
        """Canonical bodies of the records asked for, oldest first."""
        query = select(record.c.position, record.c.body)
        if wanted.machine is not None:
            query = query.join(chain, chain.c.number == record.c.chain).where(
                chain.c.machine.startswith(wanted.machine, autoescape=True)
            )
        if wanted.user is not None:
            query = query.where(record.c.person == wanted.user)
        if wanted.event is not None:
            query = query.where(record.c.event == wanted.event)
        if wanted.since is not None:
            query = query.where(record.c.time >= wanted.since)
        if wanted.file is not None:
            query = query.where((record.c.path == wanted.file) | (record.c.file == wanted.file))
        if wanted.limit is not None:
            newest = query.order_by(record.c.position.desc()).limit(wanted.limit).subquery()
            query = select(newest.c.position, newest.c.body).order_by(newest.c.position)
        else:
            query = query.order_by(record.c.position)
        for row in self._connection.execute(query.execution_options(yield_per=1000)):
            yield row.body

    def leaves(self, first: int, count: int) -> list[bytes]:
        query = select(record.c.leaf).where(record.c.position >= first, record.c.position < first + count)
        return list(self._connection.scalars(query.order_by(record.c.position)))

    def subtree(self, height: int, place: int) -> bytes | None:
        return self._connection.scalar(
            select(subtree.c.value).where(subtree.c.height == height, subtree.c.place == place)
        )

    def subtrees(self) -> dict[tuple[int, int], bytes]:
        return {(row.height, row.place): row.value for row in self._connection.execute(select(subtree))}

    def add_checkpoint(self, size: int, note: str, now: float) -> None:
        self._connection.execute(insert(checkpoint).values(size=size, note=note, time=now))

    def checkpoints(self) -> list[tuple[int, str]]:
        """(size, signed note), oldest first."""
        rows = self._connection.execute(select(checkpoint.c.size, checkpoint.c.note).order_by(checkpoint.c.size))
        return [(row.size, row.note) for row in rows]

    def newest_checkpoint(self) -> str:
        """ "" before the first."""
        return self._connection.scalar(select(checkpoint.c.note).order_by(checkpoint.c.size.desc()).limit(1)) or ""
