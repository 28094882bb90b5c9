"""The fixtures of the identity tests."""

from tests.fsdriver.identity.conftest import callers, dpkg

__all__ = ["callers", "dpkg"]
