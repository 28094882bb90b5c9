"""No content lies anywhere in the clear: not in the store, not in the spool."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.mounted.mounted import Mounted, get, listed, put, run, unlisted_python

pytestmark = pytest.mark.mounted

CANARY = "CANARY-7f3a91c2"


def lies_in(directory: Path) -> list[Path]:
    """Files below `directory` whose bytes hold the canary; holes are not read."""
    found = []
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder) / name
            if path.is_file() and not path.is_symlink() and CANARY.encode() in path.read_bytes():
                found.append(path)
    return found


def test_nothing_of_any_content_is_in_the_store_or_the_spool(mounted: Mounted, tmp_path: Path) -> None:
    drive = mounted.drive
    put(drive / "short", CANARY)
    listed("import sys; open(sys.argv[1], 'w').write(sys.argv[2] * 100_000)", drive / "long", CANARY)
    # In place, at every size; mapped; as an attribute.
    listed(
        "import mmap, os, sys\n"
        "path, canary = sys.argv[1], sys.argv[2].encode()\n"
        "with open(path, 'w+b', 0) as f:\n"
        "    for at in (0, 20, 32760, 65536, 200_000): os.pwrite(f.fileno(), canary, at); os.fsync(f.fileno())\n"
        "    os.truncate(path, 65540); m = mmap.mmap(f.fileno(), 0); m[1000:1000 + len(canary)] = canary; m.flush()\n"
        "    os.copy_file_range(f.fileno(), f.fileno(), 5000, offset_src=0, offset_dst=100_000)\n"
        "os.setxattr(path, 'user.note', canary)\n"
        "assert os.getxattr(path, 'user.note') == canary\n",
        drive / "places",
        CANARY,
    )
    stored = mounted.store / "places"
    assert not [name for name in os.listxattr(stored) if CANARY.encode() in os.getxattr(stored, name)]
    # Dropped in: whole, appended to a new file, replacing, killed half-way, and still being written.
    (tmp_path / "plain").write_text(CANARY * 5000)
    run(["cp", tmp_path / "plain", drive / "dropped"])
    run(["cp", tmp_path / "plain", drive / "short"])
    run(["/usr/bin/dash", "-c", f"echo {CANARY} >> appended"], cwd=drive)
    script = (
        "import os, sys, time; f = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC); os.write(f, sys.stdin.buffer.read())"
    )
    script += "; print('written', flush=True); time.sleep(1000)"
    writer = subprocess.Popen(
        [unlisted_python(), "-I", "-c", script, str(drive / "dropped")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    with writer.stdin, writer.stdout:
        writer.stdin.write(CANARY.encode() * 9000)
        writer.stdin.close()
        writer.stdout.readline()
        assert lies_in(mounted.store) == []
        writer.kill()
        writer.wait()
    # Programs' own temporary files on the drive.
    run(["sqlite3", drive / "base", f"create table t (x); insert into t values ('{CANARY}');"])
    run(["git", "init", "-q", drive / "work"])
    put(drive / "work" / "file", CANARY)
    run(["git", "-C", drive / "work", "add", "file"])
    run(["tar", "-C", drive / "work", "-cf", drive / "archive.tar", "file"])
    assert CANARY in listed("import sys; print(open(sys.argv[1]).read())", drive / "archive.tar")

    assert lies_in(mounted.store) == []
    assert lies_in(mounted.spool) == []
    run(["cp", "-r", drive, tmp_path / "out"])
    assert lies_in(tmp_path / "out") == []
    assert get(drive / "appended") == CANARY + "\n"


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "f").write_text(f"xx{CANARY}")
    assert lies_in(tmp_path) == [tmp_path / "f"]
