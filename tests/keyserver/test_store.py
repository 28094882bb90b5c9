import sqlite3
import stat

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from keyserver.errors import Conflict, NotReady, SchemaNewer
from keyserver.home import Home
from keyserver.store import Store
from keyserver.store.schema import metadata


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keyserver.db"


def test_the_migrations_build_the_schema(path):
    store = Store(path)
    store.upgrade()
    store.upgrade()
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    store.close()


def test_a_newer_schema_is_refused(path):
    store = Store(path)
    store.upgrade()
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(SchemaNewer, match="9999"):
        Store(path).upgrade()
    with pytest.raises(SchemaNewer):
        Store(path, read_only=True).require_current()


def test_readers_want_a_database_that_is_one(path):
    with pytest.raises(NotReady, match="init"):
        Store(path, read_only=True)
    path.write_bytes(b"")
    with pytest.raises(NotReady, match="init"):
        Store(path, read_only=True).require_current()
    path.write_bytes(b"this is not a database, whatever it is called" * 100)
    with pytest.raises(NotReady, match="cannot be read"):
        Store(path).upgrade()


def test_a_reader_cannot_write(company):
    reader = Store(company.founded.home.database, read_only=True)
    reader.require_current()
    with reader.read() as rows, pytest.raises(Exception, match="readonly"):
        rows.settings.put("x", b"y")
    reader.close()


def test_the_home_is_private(founded):
    files = [founded.home.path, *founded.home.path.rglob("*")]
    assert len(files) > 5
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


def test_a_home_is_not_made_twice(founded):
    with pytest.raises(Conflict, match="already holds"):
        founded.home.create()


def test_one_process_serves_a_home(founded):
    with founded.home.locked(), pytest.raises(Conflict, match="another process"), founded.home.locked():
        pass


def test_a_home_without_a_server_says_so(tmp_path):
    home = Home(tmp_path / "none")
    with pytest.raises(NotReady, match="init"):
        home.config()
    with pytest.raises(NotReady, match="serve"):
        home.addresses()
