"""What happens must be in the log; what cannot be recorded must not happen; nobody makes the log explode."""

import os
import string
import subprocess
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounted.mounted import LISTED, Mounted, get, listed, put, run, wait_until

pytestmark = pytest.mark.mounted


def paths(drive: Mounted, event: str) -> list[str]:
    return [record.file.path for record in drive.records(event) if record.file]


def test_moves_of_folders_and_hard_links_are_recorded(mounted: Mounted) -> None:
    folder = mounted.drive / "moves"
    folder.mkdir()
    (folder / "d").mkdir()
    put(folder / "d" / "f", "content")
    run(["mv", folder / "d", folder / "e"])
    run(["ln", folder / "e" / "f", folder / "link"])
    moves = [(record.file.path, record.to) for record in mounted.records("rename") if record.file]
    assert ("/moves/d", "/moves/e") in moves
    links = [record for record in mounted.records("create") if record.file and record.file.path == "/moves/link"]
    assert [record.detail for record in links] == ["another name of /moves/e/f"]


def test_what_a_listed_program_writes_through_a_redirect_is_a_copy(mounted: Mounted) -> None:
    folder = mounted.drive / "redirects"
    folder.mkdir()
    put(folder / "f", "content" * 10_000)
    run(["/usr/bin/dash", "-c", "/usr/bin/head -c 50000 f > g"], cwd=folder)
    assert len(get(folder / "g")) == 50_000
    copy = ("/redirects/f", "/redirects/g")  # recorded when the descriptor is gone, for which nobody waits
    wait_until(lambda: copy in [(each.file.path, each.to) for each in mounted.records("copy") if each.file])


def test_a_process_with_many_files_open_makes_no_record_for_each_pair(mounted: Mounted) -> None:
    folder = mounted.drive / "pairs"
    folder.mkdir()
    before = len(mounted.records())
    count = 150
    listed(
        "import os, sys\n"
        "top, count = sys.argv[1], int(sys.argv[2])\n"
        "for n in range(count): open(f'{top}/r{n}', 'w').write('x')\n"
        "reading = [open(f'{top}/r{n}') for n in range(count)]\n"
        "for file in reading: file.read()\n"
        "writing = [open(f'{top}/w{n}', 'w', buffering=1) for n in range(count)]\n"
        "for file in writing: file.write('x\\n')\n"
        "os._exit(0)\n",
        folder,
        count,
    )
    wait_until(lambda: len(paths(mounted, "close")) >= 3 * count)
    made = len(mounted.records()) - before
    assert made < 50 * count
    assert any("more copies" in record.to for record in mounted.records("copy"))


@pytest.fixture
def full(own: Mounted) -> Iterator[Mounted]:
    """A drive whose spool's disk can be filled."""
    own.spool.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", own.spool])
    try:
        own.start()
        yield own
    finally:
        own.end()
        run(["umount", "-l", own.spool])


def fill(spool: Path, drive: Path) -> None:
    """No space for one more record: opens use up what is left of the last block, and then the removal of files with
    names of one letter, which makes the shortest record there is."""
    for name in string.ascii_uppercase:
        (drive / name).touch()
    with open(spool / "filler", "wb", buffering=0) as filler:
        size = 1 << 20
        while size:
            try:
                filler.write(bytes(size))
            except OSError:
                size //= 2
    with pytest.raises(OSError, match="Input/output error"):
        deque((drive / "Z").read_bytes() for _ in range(100))
    said = (run(["rm", "-f", drive / name], check=False) for name in string.ascii_uppercase)
    assert any("Input/output error" in each for each in said)


def test_what_cannot_be_recorded_is_not_done_and_leaves_nothing_behind(full: Mounted) -> None:
    for name in ("a", "b", "c"):
        put(full.drive / name, "content")
    script = (
        "import os, sys\n"
        "files = [open(sys.argv[1]) for _ in range(20)]\n"
        "print('open', flush=True); sys.stdin.readline()\n"
        "files.clear()\n"
    )
    reader = subprocess.Popen(
        [LISTED, "-I", "-c", script, str(full.drive / "c")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert reader.stdin is not None
    assert reader.stdout is not None
    with reader.stdin, reader.stdout:
        reader.stdout.readline()
        fill(full.spool, full.drive)
        for command in (["mv", full.drive / "a", full.drive / "z"], ["rm", "-f", full.drive / "b"]):
            assert "Input/output error" in run(command, check=False), command
        assert "OSError" in listed("import os, sys; os.truncate(sys.argv[1], 1)", full.drive / "a", check=False)
        assert "OSError" in listed(
            "import os, sys; os.link(sys.argv[1], sys.argv[1] + 'l')", full.drive / "a", check=False
        )
        reader.stdin.write(b"\n")
        reader.stdin.flush()
        reader.wait()
    assert not (full.drive / "z").exists()
    held = f"/proc/{full.pid}/fd"
    wait_until(lambda: not [fd for fd in os.listdir(held) if link(f"{held}/{fd}").endswith("store/c")])
    (full.spool / "filler").unlink()
    assert [get(full.drive / name) for name in ("a", "b", "c")] == ["content"] * 3


def link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
