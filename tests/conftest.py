"""Settings of all tests."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How fast a machine makes examples, and how many it throws away by chance, says nothing about what is tested.
settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
settings.load_profile("patient")

_SWITCH = Path("/sys/module/fuse/parameters/enable_uring")


@pytest.fixture(scope="session", autouse=True)
def io_uring_on() -> Iterator[None]:
    """FUSE over io_uring is off until root switches it on: on for the tests, so that none is skipped that can run here,
    and afterwards as it was."""
    before = ""
    with suppress(OSError):  # an older kernel, or a plain user
        before = _SWITCH.read_text().strip()
        if before == "N":
            _SWITCH.write_text("Y")
    yield
    if before == "N":
        with suppress(OSError):
            _SWITCH.write_text("N")
