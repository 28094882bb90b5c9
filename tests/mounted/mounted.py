"""A drive of the harness as tests use it: started, asked, killed, and cleaned up whatever happened."""

import atexit
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from fsdriver.device.mountpoint import MountPoint
from fsdriver.spool_segment import HEAD_SIZE, SegmentDamaged, frames
from keyserver.messages import Record
from tests.patience import PATIENCE

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
POLICY = HERE / "policy"
LISTED = "/usr/bin/python3.11"
"""An interpreter the test policy lists, unlike the one that runs pytest."""
MAGIC = b"\x89GrantFS"
DANA = 1000
"""A uid that is a person to the drive, beside root."""
PERSONS = {0: "li", DANA: "dana"}
STRANGER = 4242
"""A uid that is nobody to the drive."""
SECONDS = 2 * PATIENCE


class Mounted:
    """One harness process. `drive`, `spool` and, unless it is another's, `store` are below `directory`, which is on a
    disk with xattrs."""

    def __init__(
        self,
        directory: Path,
        *,
        transport: str = "io_uring",
        policy: Path = POLICY,
        persons: Mapping[int, str] = PERSONS,
        store: Path | None = None,
        machine: str = "test",
        profile: Path | None = None,
    ) -> None:
        self.directory = directory
        self.drive = directory / "drive"
        self.store = store or directory / "store"
        self.machine = machine
        self.spool = directory / "spool"
        self.transport = transport
        self._policy = policy
        self._persons = persons
        self._profile = profile
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.serves_over = ""
        """"io_uring" or "/dev/fuse", once started."""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when the drive answers. Errors: MountFailed, with what the harness said."""
        arguments = [str(self.directory), "--policy", str(self._policy), "--transport", self.transport]
        arguments += ["--store", str(self.store), "--machine", self.machine]
        if self._profile is not None:
            arguments += ["--profile", str(self._profile)]
        for uid, name in self._persons.items():
            arguments += ["--person", f"{uid}={name}"]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.mounted.harness", *arguments],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], SECONDS)
        line = self._process.stdout.readline() if readable else b""
        if not line:
            self.end()
            raise MountFailed(self.log())
        self.serves_over = json.loads(line)["transport"]

    def stop(self) -> None:
        """SIGTERM, as an ordinary end: nothing may be left mounted, nothing unexpected said."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            assert self._process.wait(SECONDS) == 0
        finally:
            self.end()

    def kill(self) -> None:
        """kill -9. The dead mount stays."""
        process, self._process = self._process, None
        assert process is not None
        assert process.stdout is not None
        with process.stdout:
            process.kill()
            process.wait()

    def unmount_dead(self) -> None:
        subprocess.run(["umount", "-l", self.drive], check=True, timeout=SECONDS)

    def end(self) -> None:
        """Whatever state it is in: no process, no mount, an ordinary mount point."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        while str(self.drive) in mount_points():
            subprocess.run(["umount", "-l", self.drive], check=True, timeout=SECONDS)
        if self.drive.is_dir() and not any(self.drive.iterdir()):
            point = MountPoint(self.drive)
            point.release()
            point.close()

    def holds(self) -> dict[str, int]:
        """How many "nodes" the kernel has been told of and not forgotten, and how many "files" are open. With a profile
        also how many requests of each kind were answered so far ("Open") and the processor time of their handlers in
        nanoseconds ("Open ns")."""
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGUSR1)
        held: dict[str, int] = json.loads(self._process.stdout.readline())
        return held

    def resident(self) -> int:
        """Bytes (VmRSS)."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    def processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def log(self) -> str:
        """What the harness said on stderr so far."""
        return self._log.read_text() if self._log.exists() else ""

    def records(self, event: str | None = None) -> list[Record]:
        """The records in the spool, all or of one event; a torn last one is left out."""
        found = []
        for segment in sorted(self.spool.glob("*.seg")):
            try:
                for frame in frames(segment.read_bytes(), HEAD_SIZE, None):
                    found.append(msgspec.json.decode(frame.record, type=Record))
            except SegmentDamaged as exc:
                if not exc.torn:
                    raise
        return [record for record in found if event is None or record.event == event]


class MountFailed(Exception):
    pass


def mount_points() -> set[str]:
    return {line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def temporary_directory() -> Path:
    """On the disk, and open to other uids."""
    path = Path(tempfile.mkdtemp(prefix="grantfs-test-"))
    path.chmod(0o755)
    return path


def remove(directory: Path) -> None:
    assert not [point for point in mount_points() if point.startswith(str(directory))]
    shutil.rmtree(directory)


@functools.cache
def unlisted_python() -> str:
    """An interpreter that no policy lists; `sys.executable` may be LISTED, in a venv of Debian's Python."""
    directory = temporary_directory()
    atexit.register(shutil.rmtree, directory)
    return shutil.copy(LISTED, str(directory))


def listed(script: str, *arguments: object, timeout: float = SECONDS, check: bool = True) -> str:
    """Python text run by a program with the plaintext view; what it printed."""
    return run([LISTED, "-I", "-c", script, *map(os.fspath, map(str, arguments))], timeout=timeout, check=check)


def run(command: Sequence[object], *, timeout: float = SECONDS, check: bool = True, cwd: Path | None = None) -> str:
    """Any program's output, both streams. Errors: AssertionError with that output, where it fails and `check`."""
    with subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        start_new_session=True,
    ) as process:
        try:
            output = process.communicate(timeout=timeout)[0].decode(errors="replace")
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # its children, too
            raise
    if check:
        assert process.returncode == 0, f"{command[0]} ended with {process.returncode}:\n{output}"
    return output


def wait_until(condition: object, seconds: float = PATIENCE) -> None:
    """Polls a function until it is true."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


WRITE = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_bytes(sys.argv[2].encode())"
READ = "import sys, pathlib; sys.stdout.buffer.write(pathlib.Path(sys.argv[1]).read_bytes())"


def put(path: Path, text: str) -> None:
    """A document, written by a listed program."""
    listed(WRITE, path, text)


def get(path: Path) -> str:
    """A document, read by a listed program."""
    return listed(READ, path)
