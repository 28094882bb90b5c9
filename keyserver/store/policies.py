"""Rows of uploaded policies, the signed bundles made of them, and the push events that announce change."""

from typing import NamedTuple

from sqlalchemy import Connection, func, insert, select

from keyserver.store.schema import bundle, policy, push


class BundleRow(NamedTuple):
    number: int
    time: float
    policy: int
    document: bytes
    signature: bytes


class PolicyRow(NamedTuple):
    number: int
    time: float
    author: str
    files: str
    """JSON object, file name to YAML text."""


class PolicyRows:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_policy(self, files: str, author: str, now: float) -> int:
        """The new policy's number."""
        number = (self._connection.scalar(select(func.max(policy.c.number))) or 0) + 1
        self._connection.execute(insert(policy).values(number=number, time=now, author=author, files=files))
        return number

    def newest_policy(self) -> PolicyRow | None:
        row = self._connection.execute(select(policy).order_by(policy.c.number.desc()).limit(1)).one_or_none()
        return None if row is None else PolicyRow(*row)

    def add_bundle(self, row: BundleRow) -> None:
        self._connection.execute(insert(bundle).values(**row._asdict()))

    def newest_bundle(self) -> BundleRow | None:
        row = self._connection.execute(select(bundle).order_by(bundle.c.number.desc()).limit(1)).one_or_none()
        return None if row is None else BundleRow(*row)

    def add_push(self, kind: str, machine: str, now: float) -> int:
        """The event's number, one more than the last; `machine` "" stands for all."""
        number = (self._connection.scalar(select(func.max(push.c.number))) or 0) + 1
        self._connection.execute(insert(push).values(number=number, time=now, kind=kind, machine=machine))
        return number

    def pushes(self) -> list[tuple[str, int, str]]:
        """(machine, number, kind) of each machine's newest event; machine "" stands for all."""
        newest = select(push.c.machine, func.max(push.c.number).label("number")).group_by(push.c.machine).subquery()
        rows = self._connection.execute(select(push).join(newest, push.c.number == newest.c.number))
        return [(row.machine, row.number, row.kind) for row in rows]
