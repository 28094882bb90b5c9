"""Rows of persons, and the departments and groups they belong to."""

from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from keyserver.store.schema import membership, person


class PersonRow(NamedTuple):
    name: str
    active: bool
    departments: frozenset[str]
    groups: frozenset[str]


class PeopleRows:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, name: str, departments: frozenset[str], groups: frozenset[str], now: float) -> None:
        self._connection.execute(insert(person).values(name=name, active=1, created=now))
        self.set_memberships(name, departments, groups)

    def set_memberships(self, name: str, departments: frozenset[str], groups: frozenset[str]) -> None:
        self._connection.execute(delete(membership).where(membership.c.person == name))
        rows = [{"person": name, "kind": "department", "name": each} for each in sorted(departments)]
        rows += [{"person": name, "kind": "group", "name": each} for each in sorted(groups)]
        if rows:
            self._connection.execute(insert(membership), rows)

    def set_active(self, name: str, active: bool) -> None:
        self._connection.execute(update(person).where(person.c.name == name).values(active=int(active)))

    def all(self) -> dict[str, PersonRow]:
        """Name to person, in the order of names."""
        belongs: dict[tuple[str, str], set[str]] = {}
        for row in self._connection.execute(select(membership)):
            belongs.setdefault((row.person, row.kind), set()).add(row.name)
        return {
            row.name: PersonRow(
                row.name,
                bool(row.active),
                frozenset(belongs.get((row.name, "department"), ())),
                frozenset(belongs.get((row.name, "group"), ())),
            )
            for row in self._connection.execute(select(person).order_by(person.c.name))
        }
