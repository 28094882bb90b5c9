"""A file server's day, as dbench has it: every operation ends as the recorded one did, or dbench says so and stops."""

import pytest

from tests.mounted.mounted import run
from tests.mounted.workloads.conftest import Place

pytestmark = [pytest.mark.mounted, pytest.mark.slow]


@pytest.mark.parametrize("options", [[], ["-s", "-F"]], ids=["cached", "synced"])
def test_dbench(place: Place, options: list[str]) -> None:
    said = run(["dbench", "-D", place.folder, "-t", "20", *options, "4"], timeout=120)
    assert "Throughput" in said
    for trouble in ("ERROR", "failed", "expected"):
        assert trouble not in said, said
