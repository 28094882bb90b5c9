"""Fixtures of the mounted tests: a drive for a module, and a drive that a test may kill."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounted.mounted import LISTED, Mounted, remove, temporary_directory

_MISSING = [path for path in ("/dev/fuse", LISTED) if not Path(path).exists()]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    why = "needs root" if os.geteuid() else f"needs {' and '.join(_MISSING)}" if _MISSING else ""
    for item in items:
        if item.get_closest_marker("mounted") and why:
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="module", params=["io_uring", "dev"])
def either(request: pytest.FixtureRequest) -> Iterator[Mounted]:
    """A drive over each transport in turn."""
    for drive in _serving(Mounted(temporary_directory(), transport=request.param)):
        if request.param not in drive.serves_over:
            pytest.skip("this kernel does not offer FUSE over io_uring")
        yield drive


@pytest.fixture(scope="module")
def mounted() -> Iterator[Mounted]:
    """A drive over the better transport of this kernel."""
    yield from _serving(Mounted(temporary_directory()))


@pytest.fixture
def own() -> Iterator[Mounted]:
    """A drive not yet started, for one test, which may do with it what it likes."""
    drive = Mounted(temporary_directory())
    try:
        yield drive
    finally:
        drive.end()
        remove(drive.directory)


def _serving(drive: Mounted) -> Iterator[Mounted]:
    try:
        drive.start()
        yield drive
        drive.stop()
        assert drive.log() == ""
    finally:
        drive.end()
        remove(drive.directory)
