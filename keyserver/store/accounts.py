"""Rows of admins, their API tokens, and join tokens."""

from typing import NamedTuple

from sqlalchemy import Connection, insert, select, update

from keyserver.store.schema import admin, api_token, join_token


class JoinTokenRow(NamedTuple):
    id: str
    digest: bytes
    logins: str
    """JSON object, uid to person."""
    created: float
    expires: float
    machine: str | None
    """The machine that used it."""


class AccountRows:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_admin(self, name: str, password_hash: str, now: float) -> None:
        self._connection.execute(insert(admin).values(name=name, password_hash=password_hash, created=now))

    def password_hash(self, name: str) -> str | None:
        return self._connection.scalar(select(admin.c.password_hash).where(admin.c.name == name))

    def add_api_token(self, token_id: str, name: str, digest: bytes, now: float) -> None:
        self._connection.execute(insert(api_token).values(id=token_id, admin=name, digest=digest, created=now))

    def api_tokens(self) -> dict[str, tuple[str, bytes]]:
        """Token id to (admin, digest)."""
        rows = self._connection.execute(select(api_token.c.id, api_token.c.admin, api_token.c.digest))
        return {row.id: (row.admin, row.digest) for row in rows}

    def add_join_token(self, token: JoinTokenRow) -> None:
        self._connection.execute(insert(join_token).values(**token._asdict()))

    def join_token(self, token_id: str) -> JoinTokenRow | None:
        row = self._connection.execute(select(join_token).where(join_token.c.id == token_id)).one_or_none()
        return None if row is None else JoinTokenRow(*row)

    def use_join_token(self, token_id: str, machine: str) -> None:
        self._connection.execute(update(join_token).where(join_token.c.id == token_id).values(machine=machine))
