import os
from pathlib import Path

import pytest

from fsdriver.identity import scripts
from fsdriver.identity.files import Files

PYTHON = os.path.realpath("/usr/bin/python3")


def run(tmp_path: Path, line: str, arguments: str | None = None) -> scripts.Script:
    script = tmp_path / "script"
    script.write_text(line + "\npass\n")
    script.chmod(0o755)
    words = line.removeprefix("#!").split() if arguments is None else arguments.split()
    return scripts.running([*words, str(script), "more"], PYTHON.encode(), [str(script)], Files())


@pytest.mark.root
@pytest.mark.parametrize("flags", ["-I", "-Is", "-sI", "-BIS"])
@pytest.mark.parametrize("python", ["/usr/bin/python3", PYTHON])
def test_a_script_with_isolated_flags(tmp_path: Path, python: str, flags: str):
    assert run(tmp_path, f"#!{python} {flags}").path == str(tmp_path / "script")
    assert run(tmp_path, f"#! {python} {flags}", f"{python} {flags}")


@pytest.mark.root
@pytest.mark.parametrize(
    "line",
    [
        "#!/usr/bin/python3",
        "#!/usr/bin/python3 -s",
        "#!/usr/bin/python3 -Im",
        "#!/usr/bin/python3 -Ic",
        "#!/usr/bin/python3 -I -i",
        "#!/usr/bin/env python3 -I",
        "#!/bin/sh -I",
        "#!/usr/bin/perl -I",
        "#!python3 -I",
        "import this",
        "",
    ],
)
def test_any_other_first_line_is_refused(tmp_path: Path, line: str):
    with pytest.raises(ValueError, match="first line"):
        run(tmp_path, line, "/usr/bin/python3 -I")


@pytest.mark.root
@pytest.mark.parametrize("arguments", ["python3 -I", f"{PYTHON} -I", "/usr/bin/python3 -IB"])
def test_arguments_that_the_first_line_does_not_give_are_refused(tmp_path: Path, arguments: str):
    with pytest.raises(ValueError, match="through its #! line"):
        run(tmp_path, "#!/usr/bin/python3 -I", arguments)


@pytest.mark.parametrize("arguments", [[], ["/usr/bin/python3"], ["/usr/bin/python3", "-I", "/other"]])
def test_arguments_that_name_no_listed_script_are_refused(arguments: list[str]):
    with pytest.raises(ValueError, match="does not run a listed script"):
        scripts.running(arguments, PYTHON.encode(), ["/some/script"], Files())


@pytest.mark.root
def test_a_script_that_is_missing_is_refused():
    with pytest.raises(ValueError, match="cannot be read"):
        scripts.running(["/usr/bin/python3", "-I", "/usr/none"], PYTHON.encode(), ["/usr/none"], Files())
