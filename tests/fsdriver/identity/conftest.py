"""Callers with a policy that lists three of the system's programs."""

from collections.abc import Iterator

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
