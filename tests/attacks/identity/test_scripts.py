"""An interpreter made to run something else than the script that policy lists."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdriver.identity import Caller, Callers, Dpkg
from policy import ProgramEntry
from tests.fsdriver.identity.processes import PYTHON, ask, is_listed, naive, running

pytestmark = pytest.mark.root


@pytest.fixture
def script(place: Path) -> Path:
    """A script with isolated flags, that only root can change."""
    path = place / "report"
    path.write_text(f"#!{PYTHON} -I\nimport sys\nsys.stdin.readline()\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def entry(script: Path) -> ProgramEntry:
    return ProgramEntry(PYTHON, ("python3.11-minimal",), script=str(script))


@pytest.fixture
def callers(dpkg: Dpkg, entry: ProgramEntry) -> Iterator[Callers]:
    made = Callers(packages=dpkg)
    made.set_programs([entry])
    yield made
    made.close()


def matches(entry: ProgramEntry, caller: Caller) -> bool:
    return caller.program is not None and is_listed(caller) and entry.matches(caller.program)


def test_the_script_itself(callers: Callers, script: Path, entry: ProgramEntry):
    with running([script, "--month", "3"]) as process:
        caller = ask(callers, process.pid)
        assert matches(entry, caller)
        assert caller.argv_only
        assert caller.program is not None
        assert (caller.program.script, len(caller.program.script_sha256)) == (str(script), 64)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-I", "-c", "input()", "{script}"],
        ["-c", "input()", "-I", "{script}"],
        ["-I", "-m", "code"],
        ["-I", "-"],
        ["-I"],
        ["{script}"],
        ["-i", "{script}"],
        ["-I", "{place}/other"],
        ["-I", "{place}/./report"],
    ],
)
def test_the_interpreter_with_other_arguments(
    callers: Callers, script: Path, place: Path, entry: ProgramEntry, arguments: list[str]
):
    (place / "other").write_text("input()")
    words = [word.format(script=script, place=place) for word in arguments]
    with running([PYTHON, *words]) as process:
        assert naive(process.pid, PYTHON)
        assert not matches(entry, ask(callers, process.pid))


def test_arguments_that_end_like_the_scripts(callers: Callers, script: Path, entry: ProgramEntry):
    with running([PYTHON, "-c", "input()", script]) as process:
        assert naive(process.pid, PYTHON)
        assert os.fsencode(script) in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert not matches(entry, ask(callers, process.pid))


def test_a_script_that_others_can_change(callers: Callers, script: Path, entry: ProgramEntry):
    for target, mode, listed in ((script, 0o777, False), (script, 0o755, True), (script.parent, 0o777, False)):
        before = target.stat().st_mode
        target.chmod(mode)
        with running([script]) as process:
            assert matches(entry, ask(callers, process.pid)) == listed
        target.chmod(before)


def test_a_script_without_isolated_flags(callers: Callers, script: Path, entry: ProgramEntry):
    script.write_text(script.read_text().replace(" -I", ""))
    with running([script], env={"PYTHONSTARTUP": "/dev/null"}) as process:
        assert not matches(entry, ask(callers, process.pid))


def test_a_library_preloaded_into_the_script(callers: Callers, script: Path, place: Path, entry: ProgramEntry):
    library = Path("/usr/lib/x86_64-linux-gnu/libmvec.so.1")
    evil = place / library.name
    evil.write_bytes(library.read_bytes())
    with running([script], env={"LD_PRELOAD": str(evil)}) as process:
        assert not matches(entry, ask(callers, process.pid))
    with running([script], env={"LD_PRELOAD": str(library)}) as process:
        assert matches(entry, ask(callers, process.pid))


def test_arguments_rewritten_by_the_process_are_a_stated_limit(callers: Callers, script: Path, entry: ProgramEntry):
    """Whoever runs the interpreter can write its arguments; that is why `argv_only` marks the caller."""
    pad = "x" * 200
    code = (
        "import ctypes\nfields = open('/proc/self/stat').read().rpartition(')')[2].split()\n"
        f"new = b'\\0'.join([{PYTHON.encode()!r}, b'-I', {os.fsencode(script)!r}]) + b'\\0'\n"
        "start, end = int(fields[45]), int(fields[46])\n"
        "ctypes.memmove(start, new.ljust(end - start, b'\\0'), end - start)\ninput()"
    )
    with running([PYTHON, "-c", code, pad]) as process:
        caller = ask(callers, process.pid)
        assert matches(entry, caller)
        assert caller.argv_only
