"""A hundred commits, and git finds nothing wrong with them."""

from pathlib import Path

import pytest

from tests.mounted.mounted import listed, run
from tests.mounted.workloads.conftest import Place

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

COMMITS = 100
EDIT = """
import pathlib, random, sys
chance = random.Random(int(sys.argv[2]))
for _ in range(5):
    path = pathlib.Path(sys.argv[1], f'd{chance.randrange(7)}', f'f{chance.randrange(30)}')
    path.parent.mkdir(exist_ok=True)
    if path.exists() and chance.random() < 0.2:
        path.unlink()
    else:
        with path.open('a') as file:
            file.writelines(f'{chance.random()}\\n' for _ in range(chance.randrange(400)))
"""


def git(work: Path, *words: object) -> str:
    options = ["-c", "user.name=li", "-c", "user.email=li@example.org", "-c", "safe.directory=*", "-c", "gc.auto=300"]
    return run(["git", "-C", work, *options, "-c", "gc.autoDetach=false", *words], timeout=200)


def history(work: Path) -> str:
    """The tree of the last of the commits, which is the same wherever they are made."""
    git(work, "init", "-q", "-b", "main")
    for number in range(COMMITS):
        listed(EDIT, work, number)
        git(work, "add", "-A")
        git(work, "commit", "-qm", f"change {number}")
    return git(work, "rev-parse", "HEAD^{tree}")


def test_a_hundred_commits(place: Place, tmp_path: Path) -> None:
    tree = history(place.folder)
    place.interrupted()
    assert git(place.folder, "fsck", "--full", "--strict") == ""
    assert git(place.folder, "status", "--short") == ""
    git(place.folder, "gc", "-q", "--prune=now")
    git(place.folder, "repack", "-q", "-a", "-d", "-f")
    assert git(place.folder, "fsck", "--full", "--strict") == ""
    assert git(place.folder, "rev-list", "--count", "HEAD") == f"{COMMITS}\n"
    assert history(tmp_path) == tree
