"""Fixtures of the end-to-end tests: a company for all of them, and one that a test may break."""

import os
from pathlib import Path

import pytest

from tests.endtoend.company import LISTED, Company
from tests.endtoend.program import Program

_MISSING = [path for path in ("/dev/fuse", LISTED) if not Path(path).exists()]


def pytest_collection_modifyitems(items):
    why = "needs root" if os.geteuid() else f"needs {' and '.join(_MISSING)}" if _MISSING else ""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.mounted)
            if why:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def company():
    """Running, with the test policy. What a test changes it puts back."""
    yield from _ended(Company(), "start")


@pytest.fixture
def own():
    """Not yet started, for one test, which may do with it what it likes."""
    yield from _ended(Company())


def _ended(company, *first):
    try:
        for name in first:
            getattr(company, name)()
        yield company
    finally:
        company.end()


@pytest.fixture
def program():
    """A listed program."""
    program = Program()
    yield program
    program.end()
