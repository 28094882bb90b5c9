"""Real programs with the sample departments, compared with the same work on an ordinary folder."""

import hashlib
import os
import random
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from fsdriver.content import MAGIC
from tests.endtoend.company import Company, temporary_directory

SOFFICE = Path("/usr/bin/soffice")


@pytest.fixture(scope="module")
def samples():
    """A company with the sample departments."""
    company = Company(policy=None)
    try:
        company.start()
        yield company
    finally:
        company.end()


@pytest.fixture
def aside():
    """An ordinary folder on the disk."""
    path = temporary_directory()
    yield path
    shutil.rmtree(path)


def run(*command, cwd="/", timeout=200, env=None):
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=timeout, env=env
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def need(program):
    if not os.access(program, os.X_OK):
        pytest.skip(f"{program} is not there")


def make_tree(top, count):
    """A source tree of so many files, most of them small."""
    chance = random.Random(count)
    for number in range(count):
        folder = top / f"{number % 50:02}" / f"{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        size = chance.choice([0, 10, 500, 3000, 9000, 40_000 if number % 100 == 0 else 2000])
        (folder / f"{number}.c").write_bytes(chance.randbytes(size))
    (top / "link").symlink_to("00/0/0.c")
    os.link(top / "00/0/0.c", top / "hard")


def facts(top):
    """Name, kind, mode, mtime and content of everything below."""
    found = {}
    for path in sorted(top.rglob("*")):
        what = path.lstat()
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            content = None
        found[str(path.relative_to(top))] = (what.st_mode, int(what.st_mtime) if content else 0, content)
    return found


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_tar(samples, aside, count):
    source, there, back = aside / "source", samples.drive / f"engineering/tar{count}", aside / "back"
    make_tree(source, count)
    run("tar", "-cf", aside / "source.tar", "-C", source, ".")
    there.mkdir()
    back.mkdir()
    run("tar", "-xf", aside / "source.tar", "-C", there)
    run("tar", "-czf", samples.drive / f"engineering/{count}.tar.gz", "-C", there, ".")
    run("tar", "-xf", samples.drive / f"engineering/{count}.tar.gz", "-C", back)
    assert facts(back) == facts(source)
    run("rm", "-rf", there)
    assert not (samples.store / f"engineering/tar{count}").exists()


def git(*arguments, cwd):
    name = ["-c", "user.name=li", "-c", "user.email=li@example.org", "-c", "init.defaultBranch=main"]
    environment = {"PATH": os.environ["PATH"], "HOME": "/", "GIT_CONFIG_NOSYSTEM": "1"}
    return run("git", "-c", "safe.directory=*", *name, *arguments, cwd=cwd, env=environment)


def test_git(samples, aside):
    origin = aside / "origin"
    origin.mkdir()
    git("init", "-q", cwd=origin)
    make_tree(origin / "src", 60)
    git("add", ".", cwd=origin)
    git("commit", "-qm", "first", cwd=origin)
    clone = samples.drive / "engineering/clone"
    git("clone", "-q", origin, clone, cwd="/")
    git("fsck", "--strict", cwd=clone)
    assert git("status", "--porcelain", cwd=clone) == ""
    git("mv", "src/hard", "src/soft", cwd=clone)
    git("commit", "-qm", "second", cwd=clone)
    git("gc", "-q", cwd=clone)
    git("push", "-q", "origin", "HEAD:refs/heads/changed", cwd=clone)
    assert git("rev-parse", "changed", cwd=origin) == git("rev-parse", "HEAD", cwd=clone)
    git("checkout", "-q", "changed", cwd=origin)
    git("fsck", "--strict", cwd=origin)
    assert (samples.store / "engineering/clone/src/soft").read_bytes().startswith(MAGIC)


def test_sqlite(samples, aside):
    need("/usr/bin/sqlite3")
    (samples.drive / "finance").mkdir(exist_ok=True)
    script = """
        create table books (id integer primary key, name text, price real);
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000)
        insert into books select i, 'book ' || i, i * 1.25 from n;
        create index by_name on books (name);
        delete from books where id % 3 = 0;
        vacuum;
    """
    for mode in ("delete", "wal"):
        answers = []
        for database in (samples.drive / f"finance/{mode}.db", aside / f"{mode}.db"):
            if mode == "wal" and database.is_relative_to(samples.drive):
                assert run("sqlite3", database, "pragma journal_mode=wal;").strip() == "wal"
            run("sqlite3", database, script)
            assert run("sqlite3", database, "pragma integrity_check;") == "ok\n"
            answers.append(run("sqlite3", database, "select count(*), sum(price), max(name) from books;"))
        assert answers[0] == answers[1]


def test_rsync(samples, aside):
    need("/usr/bin/rsync")
    source, there, back = aside / "source", samples.drive / "engineering/rsync", aside / "back"
    make_tree(source, 200)
    run("rsync", "-aH", f"{source}/", f"{there}/")
    (source / "00/0/0.c").write_bytes(b"changed")
    (source / "01/1/1.c").unlink()
    run("rsync", "-aH", "--delete", "--inplace", "--no-whole-file", f"{source}/", f"{there}/")
    run("rsync", "-aH", f"{there}/", f"{back}/")
    assert facts(back) == facts(source)


