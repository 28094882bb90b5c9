"""Facts and wrapped private keys of the server itself: name and value."""

from sqlalchemy import Connection, insert, select

from keyserver.errors import NotReady
from keyserver.store.schema import secret, setting


class SettingRows:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> bytes:
        """Raises `NotReady`: a server without its settings was not initialised to the end."""
        value = self._connection.scalar(select(setting.c.value).where(setting.c.name == name))
        if value is None:
            raise NotReady(f"the database has no setting {name}: `keyserver init` did not finish")
        return bytes(value)

    def put(self, name: str, value: bytes) -> None:
        self._connection.execute(insert(setting).values(name=name, value=value))

    def wrapped(self, name: str) -> bytes:
        """A private key under the root key. Raises `NotReady`."""
        value = self._connection.scalar(select(secret.c.wrapped).where(secret.c.name == name))
        if value is None:
            raise NotReady(f"the database has no key {name}: `keyserver init` did not finish")
        return bytes(value)

    def put_wrapped(self, name: str, wrapped: bytes) -> None:
        self._connection.execute(insert(secret).values(name=name, wrapped=wrapped))
