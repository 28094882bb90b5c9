"""SQLite and PostgreSQL with many writers, who all end where they stand: what was committed is there, and whole."""

import os
import pwd
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.mounted.mounted import LISTED, listed, remove, run, temporary_directory, wait_until
from tests.mounted.workloads.conftest import Place

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

# ---- SQLite --------------------------------------------------------------------------------------------------------

ACCOUNTS, WRITERS, COMMITS = 20, 4, 300
SETUP = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1])
print(base.execute(f'pragma journal_mode={sys.argv[2]}').fetchone()[0])
base.execute('create table account (n integer primary key, money integer, text)')
base.execute('create table done (writer integer)')
base.executemany('insert into account values (?, 1000, ?)', [(n, 'x' * 3000) for n in range(int(sys.argv[3]))])
base.commit()
"""
WRITER = """
import random, sqlite3, sys
base = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=100)
writer, accounts = int(sys.argv[2]), range(int(sys.argv[3]))
chance = random.Random(writer)
while True:
    one, other = chance.sample(accounts, 2)
    base.execute('begin immediate')
    base.execute('update account set money = money - 7 where n = ?', (one,))
    base.execute('update account set money = money + 7, text = text || ? where n = ?', ('y' * 50, other))
    base.execute('insert into done values (?)', (writer,))
    base.execute('commit')
    print('committed', flush=True)
"""
READER = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], timeout=100)
while True:
    print(base.execute('select sum(money) from account').fetchone()[0], flush=True)
"""
RESULT = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], timeout=100)
print(*[row[0] for row in base.execute('pragma integrity_check')])
print(base.execute('select sum(money) from account').fetchone()[0])
for row in base.execute('select writer, count(*) from done group by writer order by writer'): print(*row)
"""


@contextmanager
def started(script: str, base: Path, said: Path, *arguments: object) -> Iterator[None]:
    """A listed program at work on a database, killed at the end; what it said is in `said`."""
    with (
        said.open("wb") as out,
        subprocess.Popen(
            [LISTED, "-I", "-c", script, base, *map(str, arguments)], stdout=out, stderr=subprocess.DEVNULL
        ) as process,
    ):
        try:
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_sqlite_keeps_what_it_committed(place: Place, mode: str, tmp_path: Path) -> None:
    base = place.folder / "base"
    reports = [tmp_path / str(writer) for writer in range(WRITERS)]

    def committed() -> list[int]:
        return [len(report.read_text().splitlines()) for report in reports]

    assert listed(SETUP, base, mode, ACCOUNTS).strip() == mode
    with ExitStack() as stack:
        for writer, report in enumerate(reports):
            stack.enter_context(started(WRITER, base, report, writer, ACCOUNTS))
        stack.enter_context(started(READER, base, tmp_path / "sums"))
        wait_until(lambda: sum(committed()) >= COMMITS and (tmp_path / "sums").stat().st_size)
        place.interrupted()
    verdict, total, *counts = listed(RESULT, base).splitlines()
    assert (verdict, total) == ("ok", str(1000 * ACCOUNTS))
    assert set((tmp_path / "sums").read_text().splitlines()) == {total}
    kept = {int(writer): int(count) for writer, count in map(str.split, counts)}
    for writer, told in enumerate(committed()):
        # One more may have been committed and not yet reported.
        assert kept.get(writer, 0) in (told, told + 1)


# ---- PostgreSQL ----------------------------------------------------------------------------------------------------

POSTGRES = Path("/usr/lib/postgresql/15/bin")
SUMS = (
    "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),"
    " (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)"
)


class Cluster:
    """One server, as user postgres, its data in a place, its socket and log outside."""

    def __init__(self, data: Path, aside: Path) -> None:
        self.data = data
        self.aside = aside
        user = pwd.getpwnam("postgres")
        for folder in (data, aside):
            folder.mkdir(mode=0o700)
            os.chown(folder, user.pw_uid, user.pw_gid)

    def command(self, program: str, *arguments: object) -> list[str]:
        environment = ["env", "-i", f"PATH={os.defpath}", f"HOME={self.aside}", "LC_ALL=C.UTF-8"]
        become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        return [*become, *environment, str(POSTGRES / program), *map(str, arguments)]

    def run(self, program: str, *arguments: object) -> str:
        return run(self.command(program, *arguments), timeout=200, cwd=Path("/"))

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self.aside}"
        self.run("pg_ctl", "-D", self.data, "-o", options, "-l", self.aside / "log", "-w", "start")

    def ask(self, question: str) -> str:
        become = self.command("psql")[:-1]
        return run([*become, "psql", "-h", self.aside, "-X", "-A", "-t", "-c", question, "postgres"], cwd=Path("/"))

    def benchmark(self, *arguments: object) -> list[str]:
        return self.command("pgbench", "-h", self.aside, "-n", *arguments, "postgres")

    def end_at_once(self, cause: Callable[[], None]) -> None:
        """A cause, and then all its processes end where they are."""
        first = int(listed("import sys; print(open(sys.argv[1]).readline())", self.data / "postmaster.pid"))
        everybody = [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]
        cause()
        for pid in everybody:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in everybody))


@pytest.fixture
def cluster(place: Place) -> Iterator[Cluster]:
    directory = temporary_directory()
    cluster = Cluster(place.folder / "data", directory / "aside")
    try:
        yield cluster
    finally:
        with suppress(AssertionError):
            cluster.run("pg_ctl", "-D", cluster.data, "-m", "immediate", "stop")
        remove(directory)


def test_postgresql_recovers(place: Place, cluster: Cluster) -> None:
    cluster.run("initdb", "-D", cluster.data, "--data-checksums", "-A", "trust", "-U", "postgres")
    cluster.start()
    run(cluster.benchmark("-i", "-s", "2"), timeout=200, cwd=Path("/"))
    with subprocess.Popen(
        cluster.benchmark("-c", "4", "-T", "200"), cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as bench:
        wait_until(lambda: int(cluster.ask("select count(*) from pgbench_history")) > 500)
        cluster.end_at_once(place.interrupted)
        bench.kill()
    cluster.start()
    before = int(cluster.ask("select count(*) from pgbench_history"))
    assert before > 500
    run(cluster.benchmark("-c", "4", "-t", "100"), timeout=200, cwd=Path("/"))
    assert int(cluster.ask("select count(*) from pgbench_history")) == before + 400
    assert len(set(cluster.ask(SUMS).strip().split("|"))) == 1
    cluster.ask("create extension amcheck")
    cluster.run("pg_amcheck", "-h", cluster.aside, "--heapallindexed", "postgres")
    cluster.run("pg_ctl", "-D", cluster.data, "-m", "fast", "-w", "stop")
    assert "Bad checksums:  0\n" in cluster.run("pg_checksums", "--check", "-D", cluster.data)