# ---- LibreOffice ---------------------------------------------------------------------------------------------------


def office(aside, *arguments):
    need(SOFFICE)
    profile = f"-env:UserInstallation=file://{aside}/profile"
    environment = {"PATH": os.environ["PATH"], "HOME": str(aside), "LANG": "C.UTF-8", "TMPDIR": str(aside)}
    run(SOFFICE, profile, "--headless", "--norestore", *arguments, env=environment)


def words(path):
    """The text of a document, by LibreOffice's own filters where it is none of ours to read."""
    with zipfile.ZipFile(path) as document:
        assert document.testzip() is None
        names = {"odt": ["content.xml"], "docx": ["word/document.xml"], "xlsx": ["xl/sharedStrings.xml"]}[
            path.suffix[1:]
        ]
        return b"".join(document.read(name) for name in names)


TEXT = "The client list of April: Anna, Bao, Carla."


@pytest.mark.slow
def test_libreoffice_converts_and_saves_on_the_drive(samples, aside):
    here = samples.drive / "sales/clients"
    (aside / "letter.txt").write_text(TEXT)
    (aside / "table.csv").write_text("client,city\nAnna,Lisbon\nBao,Hanoi\n")
    outside = aside / "outside"
    for target in (here, outside):
        target.mkdir(exist_ok=True)
        office(aside, "--convert-to", "odt", "--outdir", target, aside / "letter.txt")
        office(aside, "--convert-to", "docx", "--outdir", target, target / "letter.odt")
        office(aside, "--convert-to", "xlsx", "--outdir", target, aside / "table.csv")
        office(aside, "--convert-to", "csv", "--outdir", target, target / "table.xlsx")
    back = aside / "back"
    back.mkdir()
    for name in ("letter.odt", "letter.docx", "table.xlsx", "table.csv"):
        # An unlisted copy is sealed, and gives the document back when it comes back.
        sealed = aside / f"copy-{name}"
        run("cp", here / name, sealed)
        assert sealed.read_bytes().startswith(MAGIC)
        assert sealed.read_bytes() == (samples.store / "sales/clients" / name).read_bytes()
        run("rm", here / name)
        run("cp", sealed, here / name)
        run("tar", "-cf", aside / "one.tar", "-C", here, name)
        run("tar", "-xf", aside / "one.tar", "-C", back)
    assert (back / "table.csv").read_text() == (outside / "table.csv").read_text()
    for name in ("letter.odt", "letter.docx", "table.xlsx"):
        assert words(back / name) == words(outside / name)
    assert b"client list of April" in words(back / "letter.docx")


MACRO = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE script:module PUBLIC "-//OpenOffice.org//DTD OfficeDocument 1.0//EN" "module.dtd">
<script:module xmlns:script="http://openoffice.org/2000/script" script:name="Module1" script:language="StarBasic">
Sub Edit(path)
  Dim hidden(0) As New com.sun.star.beans.PropertyValue
  hidden(0).Name = "Hidden"
  hidden(0).Value = True
  document = StarDesktop.loadComponentFromURL(ConvertToURL(path), "_blank", 0, hidden())
  document.Text.insertString(document.Text.End, "Edited in place.", False)
  document.store()
  document.close(True)
End Sub
</script:module>
"""


@pytest.mark.slow
def test_libreoffice_edits_and_saves_in_place(samples, aside):
    path = samples.drive / "sales/clients/edited.odt"
    (aside / "edited.txt").write_text(TEXT)
    office(aside, "--convert-to", "odt", "--outdir", path.parent, aside / "edited.txt")
    library = aside / "profile/user/basic/Standard"
    library.mkdir(parents=True, exist_ok=True)
    (library / "Module1.xba").write_text(MACRO)
    (library / "script.xlb").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE library:library PUBLIC "-//OpenOffice.org//DTD '
        'OfficeDocument 1.0//EN" "library.dtd">\n<library:library xmlns:library="http://openoffice.org/2000/library" '
        'library:name="Standard" library:readonly="false" library:passwordprotected="false">\n'
        ' <library:element library:name="Module1"/>\n</library:library>\n'
    )
    office(aside, f'macro:///Standard.Module1.Edit("{path}")')
    run("tar", "-cf", aside / "one.tar", "-C", path.parent, path.name)
    run("tar", "-xf", aside / "one.tar", "-C", aside)
    assert b"Edited in place." in words(aside / path.name)
    assert path.read_bytes().startswith(MAGIC)
    assert not list(samples.store.glob("sales/clients/.~lock*"))
    samples.everything_arrived()
    programs = {
        record["program"]["path"]
        for record in samples.records()
        if record.get("file", {}).get("path", "").endswith("edited.odt")
    }
    assert "/usr/lib/libreoffice/program/soffice.bin" in programs
