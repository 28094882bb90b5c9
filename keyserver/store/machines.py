"""Rows of machines, their certificates and the persons mapped on them."""

from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from keyserver.messages import Mode
from keyserver.store.schema import certificate, login, machine


class MachineRow(NamedTuple):
    id: str
    name: str
    mode: Mode
    state: str
    """"active" or "banned"."""
    sealing_key: bytes
    enrolled: float


class MachineRows:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, row: MachineRow) -> None:
        self._connection.execute(insert(machine).values(**row._asdict()))

    def all(self) -> list[MachineRow]:
        return [MachineRow(*row) for row in self._connection.execute(select(machine).order_by(machine.c.enrolled))]

    def set_state(self, machine_id: str, state: str) -> None:
        self._connection.execute(update(machine).where(machine.c.id == machine_id).values(state=state))

    def add_certificate(self, serial: str, machine_id: str, not_after: float) -> None:
        self._connection.execute(insert(certificate).values(serial=serial, machine=machine_id, not_after=not_after))

    def drop_expired_certificates(self, machine_id: str, now: float) -> None:
        self._connection.execute(
            delete(certificate).where(certificate.c.machine == machine_id, certificate.c.not_after < now)
        )

    def serials_of(self, machine_id: str) -> frozenset[str]:
        query = select(certificate.c.serial).where(certificate.c.machine == machine_id)
        return frozenset(self._connection.scalars(query))

    def serials(self) -> dict[str, set[str]]:
        """Machine to the serial numbers (hex) of its certificates."""
        found: dict[str, set[str]] = {}
        for row in self._connection.execute(select(certificate.c.machine, certificate.c.serial)):
            found.setdefault(row.machine, set()).add(row.serial)
        return found

    def map_login(self, machine_id: str, uid: int, person: str, now: float) -> None:
        """From now on `uid` is `person`; who it was before stays known."""
        self._connection.execute(
            update(login)
            .where(login.c.machine == machine_id, login.c.uid == uid, login.c.until.is_(None))
            .values(until=now)
        )
        self._connection.execute(insert(login).values(machine=machine_id, uid=uid, person=person, since=now))

    def logins(self) -> dict[str, list[tuple[int, str, bool]]]:
        """Machine to (uid, person, whether the mapping is in force), oldest first."""
        found: dict[str, list[tuple[int, str, bool]]] = {}
        for row in self._connection.execute(select(login).order_by(login.c.number)):
            found.setdefault(row.machine, []).append((row.uid, row.person, row.until is None))
        return found
