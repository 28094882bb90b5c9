import hashlib
import os
from pathlib import Path

import pytest

from fsdriver.identity import Dpkg

ZERO, ONE = "0" * 32, "1" * 32


@pytest.fixture
def admin(tmp_path: Path) -> Path:
    """An empty package database of a system below tmp_path/root, with merged /usr."""
    folder = tmp_path / "admin"
    (folder / "info").mkdir(parents=True)
    (folder / "status").touch()
    (tmp_path / "root/usr/bin").mkdir(parents=True)
    (tmp_path / "root/bin").symlink_to("usr/bin")
    return folder


def install(admin: Path, package: str, *lines: str) -> None:
    (admin / "info" / f"{package}.md5sums").write_text("".join(f"{line}\n" for line in lines))


def owners(admin: Path, path: str) -> list[tuple[str, str, str]]:
    root = admin.parent / "root"
    return [
        (owner.package, owner.algorithm, owner.digest)
        for owner in Dpkg(admin, root).owners(os.fsencode(root) + path.encode())
    ]


def test_a_file_belongs_to_the_package_that_lists_it(admin: Path):
    install(admin, "tool", f"{ZERO}  usr/bin/tool", f"{ONE}  usr/lib/tool/a b.so")
    assert owners(admin, "/usr/bin/tool") == [("tool", "md5", ZERO)]
    assert owners(admin, "/usr/lib/tool/a b.so") == [("tool", "md5", ONE)]
    assert owners(admin, "/usr/bin/other") == []


def test_merged_directories_are_resolved(admin: Path):
    install(admin, "tool", f"{ZERO}  bin/tool", f"{ONE}  lib/notmerged.so")
    assert owners(admin, "/usr/bin/tool") == [("tool", "md5", ZERO)]
    assert owners(admin, "/bin/tool") == []
    assert owners(admin, "/lib/notmerged.so") == [("tool", "md5", ONE)]


def test_the_architecture_is_no_part_of_the_name(admin: Path):
    install(admin, "libc6:amd64", f"{ZERO}  usr/lib/libc.so.6")
    assert owners(admin, "/usr/lib/libc.so.6") == [("libc6", "md5", ZERO)]


def test_two_packages_may_list_one_file(admin: Path):
    install(admin, "a", f"{ZERO}  opt/x")
    install(admin, "b", f"{ONE}  opt/x")
    assert owners(admin, "/opt/x") == [("a", "md5", ZERO), ("b", "md5", ONE)]


def test_documents_are_not_remembered(admin: Path):
    install(admin, "tool", f"{ZERO}  usr/share/doc/tool/README", f"{ZERO}  etc/tool.conf")
    assert owners(admin, "/usr/share/doc/tool/README") == []


def test_a_diverted_file_lies_elsewhere_for_all_packages_but_one(admin: Path):
    (admin / "diversions").write_text("/usr/bin/tool\n/usr/bin/tool.real\nwrapper\n/bin/x\n/bin/x.local\n:\n")
    install(admin, "tool", f"{ZERO}  usr/bin/tool", f"{ZERO}  usr/bin/x")
    install(admin, "wrapper", f"{ONE}  usr/bin/tool")
    assert owners(admin, "/usr/bin/tool") == [("wrapper", "md5", ONE)]
    assert owners(admin, "/usr/bin/tool.real") == [("tool", "md5", ZERO)]
    assert owners(admin, "/usr/bin/x") == []
    assert owners(admin, "/usr/bin/x.local") == [("tool", "md5", ZERO)]


def test_an_upgrade_is_seen(admin: Path):
    install(admin, "tool", f"{ZERO}  opt/tool")
    root = admin.parent / "root"
    dpkg = Dpkg(admin, root)
    path = os.fsencode(root / "opt/tool")
    before = dpkg.state()
    assert [owner.digest for owner in dpkg.owners(path)] == [ZERO]
    install(admin, "tool", f"{ONE}  opt/tool")
    (admin / "status").unlink()
    (admin / "status").write_text("new")
    assert dpkg.state() != before
    assert [owner.digest for owner in dpkg.owners(path)] == [ONE]


def test_a_removed_package_owns_nothing(admin: Path):
    (admin / "info/gone.list").write_text("/opt/gone\n")
    assert owners(admin, "/opt/gone") == []


@pytest.mark.skipif(not Path("/var/lib/dpkg/status").exists(), reason="not a Debian system")
def test_the_systems_own_programs_match_their_packages(dpkg: Dpkg):
    for name in ("/usr/bin/tail", "/usr/bin/dash", "/usr/bin/env"):
        (owner,) = dpkg.owners(os.path.realpath(name).encode())
        with open(name, "rb") as file:
            assert hashlib.file_digest(file, owner.algorithm).hexdigest() == owner.digest
