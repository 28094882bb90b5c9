"""A plain user's mount through fusermount3, in a mount namespace where /dev/fuse is open to everybody.

The daemon runs with the system's Python: the device layer needs nothing but the standard library.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PYTHON = "/usr/bin/python3.11"
SOURCES = Path(__file__).parents[3]
UID = 65534
AS_USER = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]

pytestmark = [
    pytest.mark.mounted,
    pytest.mark.root,
    pytest.mark.skipif(
        not (os.path.exists(PYTHON) and shutil.which("fusermount3")), reason="needs Debian's Python and fuse3"
    ),
]


@pytest.fixture
def point() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp())
    home.chmod(0o755)
    drive = home / "dri,ve"
    drive.mkdir(mode=0o755)
    os.chown(drive, UID, UID)
    yield drive
    shutil.rmtree(home)


def daemon(point: Path, mode: str, **options: Any) -> subprocess.Popen[str]:
    script = f"rm -f {point.parent}/fuse && mknod {point.parent}/fuse c 10 229 && chmod {mode} {point.parent}/fuse && "
    script += f"mount --bind {point.parent}/fuse /dev/fuse && "
    # The checkout may lie in a home that others cannot enter.
    script += f"mkdir -p {point.parent}/sources && mount --bind {SOURCES} {point.parent}/sources && "
    script += f'cd {point.parent}/sources && exec "$@"'
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *AS_USER]
    command += [PYTHON, "-m", "tests.fsdriver.device.daemon", json.dumps({"point": str(point), **options})]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
    )


def inside(process: subprocess.Popen[str], command: str) -> str:
    """What `command` prints where the mount is seen, as its user."""
    entered = ["nsenter", "-t", str(process.pid), "-m", *AS_USER, "sh", "-c", command]
    return subprocess.run(entered, capture_output=True, text=True, timeout=60, check=True).stdout


def heard(process: subprocess.Popen[str], question: str = "") -> dict[str, Any]:
    assert process.stdin
    assert process.stdout
    if question:
        process.stdin.write(question + "\n")
        process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


@pytest.mark.parametrize("io_uring", [True, False])
def test_a_plain_user_mounts_through_fusermount3(point: Path, io_uring: bool) -> None:
    with daemon(point, "666", io_uring=io_uring, source="shared, drive") as process:
        assert heard(process)["transport"] in ("io_uring", "/dev/fuse")
        assert inside(process, f"echo hello > '{point}/f'; cat '{point}/f'") == "hello\n"
        (line,) = [line for line in inside(process, "cat /proc/self/mountinfo").splitlines() if str(point) in line]
        assert " - fuse.grantfs shared,\\040drive " in line
        assert {"nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))
        assert f"user_id={UID}" in line
        assert "allow_other" not in line
        assert heard(process, "stop")["unmounted"] == "clean"
        assert point.stat().st_mode & 0o777 == 0
        assert process.stdin
        process.stdin.close()
    # A guarded directory of one's own is mounted on again, and given back on request.
    with daemon(point, "666", io_uring=io_uring) as process:
        assert heard(process)["transport"]
        assert heard(process, "stop-release")["unmounted"] == "clean"
        assert point.stat().st_mode & 0o777 == 0o700
        assert process.stdin
        process.stdin.close()


def test_a_closed_device_names_the_command_for_root(point: Path) -> None:
    with daemon(point, "600") as process:
        assert heard(process)["refused"].endswith("root must run: chmod 0666 /dev/fuse")
    assert point.stat().st_mode & 0o777 == 0o755
