"""The fixtures of the identity tests, and the attacking programs at a place that any user can read."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fsdriver.identity.conftest import callers, dpkg

__all__ = ["callers", "dpkg", "place", "programs"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def programs(place: Path) -> Path:
    """The attacking programs, readable by every user."""
    return Path(shutil.copytree(Path(__file__).with_name("programs"), place / "programs"))
