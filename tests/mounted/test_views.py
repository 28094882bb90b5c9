"""Two views of one name, at the same time: nobody ever sees a byte or a size of the other's."""

import json
import os
import subprocess
from pathlib import Path
from typing import TypedDict

import pytest

from tests.mounted.mounted import HERE, LISTED, MAGIC, SECONDS, Mounted, get, listed, put, run, unlisted_python

pytestmark = pytest.mark.mounted


class Report(TypedDict):
    rounds: int
    failures: list[str]


START = """
import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import view_loops, os
folder = Path(sys.argv[2]); folder.mkdir()
(folder / "shrinks").write_bytes(view_loops.content(0, 480))
(folder / "mapped").write_bytes(view_loops.content(0, view_loops.MAPPED_SIZE))
os.link(folder / "shrinks", folder / "linked")
"""


def loop(folder: Path, seconds: float) -> dict[str, list[Report]]:
    """Two listed and two unlisted readers beside one writer; what each kind reported."""
    listed(START, HERE, folder)
    kinds = ["write", "plain", "plain", "cipher", "cipher"]
    running = []
    for kind in kinds:
        program = unlisted_python() if kind == "cipher" else LISTED
        command = [program, "-I", str(HERE / "view_loops.py"), kind, str(folder), str(seconds)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    reports: dict[str, list[Report]] = {kind: [] for kind in kinds}
    try:
        for kind, process in zip(kinds, running, strict=True):
            output = process.communicate(timeout=seconds + SECONDS)[0].decode(errors="replace")
            assert process.returncode == 0, f"{kind}: {output}"
            reports[kind].append(json.loads(output))
    finally:
        for process in running:
            process.kill()
            process.wait()
    return reports


def assert_only_their_own(reports: dict[str, list[Report]]) -> None:
    for kind, several in reports.items():
        for report in several:
            assert report["failures"] == [], f"{kind} after {report['rounds']} rounds"
            assert report["rounds"] > 10, kind


def test_each_sees_only_its_own_view_while_the_file_changes(either: Mounted) -> None:
    assert_only_their_own(loop(either.drive / "loop", 8))


@pytest.mark.slow
def test_each_sees_only_its_own_view_for_a_minute(either: Mounted) -> None:
    assert_only_their_own(loop(either.drive / "minute", 60))


def test_readers_that_look_at_every_read_see_only_their_own_view_too(mounted: Mounted) -> None:
    (mounted.drive / "checked").mkdir(exist_ok=True)
    assert_only_their_own(loop(mounted.drive / "checked" / "loop", 4))


def test_where_every_read_is_checked_an_inherited_descriptor_shows_an_unlisted_program_nothing(
    mounted: Mounted,
) -> None:
    (mounted.drive / "checked").mkdir(exist_ok=True)
    path = mounted.drive / "checked" / "inherited"
    put(path, "canary" * 10_000)
    script = (
        "import os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY); os.set_inheritable(fd, True)\n"
        "os.execv('/usr/bin/cat', ['cat', f'/proc/self/fd/{fd}'])\n"
    )
    reopened = subprocess.run([LISTED, "-I", "-c", script, str(path)], capture_output=True)
    assert b"canary" not in reopened.stdout
    script = script.replace("['cat', f'/proc/self/fd/{fd}']", "['cat']").replace("os.execv", "os.dup2(fd, 0); os.execv")
    passed = subprocess.run([LISTED, "-I", "-c", script, str(path)], capture_output=True)
    assert b"canary" not in passed.stdout
    assert passed.returncode == 1
    assert b"Permission denied" in passed.stderr


def test_one_name_has_two_sizes_and_one_inode_number(mounted: Mounted) -> None:
    path = mounted.drive / "sizes"
    put(path, "x" * 50_000)
    plain = listed("import os, sys; s = os.stat(sys.argv[1]); print(s.st_size, s.st_ino)", path).split()
    sealed = run(["/usr/bin/stat", "-c", "%s %i", path]).split()
    assert plain[0] == "50000"
    assert sealed[0] == str(4096 + 50_000 + 2 * 36)
    assert plain[1] == sealed[1]
    assert path.read_bytes() == (mounted.store / "sizes").read_bytes()
    assert path.read_bytes().startswith(MAGIC)
    assert get(path) == "x" * 50_000


def test_a_file_that_unlisted_programs_may_not_see_shows_its_name_only(mounted: Mounted) -> None:
    (mounted.drive / "hidden").mkdir(exist_ok=True)
    path = mounted.drive / "hidden" / "f"
    put(path, "secret")
    assert os.listdir(mounted.drive / "hidden") == ["f"]
    assert path.stat().st_size
    with pytest.raises(PermissionError):
        path.read_bytes()
    assert get(path) == "secret"


def test_a_file_that_was_moved_keeps_the_view_of_its_own_label(mounted: Mounted) -> None:
    """Its place says plaintext, its header ciphertext: found out when it is opened, and no program sees an error."""
    (mounted.drive / "sealed").mkdir(exist_ok=True)
    path = mounted.drive / "moved"
    for _ in range(5):
        (mounted.drive / "sealed" / "f").write_bytes(b"dropped in")
        run(["mv", mounted.drive / "sealed" / "f", path])
        assert listed("import sys; print(open(sys.argv[1], 'rb').read(8))", path).strip() == repr(MAGIC)
        assert path.read_bytes().startswith(MAGIC)
