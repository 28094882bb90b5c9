"""The fixtures of the identity tests, and the attacking programs at a place that any user can read."""

import shutil
from pathlib import Path

import pytest

from tests.fsdriver.identity.conftest import callers, dpkg, place

__all__ = ["callers", "dpkg", "place", "programs"]


@pytest.fixture
def programs(place: Path) -> Path:
    """The attacking programs, readable by every user."""
    return Path(shutil.copytree(Path(__file__).with_name("programs"), place / "programs"))
