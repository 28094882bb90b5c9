"""Whole old files, seen by the key server: somebody put an older state of a file back, and no machine did.

A machine compares what it opens with what it saw itself; the server has all machines' records. It reads the log behind
the writer's back, a chunk at a time, and remembers for each path of a store the newest generation that was told
(`keyserver.sightings`). What is found waits a little, since the record that explains it may be on its way from another
machine; then it is in the log as `rollback-seen`. Rules and limits: docs/decisions/0035.

Runs in the writer's thread.
"""

import re
from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec

from keyserver.auditlog.log import SERVER
from keyserver.auditlog.records import rfc3339
from keyserver.changes import Change
from keyserver.leases import Sealers
from keyserver.machines import Machines
from keyserver.messages import SHARED_WITH, FilePath
from keyserver.sightings import SKEW, Moment, OldCopy, Seen, Sighting, before
from keyserver.store.sightings import Told

EVENT = "rollback-seen"
SETTLE = 30.0
"""Seconds from finding to recording: machines that are connected have sent their records by then."""
CHUNK = 2000
"""Records read in one change: some ten milliseconds of the writer's thread."""
MANY = 500
"""Old copies recorded in one change."""
FORGOTTEN_AFTER = 30 * 86_400.0
"""Seconds after which a place where nothing is known to lie is forgotten."""
LOST = 60.0
"""Seconds: what a machine closed so long before a power cut may not have reached the store's disk."""
_CLEANED_EVERY = 86_400.0
_CRASHES = 64
_LONGEST_PATH = 5000
"""Characters. Machines shorten longer ones (docs/audit-log.md 1)."""
_GENERATIONS = 1 << 63
_STORE = 32
"""Characters of a place before the path."""

_FOUND = frozenset({"rollback", "conflict"})
_PUTS = _FOUND | {"create", "rename", "delete", "accept"}
"""Events after which another state may lie at the path: a machine did it, or has recorded itself what it found."""
_TELLS = frozenset({"open", "close"})
_EVENTS = _PUTS | _TELLS | {"mount", "restart"}
_ID = re.compile(r"[0-9a-f]{32}")


class _Said(msgspec.Struct, gc=False):
    """What of a record counts here."""

    time: str
    event: str
    file: FilePath | None = None
    view: str = ""
    bytes_written: int = 0
    to: str = ""
    detail: str = ""


class OldCopies:
    """Counts the log's records, and records what they show."""

    def __init__(self, machines: Machines, sealers: Callable[[], Sealers]) -> None:
        self._machines = machines
        self._sealers = sealers
        self._decode = msgspec.json.Decoder(_Said).decode
        self._cleaned = 0.0

    def count(self, change: Change) -> bool:
        """Reads on in the log; whether there is more."""
        rows = change.rows.sightings
        first = rows.position()
        end = min(first + CHUNK, change.log.size)
        if first < end:
            enrolled = {machine.id for machine in self._machines}
            _Chunk(change, enrolled, self._sealers()).count(self._told(change, first, end))
            rows.set_position(end)
        return end < change.log.size

    def record(self, change: Change) -> None:
        """Records the old copies that have waited for long enough, and that nothing explains."""
        rows = change.rows.sightings
        for number, old_copy in rows.pending(change.now - SETTLE, MANY):
            rows.drop_pending(number)
            if not _explained(change, old_copy):
                _record(change, old_copy)
        if change.now - self._cleaned > _CLEANED_EVERY:
            self._cleaned = change.now
            rows.drop_empty(change.now - FORGOTTEN_AFTER)

    def _told(self, change: Change, first: int, end: int) -> list[tuple[Told, _Said, float]]:
        """Records that count, and when each was made. None of banned machines: whoever has them now invents what they
        like. None from the future: it would stand above everything that comes."""
        banned = {machine.id for machine in self._machines if machine.banned}
        found = []
        for told in change.rows.sightings.told(first, end, _EVENTS, SERVER):
            said = self._decode(told.body)
            time = _seconds(said.time)
            if told.machine not in banned and time is not None and time <= change.now + SKEW:
                found.append((told, said, time))
        return found


