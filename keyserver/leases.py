"""Label keys on loan: one lease per machine and label, for the term the label names.

Renewal writes nothing: the database says only which leases are active, ended (the right went away) or revoked (by an
admin, until restored); when they expire is in memory. A term that a restart forgot is over at its time all the same,
because the agent keeps it.
"""

import secrets
from collections.abc import Callable, Iterable
from typing import NamedTuple

from keyserver.bundles import Bundles
from keyserver.changes import Change
from keyserver.errors import NotFound
from keyserver.keys.labels import LabelKeys
from keyserver.machines import Machine
from keyserver.messages import LeaseGrant, Mode, SealedKey
from keyserver.sealing import Binding, seal
from keyserver.store.leases import LeaseRow
from keyserver.store.rows import Rows
from policy import Label

Sealers = Callable[[str, str], bool]
"""Whether a machine may have sealed files of a label, which is said by its qualified name."""

ACTIVE = "active"
ENDED = "ended"
REVOKED = "revoked"


class LeaseView(NamedTuple):
    """A lease as an admin sees it."""

    id: str
    machine: str
    label: str
    """Qualified name."""
    state: str
    expires: float | None
    """None where it has not been renewed since the server started."""


class Leases:
    """All leases."""

    def __init__(self, rows: Rows, bundles: Bundles, labels: LabelKeys, company: str) -> None:
        self._bundles = bundles
        self._labels = labels
        self._company = company
        self._leases: dict[str, dict[str, LeaseRow]] = {}
        for row in rows.leases.all():
            self._keep(row)
        self._expires: dict[str, float] = {}

    def wanted(self, machine: Machine, mode: Mode, now: float) -> dict[str, Label]:
        """Label id to label: all whose keys the machine may hold now, revoked leases left aside."""
        bundle = self._bundles.current.bundle
        found: dict[str, Label] = {}
        for label_id in bundle.entitled_labels(machine.persons, now):
            label = bundle.label_by_id(label_id)
            if label is None or label.per_file:
                continue
            if label.root_only and "user" in (mode, machine.mode):
                continue
            found[label_id.hex()] = label
        return found

    def settled(self, machine: Machine, wanted: Iterable[str]) -> bool:
        """Whether the rows already say that `wanted` is what the machine holds: then a renewal writes nothing."""
        wanted = set(wanted)
        rows = self._leases.get(machine.id, {}).values()
        active = {row.label for row in rows if row.state == ACTIVE}
        revoked = {row.label for row in rows if row.state == REVOKED}
        return active == wanted - revoked

    def settle(self, change: Change, machine: Machine, wanted: Iterable[str]) -> None:
        """Lends what is wanted and not revoked, ends what is no longer wanted."""
        wanted = set(wanted)
        rows = change.rows.leases.of_machine(machine.id)
        for label_id in sorted(wanted - rows.keys()):
            row = LeaseRow(secrets.token_hex(16), machine.id, label_id, ACTIVE, change.now)
            change.rows.leases.add(row)
            self._note(change, row, "lease", "")
        for label_id, row in rows.items():
            if label_id in wanted and row.state == ENDED:
                self._move(change, row, ACTIVE, "lease", "")
            elif label_id not in wanted and row.state == ACTIVE:
                self._move(change, row, ENDED, "lease-ended", "")

    def lend(self, machine: Machine, wanted: dict[str, Label], now: float) -> tuple[LeaseGrant, ...]:
        """The active leases among `wanted`, each with a new term and the label's keys sealed to the machine."""
        granted = []
        held = self._leases.get(machine.id, {})
        for label_id, label in wanted.items():
            row = held.get(label_id)
            if row is None or row.state != ACTIVE:
                continue
            key_id = self._labels.label(label_id).key_id
            keys = tuple(
                SealedKey(version, seal(key, machine.sealing_key, self._binding(machine.id, label_id, key_id, version)))
                for version, key in self._labels.versions(label_id).items()
            )
            expires = now + label.lease
            self._expires[row.id] = expires
            granted.append(LeaseGrant(row.id, label_id, key_id, keys, expires, label.offline))
        return tuple(granted)

    def revoke(self, change: Change, lease_id: str, admin: str) -> None:
        """At once, and until it is restored. Raises `NotFound`."""
        row = self._row(change, lease_id)
        if row.state != REVOKED:
            self._move(change, row, REVOKED, "revoke", admin)
            change.announce("revoked", row.machine)

    def restore(self, change: Change, lease_id: str, admin: str) -> None:
        """The machine may have this lease again, as policy says. Raises `NotFound`."""
        row = self._row(change, lease_id)
        if row.state == REVOKED:
            self._move(change, row, ENDED, "lease-restored", admin)
            change.announce("leases", row.machine)

    def revoke_machine(self, change: Change, machine_id: str, admin: str) -> None:
        """All leases of a machine that was banned."""
        count = change.rows.leases.revoke_machine(machine_id, change.now)
        change.record("revoke", user=admin, detail=f"machine={machine_id} leases={count}")

        def follow() -> None:
            for row in self._leases.get(machine_id, {}).values():
                if row.state == ACTIVE:
                    self._keep(row._replace(state=REVOKED))

        change.afterwards(follow)

    def sealers(self) -> Sealers:
        """Who may have sealed what: machines that have, or had, the label's keys; where keys are never lent, all."""
        ids = {label.qualified: label.id for label in list(self._labels.labels.values())}
        per_file = {label.id.hex() for label in self._bundles.current.bundle.labels if label.per_file}

        def may_have_sealed(machine: str, qualified: str) -> bool:
            label = ids.get(qualified)
            return label is not None and (label in per_file or label in self._leases.get(machine, {}))

        return may_have_sealed

    def list(self) -> list[LeaseView]:
        """All leases."""
        rows = [row for held in list(self._leases.values()) for row in held.values()]
        # fmt: off
        return [LeaseView(row.id, row.machine, self._labels.label(row.label).qualified, row.state,
                          self._expires.get(row.id) if row.state == ACTIVE else None) for row in rows]
        # fmt: on

    def _keep(self, row: LeaseRow) -> None:
        # A new dict each time: requests iterate the old one while the writer's thread comes by.
        self._leases[row.machine] = {**self._leases.get(row.machine, {}), row.label: row}

    def _row(self, change: Change, lease_id: str) -> LeaseRow:
        row = change.rows.leases.get(lease_id)
        if row is None:
            raise NotFound(f"there is no lease {lease_id}")
        return row

    def _move(self, change: Change, row: LeaseRow, state: str, event: str, admin: str) -> None:
        change.rows.leases.set_state(row.id, state, change.now)
        self._note(change, row._replace(state=state), event, admin)

    def _note(self, change: Change, row: LeaseRow, event: str, admin: str) -> None:
        change.record(event, user=admin, detail=f"lease={row.id} machine={row.machine} label={row.label}")
        change.afterwards(lambda: self._keep(row))

    def _binding(self, machine: str, label: str, key_id: str, version: int) -> Binding:
        return Binding("lease", self._company, machine, label, key_id, version)
