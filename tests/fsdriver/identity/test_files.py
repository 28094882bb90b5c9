import hashlib
import os
import time
from pathlib import Path

import pytest

from fsdriver.identity.files import Files


def aged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it two seconds since the file last changed."""
    later = path.stat().st_ctime_ns + 2_000_000_000
    monkeypatch.setattr("fsdriver.identity.files.time.time_ns", lambda: later)


def test_digests_are_those_of_the_file(tmp_path: Path):
    path = tmp_path / "file"
    content = b"#! first line\n" + bytes(3 << 20)
    path.write_bytes(content)
    facts = Files().facts(str(path))
    assert facts.digests == {"md5": hashlib.md5(content).hexdigest(), "sha256": hashlib.sha256(content).hexdigest()}
    assert facts.first_line == b"#! first line"
    assert facts.signature[1:] == (path.stat().st_ino, path.stat().st_ctime_ns, len(content))


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    aged(path, monkeypatch)
    files = Files()
    first = files.facts(str(path))
    assert files.facts(str(path)) is first
    time.sleep(0.02)  # kernels before 6.13 tell changes apart that are a tick from each other
    path.write_bytes(b"new")
    assert files.facts(str(path)).sha256 == hashlib.sha256(b"new").hexdigest()


def test_a_file_that_changed_just_now_is_hashed_each_time(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"new")
    files = Files()
    assert files.facts(str(path)) is not files.facts(str(path))


@pytest.mark.root
@pytest.mark.parametrize(
    ("owner", "mode", "root_only"), [(0, 0o755, True), (0, 0o775, False), (0, 0o757, False), (1, 0o755, False)]
)
def test_whether_only_root_can_change_it(tmp_path: Path, owner: int, mode: int, root_only: bool):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    path.chmod(mode)
    os.chown(path, owner, 0)
    assert Files().facts(str(path)).root_only == root_only


def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(__file__)
    for name in ("fifo", "link", "missing", "."):
        with pytest.raises(OSError, match="regular|symbolic|No such"):
            Files().facts(str(tmp_path / name))


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fsdriver.identity.files._REMEMBERED", 2)
    files = Files()
    for name in "abc":
        (tmp_path / name).write_text(name)
        aged(tmp_path / name, monkeypatch)
        files.facts(str(tmp_path / name))
    assert len(files._known) == 2
