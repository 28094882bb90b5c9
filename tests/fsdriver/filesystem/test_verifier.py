"""Files that are verified while another machine writes them."""

import os
from typing import Any

import pytest

from fsdriver.content import HEADER_SIZE
from fsdriver.filesystem import claims
from fsdriver.filesystem.verifier import Verifier
from fsdriver.nodes.openfile import Handle
from tests.fsdriver.filesystem.test_claims import Machine, two

__all__ = ["two"]


class Records:
    def __init__(self) -> None:
        self.events: list[str] = []

    def record(self, event: str, *rest: object, **more: object) -> None:
        self.events.append(event)


def verified(machine: Machine) -> list[str]:
    """What was recorded while the file was verified."""
    nobody: Any = None
    records: Any = Records()
    about: Any = {"fh": 1, "view": 0, "caller": None, "label": None, "standing": None, "path": "/letter"}
    handle = Handle(file=machine.file, readable=True, writable=False, **about)
    machine.sealed.verified = False
    machine.sealed._drop_kept()
    Verifier(nobody, machine.claims, records)._verify(handle, machine.file)
    events: list[str] = records.events
    return events


def test_what_stands_still_in_the_midst_of_a_commit_is_no_damage(
    two: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = two
    monkeypatch.setattr(claims, "PATIENCE", 0.1)
    there.write(0, b"words")  # claimed, and then
    os.pwrite(there.file.fd, b"half of a chunk", HEADER_SIZE + 8)
    assert verified(here) == []
    assert here.file.damage is None


def test_what_nobody_writes_is_damage(two: tuple[Machine, Machine]) -> None:
    here, _ = two
    os.pwrite(here.file.fd, b"half of a chunk", HEADER_SIZE + 8)
    assert verified(here) == ["damaged"]
    assert here.file.damage is not None
