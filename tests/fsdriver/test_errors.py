"""The table of errnos is complete, and a bug is never told as something else."""

import errno
import logging

import pytest

from fsdriver import errors
from fsdriver.errors import ERRNO, FsError, to_errno


def all_subclasses(kind: type[FsError]) -> set[type[FsError]]:
    direct = set(kind.__subclasses__())
    return direct.union(*(all_subclasses(each) for each in direct))


def test_every_deliberate_failure_has_an_errno() -> None:
    declared = {each for each in all_subclasses(FsError) if each.__module__ == errors.__name__}
    assert declared == set(ERRNO)


@pytest.mark.parametrize("kind", list(ERRNO))
def test_a_deliberate_failure_becomes_its_errno(kind: type[FsError]) -> None:
    assert to_errno(kind("why")) == ERRNO[kind] > 0


def test_the_systems_own_errors_keep_theirs() -> None:
    assert to_errno(OSError(errno.ENOSPC, "full")) == errno.ENOSPC


def test_a_bug_is_logged_and_is_an_io_error(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert to_errno(ZeroDivisionError("oops")) == errno.EIO
    assert "bug while serving a request" in caplog.text


def test_damage_is_an_io_error_or_another_companys() -> None:
    assert {ERRNO[kind] for kind in errors.DAMAGE} <= {errno.EIO, errno.EACCES}
