"""Labels that files are given."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsdriver.errors import NodeVanished
from fsdriver.filesystem.births import Births
from fsdriver.nodes.openfile import OpenFile
from fsdriver.protocol import InHeader
from tests.fsdriver.filesystem.test_openfiles import asker
from tests.mounted.harness import COMPANY, built_drive

POLICY = Path(__file__).parents[2] / "mounted" / "policy"


def test_a_label_that_another_machine_gives_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").mkdir(mode=0o700)
    with built_drive(tmp_path, POLICY, {0: "li"}) as built:
        drive = built.drive
        births = Births(drive, COMPANY, built.sharing._redo)
        low, mine, theirs = (
            drive.views.bundle.label_by_id(name.ljust(16, b"\0"))
            for name in (b"company/internal", b"office/clients", b"office/raising")
        )
        assert low is not None
        assert mine is not None
        assert theirs is not None
        head = InHeader(0, 0, 1, 1, 0, 0, 1)
        file = births.plain(head, drive.inodes.root, b"letter", 0o600, low, asker(True))
        sealed, changing = file.sealed, drive.claims.changing
        assert sealed is not None

        @contextmanager
        def late(file: OpenFile, *, may_wait: bool) -> Iterator[None]:
            with changing(file, may_wait=may_wait):
                sealed.rewrap(theirs.id, sealed.header.slots)  # as it is taken over with the claim
                yield

        with monkeypatch.context() as patched:
            patched.setattr(drive.claims, "changing", late)
            with pytest.raises(NodeVanished):
                births.relabel(file.inode, mine, asker(True))
        assert sealed.header.label == theirs.id
        assert drive.files.label(file.inode) == theirs
        drive.files.release(file)
