"""Callers with a policy that lists three of the system's programs."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.identity import Callers, Dpkg
from tests.fsdriver.identity.processes import LISTED


@pytest.fixture(scope="session")
def dpkg() -> Dpkg:
    """The system's package database, read once."""
    return Dpkg()


@pytest.fixture
def callers(dpkg: Dpkg) -> Iterator[Callers]:
    """Callers of a policy that lists tail, dash and python, each by its package."""
    made = Callers(packages=dpkg)
    made.set_programs(LISTED)
    yield made
    made.close()


@pytest.fixture
def unhurried(dpkg: Dpkg) -> Iterator[Callers]:
    """The same, for whom no time passes: what was looked at once holds, however long this machine stands still."""
    made = Callers(packages=dpkg, now=lambda: 0.0)
    made.set_programs(LISTED)
    yield made
    made.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
