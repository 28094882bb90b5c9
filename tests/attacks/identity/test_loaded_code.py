"""A listed program made to run somebody else's code: libraries, memory, loaders."""

import os
import shutil
from pathlib import Path

import pytest

from fsdriver.identity import Callers, Dpkg
from policy import ProgramEntry
from tests.fsdriver.identity.processes import FOREVER, LISTED, PYTHON, TAIL, ask, is_listed, naive, running, say

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
pytestmark = [pytest.mark.root, pytest.mark.skipif(not LIBRARIES.is_dir(), reason="Debian's place for libraries")]


@pytest.mark.parametrize(
    ("variable", "library"),
    [("LD_PRELOAD", "libm.so.6"), ("LD_AUDIT", "audit/sotruss-lib.so"), ("LD_LIBRARY_PATH", "libc.so.6")],
)
def test_a_library_from_a_users_directory(callers: Callers, place: Path, variable: str, library: str):
    evil = Path(shutil.copy(LIBRARIES / library, place))
    value = place if variable == "LD_LIBRARY_PATH" else evil
    with running(FOREVER, env={variable: str(value)}) as process:
        assert naive(process.pid)
        caller = ask(callers, process.pid)
        assert not is_listed(caller)
        assert caller.why_unlisted == f"it runs code from {evil}, which belongs to no package"
    with running(FOREVER, env={variable: str(LIBRARIES if value == place else LIBRARIES / library)}) as process:
        assert is_listed(ask(callers, process.pid))


def test_a_library_that_was_unlinked_after_it_was_loaded(callers: Callers, place: Path):
    evil = Path(shutil.copy(LIBRARIES / "libm.so.6", place))
    with running(FOREVER, env={"LD_PRELOAD": str(evil)}) as process:
        evil.unlink()
        assert naive(process.pid)
        caller = ask(callers, process.pid)
        assert not is_listed(caller)
        assert caller.why_unlisted == f"it runs code from {evil}, which was removed since it started"


def test_a_library_whose_path_names_a_packages_file(callers: Callers, place: Path):
    """A bind mount or a detached mount can give a mapping any path; its inode still tells."""
    evil = Path(shutil.copy(LIBRARIES / "libm.so.6", place))
    command = ["unshare", "-m", "sh", "-c", f"mount --bind {evil} {LIBRARIES}/libm.so.6 && exec {' '.join(FOREVER)}"]
    with running(command, env={"LD_PRELOAD": "libm.so.6"}) as process:
        assert naive(process.pid)
        dismiss = callers.admit(process.pid)
        caller = ask(callers, process.pid)
        dismiss()
        assert not is_listed(caller)
        assert caller.why_unlisted == f"it runs code from another file than the {LIBRARIES}/libm.so.6 that is there now"


def test_the_loader_runs_the_program(callers: Callers):
    """exe is the loader's; its name, its arguments and a mapping of the program's file are as they should be."""
    loader = LIBRARIES / "ld-linux-x86-64.so.2"
    with running([loader, "--argv0", TAIL, *FOREVER]) as process:
        assert TAIL in Path(f"/proc/{process.pid}/maps").read_text()
        assert not is_listed(ask(callers, process.pid))


MAPPED_LATER = """
import mmap, os, sys
for line in sys.stdin:
    how = line.strip()
    if how == "anonymous":
        kept = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    else:
        fd = os.memfd_create("code") if how == "memfd" else os.open(how, os.O_RDWR | os.O_CREAT)
        os.truncate(fd, 4096)
        kept = mmap.mmap(fd, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
"""


def test_anonymous_executable_memory_is_a_fact_for_policy(dpkg: Dpkg):
    now = [0.0]
    callers = Callers(packages=dpkg, now=lambda: now[0])
    callers.set_programs(LISTED)
    with running([PYTHON, "-c", MAPPED_LATER]) as process:
        before = ask(callers, process.pid).program
        say(process, "anonymous")
        assert naive(process.pid, PYTHON)
        now[0] = 1.0  # pages that are writable as well are not counted as code, so nothing tells before
        after = ask(callers, process.pid).program
    callers.close()
    assert before is not None
    assert after is not None
    packages = ("python3.11-minimal",)
    assert ProgramEntry(PYTHON, packages).matches(before)
    assert not ProgramEntry(PYTHON, packages).matches(after)
    assert ProgramEntry(PYTHON, packages, jit=True).matches(after)


@pytest.mark.parametrize("how", ["memfd", "file"])
def test_code_mapped_after_the_process_was_identified(callers: Callers, place: Path, how: str):
    with running([PYTHON, "-c", MAPPED_LATER]) as process:
        assert is_listed(ask(callers, process.pid))
        say(process, how if how == "memfd" else str(place / "code"))
        assert naive(process.pid, PYTHON)
        caller = ask(callers, process.pid)
        assert not is_listed(caller)
        assert caller.why_unlisted.startswith(
            "it runs code from /memfd:code" if how == "memfd" else "it runs code from /tmp"
        )


def test_an_extension_module_from_a_users_directory(callers: Callers, place: Path):
    module = next(Path("/usr/lib/python3.11/lib-dynload").glob("_sqlite3.*"))
    shutil.copy(module, place)
    code = "import sys\nfor line in sys.stdin: __import__(line.strip())"
    for path, listed in ((str(place), False), (os.devnull, True)):
        with running([PYTHON, "-c", code], env={"PYTHONPATH": path}) as process:
            assert is_listed(ask(callers, process.pid))
            say(process, "_sqlite3")
            assert naive(process.pid, PYTHON)
            assert is_listed(ask(callers, process.pid)) == listed
