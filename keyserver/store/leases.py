"""Rows of leases: one per machine and label. Renewal writes nothing here; terms live in memory."""

from typing import NamedTuple

from sqlalchemy import Connection, insert, select, update

from keyserver.store.schema import lease


class LeaseRow(NamedTuple):
    id: str
    machine: str
    label: str
    state: str
    """"active", "ended" (the right to it went away) or "revoked" (until an admin restores it)."""
    changed: float


class LeaseRows:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> list[LeaseRow]:
        return [LeaseRow(*row) for row in self._connection.execute(select(lease).order_by(lease.c.changed))]

    def of_machine(self, machine: str) -> dict[str, LeaseRow]:
        """Label to lease."""
        rows = self._connection.execute(select(lease).where(lease.c.machine == machine))
        return {row.label: LeaseRow(*row) for row in rows}

    def get(self, lease_id: str) -> LeaseRow | None:
        row = self._connection.execute(select(lease).where(lease.c.id == lease_id)).one_or_none()
        return None if row is None else LeaseRow(*row)

    def add(self, row: LeaseRow) -> None:
        self._connection.execute(insert(lease).values(**row._asdict()))

    def set_state(self, lease_id: str, state: str, now: float) -> None:
        self._connection.execute(update(lease).where(lease.c.id == lease_id).values(state=state, changed=now))

    def revoke_machine(self, machine: str, now: float) -> int:
        """Revokes all of a machine's leases in one statement; how many there were."""
        done = self._connection.execute(
            update(lease)
            .where(lease.c.machine == machine, lease.c.state == "active")
            .values(state="revoked", changed=now)
        )
        return done.rowcount
