"""The drive of the mounted tests, to be attacked."""

from tests.mounted.conftest import mounted, own, pytest_collection_modifyitems

__all__ = ["mounted", "own", "pytest_collection_modifyitems"]
