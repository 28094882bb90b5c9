"""Programs of an installed package: replaced, patched, upgraded."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsdriver.identity import Callers, Dpkg
from policy import ProgramEntry
from tests.fsdriver.identity.processes import TAIL, Joined, ask, is_listed, naive, running

LIBRARY = "/usr/lib/x86_64-linux-gnu/libm.so.6"
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg"),
]
Install = Callable[[int], Path]


@pytest.fixture
def install(place: Path) -> Install:
    """Build version N of a package with a program and a library, and install it below a root of its own."""
    root = place / "root"
    for folder in ("var/lib/dpkg/info", "var/lib/dpkg/updates"):
        (root / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()

    def run(version: int) -> Path:
        tree = place / f"grantfs-tool-{version}"
        for path, source in (("usr/bin/tool", TAIL), ("usr/lib/tool/libtool.so", LIBRARY)):
            (tree / path).parent.mkdir(parents=True)
            (tree / path).write_bytes(Path(source).read_bytes() + b"version %d" % version)
            (tree / path).chmod(0o755)
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(
            f"Package: grantfs-tool\nVersion: {version}\nArchitecture: all\nMaintainer: none\nDescription: none\n"
        )
        files = ("usr/bin/tool", "usr/lib/tool/libtool.so")
        sums = subprocess.run(["md5sum", *files], cwd=tree, capture_output=True, check=True)
        (tree / "DEBIAN/md5sums").write_bytes(sums.stdout)
        archive = place / f"{version}.deb"
        subprocess.run(["dpkg-deb", "--build", tree, archive], check=True, capture_output=True)
        command = ["dpkg", f"--root={root}", "--force-bad-path,unsafe-io", "--install", str(archive)]
        subprocess.run(command, check=True, capture_output=True)
        return root

    return run


@pytest.fixture
def root(install: Install) -> Path:
    """The package's first version, installed."""
    return install(1)


@pytest.fixture
def callers(dpkg: Dpkg, root: Path) -> Iterator[Callers]:
    made = Callers(packages=Joined(dpkg, Dpkg(root / "var/lib/dpkg", root)))
    made.set_programs([ProgramEntry(str(root / "usr/bin/tool"), ("grantfs-tool",))])
    yield made
    made.close()


def tool(root: Path):
    library = root / "usr/lib/tool/libtool.so"
    return running([root / "usr/bin/tool", "-f", "/dev/null"], env={"LD_PRELOAD": str(library)})


def test_the_installed_program(callers: Callers, root: Path):
    with tool(root) as process:
        caller = ask(callers, process.pid)
        assert is_listed(caller)
        assert caller.program is not None
        assert caller.program.packages == {"grantfs-tool"}


def test_an_upgrade_needs_no_other_policy(callers: Callers, root: Path, install: Install):
    with tool(root) as process:
        first = ask(callers, process.pid)
    install(2)
    with tool(root) as process:
        second = ask(callers, process.pid)
    assert is_listed(first)
    assert is_listed(second)
    assert first.sha256 != second.sha256


def test_a_program_upgraded_while_it_runs_keeps_its_trust(callers: Callers, root: Path, install: Install):
    with tool(root) as process:
        first = ask(callers, process.pid)
        install(2)
        assert os.readlink(f"/proc/{process.pid}/exe").endswith(" (deleted)")
        caller = callers.identify(process.pid, 0)
        assert is_listed(caller)
        assert caller.program == first.program
        assert callers.known(process.pid, 0, thorough=True) is caller


def test_a_program_replaced_before_it_was_ever_identified(callers: Callers, root: Path, install: Install):
    with tool(root) as process:
        install(2)
        caller = ask(callers, process.pid)
        assert not is_listed(caller)
        assert caller.why_unlisted == "its program file was replaced since it started"


@pytest.mark.parametrize("path", ["usr/bin/tool", "usr/lib/tool/libtool.so"])
def test_a_file_patched_in_place_loses_its_trust_at_once(callers: Callers, root: Path, path: str):
    with tool(root) as process:
        assert is_listed(ask(callers, process.pid))
    good = (root / path).read_bytes()
    (root / path).write_bytes(good[:-1] + b"!")  # same inode, same size
    with tool(root) as process:
        assert naive(process.pid, str(root / "usr/bin/tool"))
        assert not is_listed(ask(callers, process.pid))
    (root / path).write_bytes(good)
    with tool(root) as process:
        assert is_listed(ask(callers, process.pid))


def test_a_library_patched_under_a_running_program(dpkg: Dpkg, root: Path):
    now = [0.0]
    callers = Callers(packages=Joined(dpkg, Dpkg(root / "var/lib/dpkg", root)), now=lambda: now[0])
    callers.set_programs([ProgramEntry(str(root / "usr/bin/tool"), ("grantfs-tool",))])
    with tool(root) as process:
        assert is_listed(ask(callers, process.pid))
        with open(root / "usr/lib/tool/libtool.so", "r+b") as library:
            library.seek(-1, os.SEEK_END)
            library.write(b"!")
        now[0] = 1.0
        caller = ask(callers, process.pid)
        assert not is_listed(caller)
        assert "which is not as package grantfs-tool installed it" in caller.why_unlisted
    callers.close()


@pytest.mark.parametrize("path", ["usr/bin/tool", "usr/lib/tool/libtool.so"])
def test_a_file_that_others_than_root_can_change(callers: Callers, root: Path, path: str):
    (root / path).chmod(0o775)
    with tool(root) as process:
        assert not is_listed(ask(callers, process.pid))
    (root / path).chmod(0o755)
    os.chown(root / path, 65534, 0)
    with tool(root) as process:
        assert not is_listed(ask(callers, process.pid))


def test_another_file_moved_to_the_programs_place(callers: Callers, root: Path):
    with tool(root) as process:
        assert is_listed(ask(callers, process.pid))
    (root / "usr/bin/tool").rename(root / "usr/bin/kept")
    shutil.copy(TAIL, root / "usr/bin/tool")
    with tool(root) as process:
        assert naive(process.pid, str(root / "usr/bin/tool"))
        assert not is_listed(ask(callers, process.pid))


def test_the_program_of_a_removed_package(callers: Callers, root: Path):
    kept = (root / "usr/bin/tool").read_bytes()
    subprocess.run(["dpkg", f"--root={root}", "--purge", "grantfs-tool"], check=True, capture_output=True)
    (root / "usr/bin").mkdir(parents=True, exist_ok=True)
    (root / "usr/bin/tool").write_bytes(kept)
    (root / "usr/bin/tool").chmod(0o755)
    with running([root / "usr/bin/tool", "-f", "/dev/null"]) as process:
        assert not is_listed(ask(callers, process.pid))
