"""Opening, upgrading, reading and writing the database: SQLite through SQLAlchemy Core.

One process writes, through one connection (`keyserver.changes`); any process reads. WAL lets readers and the writer go
on side by side; `synchronous=FULL` makes a commit durable before anything that depends on it leaves the server.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection as SQLiteConnection

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError

from keyserver.errors import NotReady, SchemaNewer
from keyserver.store.rows import Rows

BUSY_MS = 10_000


class Store:
    """One database file. Raises `NotReady` where it cannot be opened, `SchemaNewer` where it is from the future."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if read_only and not path.exists():
            raise NotReady(f"{path} is not there: run `keyserver init` first")
        self.path = path
        mode = "ro" if read_only else "rwc"
        self.engine = create_engine(f"sqlite:///file:{path}?mode={mode}&uri=true")
        event.listen(self.engine, "connect", _read_only if read_only else _durable)
        event.listen(self.engine, "begin", _begin)
        if not read_only:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    @contextmanager
    def read(self) -> Iterator[Rows]:
        """One consistent snapshot."""
        with self.engine.connect() as connection, connection.begin():
            yield Rows(connection)

    def connect(self) -> Connection:
        """The writer's connection: its transactions take the lock before they read."""
        return self.engine.connect().execution_options(grantfs_writes=True)

    def upgrade(self) -> None:
        """Brings the schema to this program's version. Raises `SchemaNewer` where it is ahead of it."""
        with _alembic(self.engine) as (config, script, revision):
            if revision is not None:
                _known(script, revision)
            if revision != script.get_current_head():
                command.upgrade(config, "head")

    def require_current(self) -> None:
        """Raises `NotReady` or `SchemaNewer` unless the schema is exactly this program's. For readers."""
        with _alembic(self.engine) as (_, script, revision):
            if revision is None:
                raise NotReady(f"{self.path} holds no schema: run `keyserver init` first")
            _known(script, revision)
            if revision != script.get_current_head():
                raise NotReady(f"{self.path} has an older schema: start `keyserver serve` once to upgrade it")

    def close(self) -> None:
        self.engine.dispose()

    def remove(self) -> None:
        """Takes the database away again: `init` did not finish."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)


@contextmanager
def _alembic(engine: Engine) -> Iterator[tuple[Config, ScriptDirectory, str | None]]:
    config = Config()
    config.set_main_option("script_location", "keyserver.store:migrations")
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            script = ScriptDirectory.from_config(config)
            yield config, script, MigrationContext.configure(connection).get_current_revision()
    except DatabaseError as exc:
        raise NotReady(f"the database cannot be read: {exc.orig}") from None


def _known(script: ScriptDirectory, revision: str) -> None:
    if revision not in {known.revision for known in script.walk_revisions()}:
        raise SchemaNewer(
            f"the database has schema {revision}, which this version does not know: install the newer one"
        )


# The driver must not open transactions on its own: it would begin them late and deferred, and a read that turns into
# a write in mid-transaction fails with SQLITE_BUSY at once, whatever the timeout.
def _durable(connection: SQLiteConnection, _: object) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    connection.execute("PRAGMA page_size=8192")  # counts only before the first table; fewer, larger writes at ingest
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=2000")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA cache_size=-16000")


def _read_only(connection: SQLiteConnection, _: object) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    connection.execute("PRAGMA query_only=ON")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("grantfs_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
