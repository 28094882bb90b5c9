"""Descriptors that change hands, folders that labels name, trees deeper than a stack, more files than descriptors."""

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounted.mounted import LISTED, Mounted, get, listed, put, remove, run, temporary_directory

pytestmark = pytest.mark.mounted


def test_no_folder_takes_the_name_of_one_that_a_label_names(mounted: Mounted) -> None:
    (mounted.drive / "clients").mkdir(exist_ok=True)
    (mounted.drive / "mine").mkdir()
    for script in ("os.rename(a, b)", "os.rename(b, a)", "os.rmdir(b)"):
        said = listed(
            f"import os, sys; a, b = sys.argv[1:]; {script}",
            mounted.drive / "mine",
            mounted.drive / "clients",
            check=False,
        )
        assert "busy" in said


@pytest.fixture
def strict() -> Iterator[Mounted]:
    """A drive with a program that may read and not write."""
    drive = Mounted(temporary_directory(), policy=Path(__file__).parent / "policy")
    try:
        drive.start()
        yield drive
    finally:
        drive.end()
        remove(drive.directory)


def test_whoever_may_only_read_cannot_write_through_a_descriptor_that_it_has_read_from(strict: Mounted) -> None:
    path = strict.drive / "f"
    put(path, "content" * 15_000)
    script = (
        "import os, sys, subprocess\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # so that tail's reads reach the drive\n"
        "sys.exit(subprocess.run(['/usr/bin/tail', '-c', '4'], stdin=fd, stdout=fd).returncode)\n"
    )
    said = subprocess.run([LISTED, "-I", "-c", script, str(path)], capture_output=True)
    assert b"Permission denied" in said.stderr
    assert get(path) == "content" * 15_000
    assert [r.detail for r in strict.records("denied") if r.detail.startswith("write refused by company/readers-read")]


def test_a_tree_deeper_than_a_stack_is_served_and_hinders_nobody(mounted: Mounted) -> None:
    top = mounted.drive / "deep"
    top.mkdir()
    script = (
        "import os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "for _ in range(1500): os.mkdir('d'); os.chdir('d')\n"
        "file = open('f', 'w'); file.write('at the bottom'); file.flush()\n"
        "os.mkdir(sys.argv[1] + '/x'); os.rename(sys.argv[1] + '/x', sys.argv[1] + '/y')\n"
        "file.close(); print(open('f').read())\n"
    )
    assert listed(script, top).strip() == "at the bottom"
    run(["rm", "-rf", top])
    assert not top.exists()


def test_who_holds_more_files_than_the_daemon_has_descriptors_is_refused_alone(own: Mounted) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3200, hard))
    try:
        own.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    folder = own.drive / "many"
    folder.mkdir()
    for n in range(300):
        (folder / str(n)).write_bytes(b"")
    held: list[int] = []
    try:
        with pytest.raises(OSError, match="Too many open files in system"):
            held.extend(os.open(folder / str(n), os.O_RDONLY) for n in range(300))
        assert len(os.listdir(folder)) == 300
        assert "Too many open files in system" in run(["/usr/bin/touch", folder / "new"], check=False)
    finally:
        for fd in held:
            os.close(fd)
    put(folder / "new", "served again")
    assert get(folder / "new") == "served again"


def test_a_file_takes_so_many_locks_and_no_more(mounted: Mounted) -> None:
    path = mounted.drive / "locks"
    put(path, "x")
    said = listed(
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'r+')\n"
        "for n in range(5000): fcntl.lockf(file, fcntl.LOCK_EX, 1, 2 * n)\n",
        path,
        check=False,
    )
    assert "No locks available" in said
    assert get(path) == "x"


def test_chmod_follows_no_link_that_takes_a_names_place(mounted: Mounted, tmp_path: Path) -> None:
    """Somebody who may write to the store puts a link to any file of the machine where a document was."""
    victim = tmp_path / "victim"
    victim.write_text("")
    victim.chmod(0o600)
    put(mounted.drive / "swapped", "x")
    fd = os.open(mounted.drive / "swapped", os.O_PATH)
    try:
        (mounted.store / "swapped").unlink()
        (mounted.store / "swapped").symlink_to(victim)
        with pytest.raises(OSError, match="Stale|supported"):
            os.chmod(f"/proc/self/fd/{fd}", 0o777)
    finally:
        os.close(fd)
        (mounted.store / "swapped").unlink()
    assert victim.stat().st_mode & 0o777 == 0o600
