"""Whole old files, seen by the key server: somebody put an older state of a file back, and no machine did.

A machine compares what it opens with what it saw itself; the server has all machines' records. It reads the log behind
the writer's back, a chunk at a time, and remembers for each path the newest generation that was told
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
from keyserver.store.sightings import MountRow, Told

EVENT = "rollback-seen"
SETTLE = 30.0
"""Seconds from finding to recording: machines that are connected have sent their records by then."""
CHUNK = 2000
"""Records read in one change: some ten milliseconds of the writer's thread."""
MANY = 500
"""Old copies recorded in one change."""
FORGOTTEN_AFTER = 30 * 86_400.0
"""Seconds after which a path where nothing is known to lie is forgotten. Later news of before then is not explained."""
LOST = 60.0
"""Seconds: what a machine closed so long before a power cut may not have reached the store's disk."""
_CLEANED_EVERY = 86_400.0
_CRASHES = 64
_LONGEST_PATH = 5000
"""Characters. Machines shorten longer ones (docs/audit-log.md 1)."""
_GENERATIONS = 1 << 63

_FOUND = frozenset({"rollback", "conflict"})
_PUTS = _FOUND | {"create", "rename", "delete", "accept"}
"""Events after which another state may lie at the path: a machine did it, or has recorded itself what it found."""
_EVENTS = _PUTS | {"open", "close", "mount", "restart"}
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
            _Chunk(change, self._sealers()).count(self._told(change, first, end))
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

    def __init__(self, change: Change, sealers: Sealers) -> None:
        self._change = change
        self._rows = change.rows.sightings
        self._may_have_sealed = sealers
        self._sightings: dict[str, Sighting] = {}
        self._pending = self._rows.any_pending()

    def count(self, records: list[tuple[Told, _Said, float]]) -> None:
        paths = {path for _, said, _ in records for path in (said.file.path if said.file else "", said.to) if path}
        self._sightings = {one.path: one for one in self._rows.at(paths)}
        for told, said, time in records:
            if said.event == "mount":
                self._mounted(told.machine, said.detail)
            elif said.event == "restart":
                self._restarted(told, time)
            elif said.file is not None:
                self._file(told.machine, said, said.file, time)
        self._rows.put(list(self._sightings.values()))

    def _file(self, machine: str, said: _Said, file: FilePath, time: float) -> None:
        # A drop-in takes its name when it is closed, and the sealed file that it may be has another id.
        if said.event in _PUTS or (said.event == "close" and said.view == "ciphertext" and said.bytes_written):
            # What a machine finds it records after the open, and the later the more it has to look through.
            put = Moment(time, "" if said.event in _FOUND else machine)
            self._put(file.path, put)
            if said.event == "rename":
                self._put(said.to, put)
        elif said.event == "open" or (said.event == "close" and not said.detail):  # which says what was not kept
            if not (_ID.fullmatch(file.id) and 0 < file.generation < _GENERATIONS and len(file.path) <= _LONGEST_PATH):
                return
            if self._may_have_sealed(machine, file.label):
                seen = Seen(file.generation, time, machine)
                found = self._at(file.path).tell(file.id, file.label, seen, opened=said.event == "open")
                if found is not None:
                    self._rows.add_pending(found, self._change.now)
                    self._pending = True

    def _put(self, path: str, put: Moment) -> None:
        if not path or len(path) > _LONGEST_PATH:
            return
        self._at(path).forget(put)
        if self._pending:
            for number, old_copy in self._rows.pending_at(path):
                if old_copy.excused(put):
                    self._rows.drop_pending(number)

    def _at(self, path: str) -> Sighting:
        return self._sightings.setdefault(path, Sighting(path))

    def _mounted(self, machine: str, detail: str) -> None:
        others = tuple(_ID.findall(detail.rpartition(SHARED_WITH)[2])) if SHARED_WITH in detail else ()
        self._rows.set_mount(self._rows.mount(machine)._replace(others=others))

    def _restarted(self, told: Told, time: float) -> None:
        text = self._rows.time_of(told.machine, told.seq - 1)
        last = _seconds(text) if text is not None else None
        if last is not None:
            mount = self._rows.mount(told.machine)
            self._rows.set_mount(mount._replace(crashes=(*mount.crashes, (last - LOST, time))[-_CRASHES:]))


def _explained(change: Change, old_copy: OldCopy) -> bool:
    """Whether it may be another store's file, what a power cut took, or have come with a folder that was moved."""
    rows, known, opened = change.rows.sightings, old_copy.known, old_copy.opened
    mount = rows.mount(known.machine)
    if not (known.machine == opened.machine or _together(mount, rows.mount(opened.machine))):
        return True
    if any(low <= known.time <= high for low, high in mount.crashes):
        return True
    moved = (folder.put for folder in rows.at(_folders(old_copy.path)))
    return any(put is not None and not before(put, known) for put in moved)


def _together(one: MountRow, other: MountRow) -> bool:
    """Whether two machines have the same store: who came later says so."""
    return one.machine in other.others or other.machine in one.others


def _folders(path: str) -> Iterable[str]:
    """All folders above."""
    while path := path.rpartition("/")[0]:
        yield path


def _record(change: Change, old_copy: OldCopy) -> None:
    known, opened = old_copy.known, old_copy.opened
    change.record(
        EVENT,
        file=FilePath(old_copy.path, old_copy.file, old_copy.label, opened.generation),
        detail=f"opened-by={opened.machine} opened={rfc3339(opened.time)} newest={known.generation} "
        f"known-by={known.machine} known={rfc3339(known.time)}",
    )


def _seconds(time: str) -> float | None:
    """Since the epoch; None for a time that no calendar has."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return None
