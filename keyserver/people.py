"""Persons: who they are to policy, and what happens when they come, change and leave. One code path for each."""

import re
from collections.abc import Iterable

from keyserver.bundles import Bundles
from keyserver.changes import Change
from keyserver.errors import Conflict, Malformed, NotFound
from keyserver.store.people import PersonRow
from keyserver.store.rows import Rows

_NAME = re.compile(r"(service:)?[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_BELONGS = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


class People:
    """Changes of persons; each makes a new bundle, which is pushed."""

    def __init__(self, bundles: Bundles) -> None:
        self._bundles = bundles

    def add(
        self, change: Change, name: str, departments: Iterable[str], groups: Iterable[str], admin: str
    ) -> PersonRow:
        """Raises `Conflict` where the name is taken, `Malformed` where it is not a name."""
        person = PersonRow(name, True, frozenset(departments), frozenset(groups))
        if not _NAME.fullmatch(name):
            raise Malformed(f"{name!r} is not a name: letters, digits, . _ @ - (a service is service:NAME)")
        for each in person.departments | person.groups:
            if not _BELONGS.fullmatch(each):
                raise Malformed(f"{each!r} is not the name of a department or group")
        if name in change.rows.people.all():
            raise Conflict(f"there is a user {name} already")
        change.rows.people.add(name, person.departments, person.groups, change.now)
        belongs = f"departments={','.join(sorted(person.departments))} groups={','.join(sorted(person.groups))}"
        change.record("user-added", user=admin, detail=f"person={name} {belongs}")
        self._bundles.people_changed(change)
        return person

    def set_active(self, change: Change, name: str, active: bool, admin: str) -> PersonRow:
        """A disabled person has no rights from this moment on. Raises `NotFound`."""
        person = change.rows.people.all().get(name)
        if person is None:
            raise NotFound(f"there is no user {name}")
        if person.active != active:
            change.rows.people.set_active(name, active)
            change.record("user-enabled" if active else "user-disabled", user=admin, detail=f"person={name}")
            self._bundles.people_changed(change)
        return person._replace(active=active)


def require_people(rows: Rows, names: Iterable[str]) -> None:
    """Raises `NotFound` for the first name nobody has."""
    known = rows.people.all()
    for name in names:
        if name not in known:
            raise NotFound(f"there is no user {name}: `keyserver user add {name}` first")
