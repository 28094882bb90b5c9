"""Whose store it is, and who else can reach it."""

import json
from pathlib import Path

import pytest

from fsdriver.filesystem import Store, StoreInUse, StoreRefused
from fsdriver.filesystem.store import reachable_by_others

COMPANY, OTHER = bytes(16), bytes(15) + b"\1"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


def test_an_empty_folder_becomes_the_companys_store(place: Path) -> None:
    Store.open(str(place), COMPANY, "m").close()
    mark = json.loads((place / ".grantfs/store.json").read_text())
    assert mark["company"] == COMPANY.hex()
    Store.open(str(place), COMPANY, "m").close()


def test_a_folder_with_files_is_never_taken_over(place: Path) -> None:
    (place / "letter.txt").write_text("words")
    with pytest.raises(StoreRefused, match="import"):
        Store.open(str(place), COMPANY, "m")
    assert [path.name for path in place.iterdir()] == ["letter.txt"]


def test_another_companys_store_is_refused(place: Path) -> None:
    Store.open(str(place), OTHER, "m").close()
    with pytest.raises(StoreRefused, match="another company"):
        Store.open(str(place), COMPANY, "m")


@pytest.mark.parametrize(
    "mark",
    [
        "",
        "{",
        "[]",
        '{"format": 1}',
        '{"format": 2, "company": "00000000000000000000000000000000", "chunk_size": 32768}',
    ],
)
def test_a_mark_that_does_not_read_or_is_newer_is_refused(place: Path, mark: str) -> None:
    Store.open(str(place), COMPANY, "m").close()
    (place / ".grantfs/store.json").write_text(mark)
    with pytest.raises(StoreRefused):
        Store.open(str(place), COMPANY, "m")


def test_one_daemon_of_a_machine_at_a_time(place: Path) -> None:
    store = Store.open(str(place), COMPANY, "m")
    with pytest.raises(StoreInUse, match="mounted on this machine already"):
        Store.open(str(place), COMPANY, "m")
    store.close()
    Store.open(str(place), COMPANY, "m").close()


def test_a_folder_above_keeps_others_out(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "store").mkdir(parents=True)
    kept.chmod(0o700)
    assert not reachable_by_others(str(kept / "store"))
