import os
from pathlib import Path, PurePath

import pytest

from fsdriver.identity.files import Files
from fsdriver.identity.programs import Programs
from policy import ProgramEntry


def entry(path: Path | str) -> ProgramEntry:
    return ProgramEntry(str(path), sha256=("0" * 64,))


def test_a_listed_link_stands_for_its_file(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    programs = Programs([entry(tmp_path / "link")], Files())
    listed = programs.by_path[os.fsencode(tmp_path / "file")]
    assert listed.name == str(tmp_path / "link")
    assert programs.facts(listed)


def test_of_a_file_listed_under_two_names_its_own_is_used(tmp_path: Path):
    (tmp_path / "b").write_text("x")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "c").symlink_to("b")
    programs = Programs([entry(tmp_path / name) for name in "abc"], Files())
    assert [listed.name for listed in programs.by_path.values()] == [str(tmp_path / "b")]


def test_a_missing_file_is_listed_and_has_no_facts(tmp_path: Path):
    programs = Programs([entry(tmp_path / "none")], Files())
    (listed,) = programs.by_path.values()
    assert programs.facts(listed) is None
    (tmp_path / "none").write_text("x")
    assert programs.facts(listed)


def test_links_are_followed_anew(tmp_path: Path):
    (tmp_path / "link").symlink_to("a")
    programs = Programs([entry(tmp_path / "link")], Files())
    assert programs.resolved_anew() is programs
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("b")
    assert list(programs.resolved_anew().by_path) == [os.fsencode(tmp_path / "b")]


def test_nothing_on_the_drive_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drive = tmp_path / "drive"
    drive.mkdir()
    (tmp_path / "link").symlink_to(drive / "program")
    readlink = os.readlink

    def watched(path: PurePath) -> str:
        assert not path.is_relative_to(drive)
        return readlink(path)

    monkeypatch.setattr("fsdriver.identity.programs.os.readlink", watched)
    programs = Programs([entry(drive / "program"), entry(tmp_path / "link")], Files(), drive)
    assert programs.by_path == {}


def test_listed_digests_are_those_of_files_that_have_them(tmp_path: Path):
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of "x"
    for name in ("good", "bad"):
        (tmp_path / name).write_text("x" if name == "good" else "y")
        (tmp_path / name).chmod(0o755)
    programs = Programs([ProgramEntry(str(tmp_path / name), sha256=(digest,)) for name in ("good", "bad")], Files())
    assert list(programs.listed_digests().values()) == ([digest] if os.getuid() == 0 else [])


def test_paths_are_resolved_as_the_kernel_does(tmp_path: Path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "up").symlink_to("a/b/../b")
    (tmp_path / "a/b/root").symlink_to("/usr/bin")
    (tmp_path / "loop").symlink_to("loop")
    names = [tmp_path / name for name in ("up/../x", "up/root/tail", "loop/x")]
    programs = Programs([entry(name) for name in names], Files())
    assert [listed.path for listed in programs.by_path.values()] == [
        os.fsencode(path) for path in (tmp_path / "a/x", os.path.realpath("/usr/bin/tail"))
    ]
