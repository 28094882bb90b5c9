import json

import pytest
from click.testing import CliRunner, Result

from policy import SAMPLES
from policy.cli import main
from tests.policy.samples import SALES


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "sales.yaml"
    path.write_text(SALES.replace("view: plaintext", "view: plaintxt").replace("lease: 15m", "lease: soon"))
    return path


def test_check_is_silent_about_good_files():
    result = run("check", SAMPLES)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "no problems: 4 departments, 8 labels, 16 rules, 29 cases\n"
    assert run("check", SAMPLES, "-o", "json").stdout == "[]\n"
    assert run("check", SAMPLES, "-o", "jsonl").stdout == ""


def test_check_prints_every_problem(broken):
    result = run("check", broken)
    assert result.exit_code == 1
    assert result.stderr == "2 problems\n"
    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == [f"{broken}:8:83", f"{broken}:16:11"]
    rows = json.loads(run("check", broken, "-o", "json").stdout)
    assert [(row["line"], row["column"]) for row in rows] == [(8, 83), (16, 11)]


def test_test_passes_and_fails_with_the_cases(tmp_path):
    assert run("test", SAMPLES).exit_code == 0
    path = tmp_path / "sales.yaml"
    path.write_text(SALES.replace("because: default", "because: backup"))
    result = run("test", path)
    assert result.exit_code == 7
    assert f"{path}:20: FAILED: because default, expected backup" in result.stdout
    (row,) = [json.loads(line) for line in run("test", path, "-o", "jsonl").stdout.splitlines()]
    assert (row["passed"], row["because"], row["complaint"]) == (False, "default", "because default, expected backup")


def test_explain_prints_a_sentence_and_the_trace():
    ask = ("--user", "li", "--department", "sales", "--program", "/usr/bin/head", "--file", "/sales/clients/a")
    result = run("explain", SAMPLES, *ask)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == (
        "li may read /sales/clients/a with /usr/bin/head and sees plaintext: "
        "rule sales-work-on-clients of label sales/clients decides."
    )
    found = json.loads(
        run("explain", SAMPLES, *ask, "--action", "write", "--at", "2026-03-02T09:00", "-o", "json").stdout
    )
    assert (found["allowed"], found["rule"], found["label"]) == (True, "sales/sales-work-on-clients", "sales/clients")
    assert "明文" in run("explain", SAMPLES, *ask, "--language", "zh").stdout


def test_explain_refuses_a_time_that_is_none():
    ask = ("--user", "li", "--program", "/usr/bin/head", "--file", "/a", "--at", "noon")
    assert run("explain", SAMPLES, *ask).exit_code == 2


@pytest.mark.parametrize("which", ["department", "company"])
def test_schema_prints_a_schema_that_is_complete_in_itself(which):
    result = run("schema", which)
    assert result.exit_code == 0
    assert '"$ref": "department.json' not in result.stdout
    assert json.loads(result.stdout)["required"] == [which]


@pytest.mark.parametrize("command", ["check", "test"])
def test_what_is_not_there_is_not_found(tmp_path, command):
    assert run(command, tmp_path / "none").exit_code == 4
    assert run(command, tmp_path).exit_code == 4
    assert run(command).exit_code == 2


def test_what_cannot_be_loaded_cannot_be_tested_or_explained(broken):
    result = run("test", broken)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "found 'soon', expected a lease" in result.stderr
