"""An old copy of a secret file, put back in the store: refused until somebody accepts it, and all of it recorded."""

import json
import shutil

import pytest

from tests.endtoend.company import CommandFailed, eventually
from tests.endtoend.program import Refused


def test_an_old_copy_is_refused_until_it_is_accepted(company, program, tmp_path):
    (company.drive / "payroll").mkdir(exist_ok=True)
    path, stored = company.drive / "payroll/june", company.store / "payroll/june"
    program.put(path, "first")
    shutil.copy(stored, tmp_path / "backup")
    program.put(path, "second")
    shutil.copy(tmp_path / "backup", stored.with_name("restored"))
    stored.with_name("restored").rename(stored)
    with pytest.raises(Refused, match="EIO"):
        program.get(path)
    done = company.fsdriver("accept", company.drive / "payroll", "-o", "json")
    assert json.loads(done.stdout) == {"accepted": ["/payroll/june"]}
    assert program.get(path) == "first"
    program.put(path, "third")
    assert program.get(path) == "third"
    eventually(lambda: company.paths("accept") == ["/payroll/june"])
    (rolled_back,) = company.records("rollback")
    (accepted,) = company.records("accept")
    assert rolled_back["file"]["path"] == accepted["file"]["path"] == "/payroll/june"
    assert rolled_back["detail"].startswith("an old copy: generation 1, ")
    assert accepted["detail"].endswith(" was the newest known")


def test_what_is_not_in_the_drive_cannot_be_accepted(company, tmp_path):
    with pytest.raises(CommandFailed, match="is not in the drive") as refused:
        company.fsdriver("accept", tmp_path)
    assert refused.value.code == 2
