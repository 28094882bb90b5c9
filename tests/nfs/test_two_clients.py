"""Two machines and one store on NFS, each by a client of its own: what tests/mounted/test_two_machines.py does on one
directory. Sizes and names are as old as a client lets them be: they are mounted with actimeo=1.
"""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.mounted import test_two_machines
from tests.mounted.mounted import get, put
from tests.mounted.test_two_machines import (
    ALARMS,
    Machines,
    Pair,
    Side,
    test_a_killed_program_lets_go_and_can_be_killed_while_it_waits,
    test_a_lock_keeps_the_other_machine_out,
    test_no_block_is_read_torn,
    test_no_update_under_a_lock_is_lost,
    test_two_machines_are_one_file_under_a_lock,
    test_two_write_to_one_chunk_without_locks,
    test_what_is_appended_is_appended,
    test_who_waits_for_the_other_machine_gets_its_turn,
)
from tests.nfs.conftest import A, B, stored_at
from tests.patience import eventually

pytestmark = pytest.mark.nfs

__all__ = [
    "test_a_killed_program_lets_go_and_can_be_killed_while_it_waits",
    "test_a_lock_keeps_the_other_machine_out",
    "test_no_block_is_read_torn",
    "test_no_update_under_a_lock_is_lost",
    "test_two_machines_are_one_file_under_a_lock",
    "test_two_write_to_one_chunk_without_locks",
    "test_what_is_appended_is_appended",
    "test_who_waits_for_the_other_machine_gets_its_turn",
]


@pytest.fixture(autouse=True)
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each of these takes a hundred times as long as elsewhere."""
    monkeypatch.setattr(test_two_machines, "UPDATES", 6)
    monkeypatch.setattr(test_two_machines, "APPENDS", 20)
    monkeypatch.setattr(test_two_machines, "OVERWRITES", 50)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    path = Path(tempfile.mkdtemp(dir=A))
    eventually((B / path.name).is_dir)
    with stored_at(A / path.name, "one") as one, stored_at(B / path.name, "two") as other:
        one.start()
        other.start()
        yield one, other
        for drive in (one, other):
            drive.stop()
            assert [record for record in drive.records() if record.event in ALARMS] == []
            assert drive.log() == ""
    shutil.rmtree(path)


@pytest.fixture
def pair(machines: Machines) -> Pair:
    name = secrets.token_hex(4)
    (machines[0].drive / name).mkdir()
    eventually((machines[1].drive / name).is_dir)
    return Side(machines[0].drive / name), Side(machines[1].drive / name)


def test_what_is_closed_is_soon_there_for_the_other(pair: Pair) -> None:
    one, other = pair
    for writer, reader, turn in ((one, other, 0), (other, one, 1), (one, other, 2), (other, one, 3)):
        put(writer.drive / "letter", f"turn {turn}")
        eventually(partial(_says, reader.drive / "letter", f"turn {turn}"))


def _says(path: Path, text: str) -> bool:
    return path.exists() and get(path) == text
