"""The machines that were enrolled: who they are, who works on them, and whether they may still ask for anything.

What requests need is in memory. Within a change the database is read instead: memory follows only after the commit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography import x509

from keyserver.ca.names import Peer, serial_hex
from keyserver.changes import Change
from keyserver.errors import Banned, Denied, NotFound
from keyserver.messages import Mode
from keyserver.store.machines import MachineRow
from keyserver.store.rows import Rows

ACTIVE = "active"
BANNED = "banned"


@dataclass(frozen=True, slots=True)
class Machine:
    """One enrolled machine."""

    id: str
    name: str
    mode: Mode
    state: str
    sealing_key: bytes
    enrolled: float
    serials: frozenset[str] = frozenset()
    """Serial numbers of certificates it was given, expired ones perhaps not among them."""
    logins: Mapping[int, str] = field(default_factory=dict)
    """uid to person, now."""
    persons_ever: frozenset[str] = frozenset()
    """Everyone who was ever mapped on it: its records may name them."""

    @property
    def banned(self) -> bool:
        return self.state == BANNED

    @property
    def persons(self) -> frozenset[str]:
        """Everyone mapped on it now."""
        return frozenset(self.logins.values())


class Machines:
    """All machines."""

    def __init__(self, rows: Rows) -> None:
        serials, logins = rows.machines.serials(), rows.machines.logins()
        self._machines: dict[str, Machine] = {}
        for row in rows.machines.all():
            mappings = logins.get(row.id, [])
            self._machines[row.id] = Machine(
                *row,
                serials=frozenset(serials.get(row.id, ())),
                logins={uid: person for uid, person, current in mappings if current},
                persons_ever=frozenset(person for _, person, _ in mappings),
            )
        self.last_seen: dict[str, float] = {}

    def __iter__(self) -> Iterator[Machine]:
        return iter(list(self._machines.values()))

    def get(self, machine_id: str) -> Machine:
        """Raises `NotFound`."""
        try:
            return self._machines[machine_id]
        except KeyError:
            raise NotFound(f"there is no machine {machine_id}") from None

    def admit(self, peer: Peer, now: float, *, even_banned: bool = False) -> Machine:
        """The machine behind a verified certificate, at every request anew. Raises `Banned` or `Denied`.

        TLS looks at a certificate's term once a connection, and at its revocation never.
        """
        machine = self._machines.get(peer.machine)
        if machine is None or peer.serial not in machine.serials:
            raise Denied("this server has not issued this certificate: enrol the machine")
        if machine.banned and not even_banned:
            raise Banned(f"machine {machine.name} was banned: ask your administrator")
        if not peer.not_before <= now < peer.not_after:
            raise Denied("the machine's certificate has expired: enrol the machine again")
        self.last_seen[machine.id] = now
        return machine

    def add(self, change: Change, row: MachineRow, logins: Mapping[int, str], certificate: x509.Certificate) -> None:
        change.rows.machines.add(row)
        for uid, person in logins.items():
            change.rows.machines.map_login(row.id, uid, person, change.now)
        machine = Machine(*row, logins=dict(logins), persons_ever=frozenset(logins.values()))
        change.afterwards(lambda: self._machines.update({row.id: machine}))
        self.add_certificate(change, row.id, certificate)

    def add_certificate(self, change: Change, machine_id: str, certificate: x509.Certificate) -> None:
        """From now on the machine may come with `certificate` as well."""
        serial = serial_hex(certificate.serial_number)
        term = certificate.not_valid_after_utc.timestamp()
        change.rows.machines.drop_expired_certificates(machine_id, change.now)
        change.rows.machines.add_certificate(serial, machine_id, term)
        serials = change.rows.machines.serials_of(machine_id)
        change.afterwards(lambda: self._replace(machine_id, serials=serials))
        change.record("certificate", detail=f"machine={machine_id} serial={serial}")

    def ban(self, change: Change, machine_id: str, admin: str) -> None:
        """At once: the next request and every open stream. Leases are revoked with it. Raises `NotFound`."""
        machine = self.get(machine_id)
        change.rows.machines.set_state(machine_id, BANNED)
        change.afterwards(lambda: self._replace(machine_id, state=BANNED))
        change.record("ban", user=admin, detail=f"machine={machine_id} name={machine.name}")
        change.announce("banned", machine_id)

    def map_login(self, change: Change, machine_id: str, uid: int, person: str, admin: str) -> None:
        """From now on `uid` is `person` there. Raises `NotFound`."""
        self.get(machine_id)
        change.rows.machines.map_login(machine_id, uid, person, change.now)

        def follow() -> None:
            machine = self._machines[machine_id]
            logins = {**machine.logins, uid: person}
            self._replace(machine_id, logins=logins, persons_ever=machine.persons_ever | {person})

        change.afterwards(follow)
        change.record("login-mapped", user=admin, detail=f"machine={machine_id} uid={uid} person={person}")
        change.announce("leases", machine_id)

    def _replace(self, machine_id: str, **changes: Any) -> None:
        self._machines[machine_id] = replace(self._machines[machine_id], **changes)