class _Chunk:
    """Some records, in the order of the log, and the sightings they change."""

    def __init__(self, change: Change, enrolled: set[str], sealers: Sealers) -> None:
        self._change = change
        self._rows = change.rows.sightings
        self._enrolled = enrolled
        self._may_have_sealed = sealers
        self._sightings: dict[str, Sighting] = {}
        self._stores: dict[str, str] = {}
        """Of machines."""
        self._files: list[tuple[str, float, _Said, FilePath, bool]] = []
        """Machine, time, record, its file, whether something was put there."""
        self._pending = self._rows.any_pending()

    def count(self, records: list[tuple[Told, _Said, float]]) -> None:
        for told, said, time in records:
            if said.event == "mount":
                self._mounted(told.machine, said.detail)
            elif said.event == "restart":
                self._restarted(told, time)
            elif said.file is not None:
                put = said.event in _PUTS or (
                    # A drop-in takes its name when it is closed, and the sealed file that it may be has another id.
                    said.event == "close" and said.view == "ciphertext" and said.bytes_written > 0
                )
                if put or (said.event in _TELLS and self._counts(told.machine, said, said.file)):
                    self._files.append((told.machine, time, said, said.file, put))
        self._sightings = {one.place: one for one in self._rows.at(self._places())}
        for machine, time, said, file, put in self._files:
            store = self._store(machine)
            if put:
                # What a machine finds it records after the open, and the later the more it has to look through.
                moment = Moment(time, "" if said.event in _FOUND else machine)
                self._put(store, file.path, moment)
                if said.event == "rename":
                    self._put(store, said.to, moment)
            else:
                self._tell(store + file.path, file, Seen(file.generation, time, machine), said.event == "open")
        self._rows.put(list(self._sightings.values()))

    def _counts(self, machine: str, said: _Said, file: FilePath) -> bool:
        """Whether an `open` or `close` shows a state of a file that the machine may know."""
        return (
            0 < file.generation < _GENERATIONS
            and not (said.event == "close" and said.detail)  # which says what did not reach the store
            and len(file.path) <= _LONGEST_PATH
            and _ID.fullmatch(file.id) is not None
            and self._may_have_sealed(machine, file.label)
        )

    def _places(self) -> set[str]:
        """All that the files' records are about."""
        places = {self._store(machine) + file.path for machine, _, _, file, _ in self._files}
        return places | {self._store(machine) + said.to for machine, _, said, _, _ in self._files if said.to}

    def _put(self, store: str, path: str, put: Moment) -> None:
        if not path or len(path) > _LONGEST_PATH:
            return
        place = store + path
        self._at(place).forget(put)
        if self._pending:
            for number, old_copy in self._rows.pending_at(place):
                if old_copy.excused(put):
                    self._rows.drop_pending(number)

    def _tell(self, place: str, file: FilePath, seen: Seen, opened: bool) -> None:
        found = self._at(place).tell(file.id, file.label, seen, opened=opened)
        if found is not None:
            self._rows.add_pending(found, self._change.now)
            self._pending = True

    def _at(self, place: str) -> Sighting:
        return self._sightings.setdefault(place, Sighting(place))

    def _store(self, machine: str) -> str:
        if machine not in self._stores:
            self._stores[machine] = self._rows.mount(machine).store
        return self._stores[machine]

    def _mounted(self, machine: str, detail: str) -> None:
        """A store has no name but its machines'. Who once shared one is not told apart again: whoever has the share can
        write, or remove, what machines find there."""
        others = _ID.findall(detail.rpartition(SHARED_WITH)[2]) if SHARED_WITH in detail else []
        for other in others:
            if other in self._enrolled and self._store(other) != self._store(machine):
                self._rows.join_stores(machine, other)
                self._stores.clear()

    def _restarted(self, told: Told, time: float) -> None:
        text = self._rows.time_of(told.machine, told.seq - 1)
        last = _seconds(text) if text is not None else None
        if last is not None:
            mount = self._rows.mount(told.machine)
            self._rows.set_mount(mount._replace(crashes=(*mount.crashes, (last - LOST, time))[-_CRASHES:]))


def _explained(change: Change, old_copy: OldCopy) -> bool:
    """Whether a power cut may have taken what was known, or the file have come with a folder that was moved."""
    rows, known = change.rows.sightings, old_copy.known
    if any(low <= known.time <= high for low, high in rows.mount(known.machine).crashes):
        return True
    moved = (folder.put for folder in rows.at(_folders(old_copy.place)))
    return any(put is not None and not before(put, known) for put in moved)


def _folders(place: str) -> Iterable[str]:
    """All folders above."""
    while place := place.rpartition("/")[0]:
        yield place


def _record(change: Change, old_copy: OldCopy) -> None:
    known, opened = old_copy.known, old_copy.opened
    change.record(
        EVENT,
        file=FilePath(old_copy.place[_STORE:], old_copy.file, old_copy.label, opened.generation),
        detail=f"opened-by={opened.machine} opened={rfc3339(opened.time)} newest={known.generation} "
        f"known-by={known.machine} known={rfc3339(known.time)}",
    )


def _seconds(time: str) -> float | None:
    """Since the epoch; None for a time that no calendar has."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return None
