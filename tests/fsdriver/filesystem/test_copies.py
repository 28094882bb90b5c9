"""What a process holds of which label, and where its descriptors lead, however many it has."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fsdriver.filesystem.copies import Copies

HOLD = """
import sys
held = [open("/dev/null") for _ in range(int(sys.argv[1]))]
print("open", flush=True)
sys.stdin.read()
"""


class Fake(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]


def handle(pid: int, label: bytes = b"label") -> Any:
    return Fake(
        caller=SimpleNamespace(pid=pid), label=SimpleNamespace(id=label), shows=None, file=object(), outside=set()
    )


def test_a_process_holds_a_label_until_its_last_handle_closes() -> None:
    copies = Copies("/drive")
    handles = [handle(1, b"low"), handle(1, b"low"), handle(1, b"high"), handle(2, b"other")]
    for one in handles:
        copies.opens(one)
    handles[2].label = None  # a new policy does not know it any more
    for one, held in zip(handles, ({b"low", b"high"}, {b"high"}, set(), set()), strict=True):
        copies.closes(one)
        copies.closes(one)
        assert set(copies.held(1)) == held
    assert copies.held(2) == []


def test_whoever_has_thousands_of_descriptors_is_not_looked_through(tmp_path: Path) -> None:
    """Its own output leads to a file, and so may any of its other descriptors."""
    for descriptors, said in ((50, "/log"), (1100, "unknown: process")):
        with (
            (tmp_path / "log").open("w") as log,
            subprocess.Popen(
                [sys.executable, "-c", HOLD, str(descriptors)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            ) as program,
        ):
            assert program.stdout is not None
            assert program.stdout.readline() == b"open\n"
            reading = handle(program.pid)
            Copies("/drive").reads(reading)
            assert len(reading.outside) == 1
            assert said in reading.outside.pop()
            program.communicate()
