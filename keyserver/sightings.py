"""What machines told of the file at one place, and when that cannot be: an old copy that no machine put there.

Pure. Records come late and in any order, so times count, which machines take from the server; what two machines say
within `SKEW` of each other happened in either order. Rules and limits: docs/decisions/0035.
"""

from dataclasses import dataclass
from typing import NamedTuple

SKEW = 15.0
"""Seconds by which the times of two machines may differ: how long a sync may take, and what an offline week drifts."""
STEP = 1.0
"""Seconds by which one machine's time may go back when it hears the server again."""


class Moment(NamedTuple):
    """Something that a machine recorded. Times are seconds since the epoch."""

    time: float
    machine: str


class Seen(NamedTuple):
    """A state of a file, and the record that showed it."""

    generation: int
    time: float
    machine: str


class OldCopy(NamedTuple):
    """A file was opened in an older state than it was known to have at this place."""

    place: str
    """As in `Sighting`."""
    file: str
    label: str
    """Qualified name."""
    known: Seen
    opened: Seen

    def excused(self, put: Moment) -> bool:
        """Whether what a machine put there, or took away, may have come between the two."""
        return not before(put, self.known) and not before(self.opened, put)


def before(one: Moment | Seen, other: Moment | Seen) -> bool:
    """Whether `one` certainly happened before `other`."""
    return one.time + (STEP if one.machine == other.machine else SKEW) < other.time


@dataclass(slots=True)
class Sighting:
    """A place, and the file that was seen there last."""

    place: str
    """A store, and a path in it."""
    file: str = ""
    known: Seen | None = None
    """Its newest generation, and the earliest record that shows this one."""
    opened: Seen | None = None
    """The newest open: a close that comes late may have been before it."""
    put: Moment | None = None
    """When a machine last put something here, took it away, or said itself that it changed. For a folder: moved it."""

    def forget(self, put: Moment) -> None:
        """What was known before `put` says nothing about what lies here now."""
        if self.put is None or put.time > self.put.time:
            self.put = put
        if self.known is not None and not before(self.put, self.known):
            self.known = None
        if self.opened is not None and not before(self.put, self.opened):
            self.opened = None

    def tell(self, file: str, label: str, seen: Seen, *, opened: bool) -> OldCopy | None:
        """A record shows `file` here. What is found is told once: the place goes on from what was opened."""
        if self.put is not None and not before(self.put, seen):
            return None
        if file != self.file:
            if any(seen.time <= other.time for other in (self.known, self.opened) if other is not None):
                return None
            self.file, self.known, self.opened = file, None, None
        if self.known is None or (seen.generation, -seen.time) > (self.known.generation, -self.known.time):
            self.known = seen
        if opened and (self.opened is None or seen.time > self.opened.time):
            self.opened = seen
        for one in (seen if opened else None, self.opened):
            if one is not None and one.generation < self.known.generation and before(self.known, one):
                found = OldCopy(self.place, file, label, self.known, one)
                self.forget(Moment(one.time, one.machine))
                self.opened = self.opened or one
                self.known = max(one, self.opened)
                return found
        return None
