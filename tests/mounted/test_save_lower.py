"""A file that a holder of a higher label's plaintext makes in a lower folder: `save-lower:` of the higher label."""

import json
import os
from pathlib import Path

import pytest

from tests.mounted.mounted import Mounted, listed, put, wait_until

pytestmark = pytest.mark.mounted

COPY = "import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2])"


def label(path: Path) -> str:
    facts = json.loads(os.getxattr(path, "user.grantfs.info"))
    return str(facts["label"])


def test_recorded_unless_said_otherwise(mounted: Mounted) -> None:
    drive = mounted.drive
    (drive / "clients").mkdir(exist_ok=True)
    put(drive / "clients/list", "names")
    listed(COPY, drive / "clients/list", drive / "list")
    assert label(drive / "list") == "company/internal"
    wait_until(lambda: any(record.to == "/list" for record in mounted.records("copy")))


def test_raised(mounted: Mounted) -> None:
    drive = mounted.drive
    (drive / "raising").mkdir(exist_ok=True)
    put(drive / "raising/list", "names")
    listed(COPY, drive / "raising/list", drive / "raised")
    assert label(drive / "raised") == "office/raising"
    assert listed("import sys; print(open(sys.argv[1]).read())", drive / "raised").strip() == "names"
    # Who holds nothing higher makes what the folder says.
    put(drive / "ordinary", "words")
    assert label(drive / "ordinary") == "company/internal"


def test_denied(mounted: Mounted) -> None:
    drive = mounted.drive
    (drive / "denying").mkdir(exist_ok=True)
    put(drive / "denying/list", "names")
    listed(
        "import shutil, sys\n"
        "try: shutil.copyfile(sys.argv[1], sys.argv[2])\n"
        "except PermissionError: sys.exit(0)\n"
        "sys.exit('the copy was made')",
        drive / "denying/list",
        drive / "denied",
    )
    assert not (drive / "denied").exists()
    assert any(record.rule == "save-lower" for record in mounted.records("denied"))
    listed(COPY, drive / "denying/list", drive / "denying/second")
    assert label(drive / "denying/second") == "office/denying"
