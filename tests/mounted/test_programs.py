"""Ordinary programs on the drive do what they do on ext4, byte for byte."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounted.mounted import Mounted, listed, run

pytestmark = pytest.mark.mounted

DIGESTS = """
import hashlib, os, sys
for folder, folders, names in os.walk(sys.argv[1]):
    folders.sort()
    for name in sorted(folders + names):
        path = os.path.join(folder, name)
        s = os.lstat(path)
        what = os.readlink(path) if os.path.islink(path) else '' if os.path.isdir(path) else \
            hashlib.sha256(open(path, 'rb').read()).hexdigest()
        times = '' if os.path.isdir(path) else s.st_mtime_ns
        sizes = '' if os.path.isdir(path) else s.st_size
        print(os.path.relpath(path, sys.argv[1]), oct(s.st_mode), sizes, times, what)
"""
FILES = 2000


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source tree on ext4: many small files, a few large ones, odd names, links, modes and times."""
    top = tmp_path_factory.mktemp("source") / "tree"
    for number in range(FILES):
        folder = top / f"d{number % 40}" / f"e{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"file {number}.txt"
        seed = hashlib.sha256(str(number).encode()).digest()
        size = (number * 37) % 9000 if number % 400 else 700_000
        path.write_bytes((seed * (size // 32 + 1))[:size])
        path.chmod(0o600 | number % 64)
        os.utime(path, ns=(10**18 + number * 1000, 10**18 + number * 1000 + 7))
    (top / "link").symlink_to("d0/e0/file 0.txt")
    (top / "dangling").symlink_to("nowhere")
    (top / "空").mkdir()
    (top / "空" / ("n" * 255)).write_text("long name")
    return top


@pytest.fixture(scope="module")
def digests(tree: Path) -> str:
    return run(["/usr/bin/python3.11", "-I", "-c", DIGESTS, tree])


@pytest.fixture
def work(either: Mounted, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder on the drive, emptied by a listed program."""
    folder = either.drive / request.node.name.split("[")[0]
    folder.mkdir()
    yield folder
    listed("import shutil, sys; shutil.rmtree(sys.argv[1])", folder)


def test_tar_unpacks_and_packs_a_tree(work: Path, tree: Path, digests: str, tmp_path: Path) -> None:
    run(["tar", "--format=posix", "--sort=name", "-C", tree.parent, "-cf", tmp_path / "in.tar", "tree"])
    run(["tar", "-C", work, "-xf", tmp_path / "in.tar"], timeout=200)
    assert listed(DIGESTS, work / "tree") == digests
    options = ["--format=posix", "--sort=name", "--pax-option=delete=atime,delete=ctime,exthdr.name=%d/%f"]
    for source, archive in ((tree.parent, tmp_path / "a.tar"), (work, work / "b.tar")):
        run(["tar", *options, "-C", source, "-cf", archive, "tree/d1", "tree/空", "tree/link"])
    ours = listed(
        "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())", work / "b.tar"
    )
    assert ours.strip() == hashlib.sha256((tmp_path / "a.tar").read_bytes()).hexdigest()
    assert "d1/e1/file 1.txt" in run(["tar", "-tf", work / "b.tar"])


def test_rsync_twice_transfers_nothing_the_second_time(work: Path, tree: Path, digests: str) -> None:
    first = run(["rsync", "-a", "--stats", f"{tree}/", work / "copy"], timeout=200)
    assert f"Number of regular files transferred: {FILES + 1:,}" in first
    second = run(["rsync", "-a", "--stats", f"{tree}/", work / "copy"], timeout=200)
    assert "Number of regular files transferred: 0" in second
    assert listed(DIGESTS, work / "copy") == digests
    changed = run(
        ["rsync", "-a", "--checksum", "--inplace", "--itemize-changes", f"{tree}/", work / "copy"], timeout=120
    )
    assert changed == ""


def test_rsync_changes_a_file_in_place_and_by_rename(work: Path, tmp_path: Path) -> None:
    source = tmp_path / "big"
    data = bytearray(os.urandom(300_000))
    source.write_bytes(data)
    for options in (["--inplace", "--no-whole-file"], ["--no-whole-file"], ["--append"]):
        run(["rsync", *options, source, work / "big"])
        data[50_000:50_010] = b"0123456789"
        data += b"more at the end" * 1000
        source.write_bytes(data)
        if "--append" in options:
            run(["rsync", "--append-verify", source, work / "big"])
        else:
            run(["rsync", *options, source, work / "big"])
        digest = listed(
            "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())", work / "big"
        )
        assert digest.strip() == hashlib.sha256(data).hexdigest()


def git(*words: object, cwd: Path) -> str:
    identity = [
        "-c",
        "user.name=li",
        "-c",
        "user.email=li@example.org",
        "-c",
        "safe.directory=*",
        "-c",
        "protocol.file.allow=always",
    ]
    return run(["git", *identity, *words], cwd=cwd, timeout=200)


def test_git_commits_clones_and_finds_nothing_wrong(work: Path) -> None:
    git("init", "-q", "-b", "main", "one", cwd=work)
    one = work / "one"
    listed(
        "import os, sys\n"
        "for n in range(150):\n"
        "    os.makedirs(f'{sys.argv[1]}/d{n % 9}', exist_ok=True)\n"
        "    open(f'{sys.argv[1]}/d{n % 9}/f{n}', 'w').write(f'line {n}\\n' * n * 20)\n",
        one,
    )
    git("add", "-A", cwd=one)
    git("commit", "-qm", "first", cwd=one)
    listed("import sys; open(sys.argv[1], 'a').write('changed\\n')", one / "d1" / "f1")
    assert "d1/f1" in git("status", "--short", cwd=one)
    git("commit", "-qam", "second", cwd=one)
    git("branch", "side", "HEAD~1", cwd=one)
    git("checkout", "-q", "side", cwd=one)
    git("merge", "-q", "main", cwd=one)
    git("gc", "-q", cwd=one)
    git("clone", "-q", "--no-local", "one", "two", cwd=work)
    for repository in (one, work / "two"):
        assert git("fsck", "--full", "--strict", cwd=repository) == ""
        assert git("status", "--short", cwd=repository) == ""
    assert git("rev-parse", "HEAD^{tree}", cwd=one) == git("rev-parse", "HEAD^{tree}", cwd=work / "two")


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_sqlite(either: Mounted, mode: str, tmp_path: Path) -> None:
    setup = f"pragma journal_mode={mode}; create table t (n integer primary key, x text);"
    fill = (
        "begin; with recursive c(n) as (select 1 union all select n + 1 from c where n < 5000) "
        "insert into t select n, hex(n * n) || 'payload' from c; commit;"
        "update t set x = x || 'more' where n % 7 = 0; delete from t where n % 11 = 0; create index i on t (x);"
    )
    ask = (
        "pragma integrity_check; select count(*), sum(n), max(x) from t;"
        "select x from t where x > 'A' order by x limit 5;"
    )
    answers = []
    for base in (tmp_path / "base", either.drive / f"base-{mode}"):
        assert run(["sqlite3", base, setup]).strip() == mode.lower()
        run(["sqlite3", base, fill])
        answers.append(run(["sqlite3", base, ask]))
    assert answers[0] == answers[1]
    assert answers[1].startswith("ok\n")
    # Several writers at once wait for each other.
    base = either.drive / f"base-{mode}"
    insert = "pragma busy_timeout=100000; begin immediate; insert into t (x) select 'w' || n from t limit 20; commit;"
    before = int(run(["sqlite3", base, "select count(*) from t"]))
    writers = [
        subprocess.Popen(["sqlite3", str(base), insert * 5], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(4)
    ]
    for writer in writers:
        output = writer.communicate(timeout=200)[0]
        assert writer.returncode == 0, output
    assert int(run(["sqlite3", base, "select count(*) from t"])) == before + 4 * 5 * 20
    assert run(["sqlite3", base, "pragma integrity_check"]) == "ok\n"


def test_head_and_sha256sum_read_through_pipes(work: Path) -> None:
    listed("import sys; open(sys.argv[1], 'w').write('line\\n' * 50_000)", work / "f")
    assert run(["head", "-n", "2", work / "f"]) == "line\nline\n"
    assert run(["sha256sum", work / "f"]).split()[0] == hashlib.sha256(b"line\n" * 50_000).hexdigest()
