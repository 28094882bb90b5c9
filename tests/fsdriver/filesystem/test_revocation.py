"""What goes when a label's key does, whether files are open or not."""

from pathlib import Path

import pytest

from fsdriver.errors import SpoolFailed
from tests.fsdriver.content.test_verified import made
from tests.mounted.harness import built_drive

POLICY = Path(__file__).parents[3] / "benchmarks" / "policy"


def test_remembered_headers_go_first_even_if_nothing_can_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir(mode=0o700)
    with built_drive(tmp_path, POLICY, {0: "li"}) as built:
        first, keys = made(1)
        verified = built.drive.files.verified
        verified.remembering()(first, keys)
        assert verified.get(first) is not None

        def full(handles: object) -> int:
            raise SpoolFailed("no space")

        with monkeypatch.context() as patched:
            patched.setattr(built.revocation, "_refuse", full)
            with pytest.raises(SpoolFailed):
                built.revocation.labels_ended(frozenset())
        assert verified.get(first) is None
