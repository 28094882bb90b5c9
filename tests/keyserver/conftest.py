import shutil

import pytest

from tests.keyserver.company import Clock, Company, Founded, found_home


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """A founded home that tests copy; founding takes a third of a second."""
    return found_home(tmp_path_factory.mktemp("pristine"), Clock().now)


@pytest.fixture
def founded(pristine, tmp_path):
    shutil.copytree(pristine.home.path, tmp_path / "server")
    return Founded(type(pristine.home)(tmp_path / "server"), pristine.root, pristine.token)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def company(founded, clock):
    company = Company(founded, clock)
    yield company
    company.close()
