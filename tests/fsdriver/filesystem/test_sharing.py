"""What the sharing thread of a drive does, step by step."""

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fsdriver.content.offsets import COMMIT_AT, COMMIT_SIZE
from fsdriver.filesystem import Store, StoreRefused, claims, peers
from fsdriver.filesystem.sharing import Sharing
from tests.fsdriver.filesystem.test_claims import Machine, two
from tests.mounted.harness import COMPANY, built_drive
from tests.patience import eventually

__all__ = ["two"]
POLICY = Path(__file__).parents[3] / "benchmarks" / "policy"


class Present:
    """Another machine is always there."""

    alive = ("other",)

    def look(self) -> bool:
        return True


def sharing(files: list[Any], of: Any) -> Sharing:
    drive: Any = SimpleNamespace(claims=of, files=files)
    there: Any = Present()
    nothing: Any = None
    return Sharing(drive, there, nothing, nothing, shared=True)


def test_a_file_that_cannot_be_looked_at_keeps_no_other_from_being_followed(
    two: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = two
    gone: Any = here.file
    looked_at: list[object] = []

    def take_over(file: object) -> bool:
        looked_at.append(file)
        if file is gone:
            raise OSError(errno.ESTALE, "removed by a machine")
        return False

    monkeypatch.setattr(here.claims, "take_over", take_over)
    sharing([gone, there.file], here.claims)._tick()
    assert looked_at == [gone, there.file]


def test_a_file_that_somebody_writes_for_long_is_not_waited_for(two: tuple[Machine, Machine]) -> None:
    """A machine that stands still in the midst of a commit: others wait for the claims that this thread gives up."""
    here, there = two
    there.write(0, b"words")
    record = os.pread(there.file.fd, COMMIT_SIZE, COMMIT_AT)
    os.pwrite(there.file.fd, bytes(COMMIT_SIZE), COMMIT_AT)
    begun = time.monotonic()
    sharing([here.file], here.claims)._tick()
    assert time.monotonic() - begun < claims.PATIENCE / 2
    assert here.file.damage is None
    os.pwrite(there.file.fd, record, COMMIT_AT)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(peers, "JOIN_SECONDS", 1.0)
        yield


def test_who_knocks_and_goes_leaves_nothing_behind(
    tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one inside could not make itself ready. It is alone again, and pays nothing."""
    (tmp_path / "store").mkdir(mode=0o700)
    with built_drive(tmp_path, POLICY, {0: "li"}) as built:

        def full() -> None:
            raise OSError(errno.ENOSPC, "no space")

        with monkeypatch.context() as disk:
            disk.setattr(built.sharing._redo, "checkpoint", full)
            with pytest.raises(StoreRefused, match="does not answer"):
                Store.open(str(tmp_path / "store"), COMPANY, "two")
            assert built.drive.claims.active
        eventually(lambda: not built.drive.claims.active)
        assert built.sharing.others == []
