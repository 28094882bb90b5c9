"""Drives to try: the memory filesystem in a process of its own, over either transport."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdriver.device import syscalls
from fsdriver.device.mountpoint import MountPoint
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[3]


class Drive:
    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        command = [sys.executable, "-m", "tests.fsdriver.device.daemon", json.dumps({"point": str(path), **options})]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.hello = self._heard()
        self.transport = self.hello.get("transport")

    def ask(self, question: str) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return self._heard()

    def _heard(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr
            raise AssertionError(f"the daemon died: {self.process.stderr.read()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def log(self) -> str:
        """What the daemon said; ends it."""
        _, said = self.process.communicate(timeout=PATIENCE)
        return said

    def end(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream
            stream.close()
        if is_mounted(self.path):
            syscalls.umount(str(self.path), syscalls.MNT_DETACH)
        point = MountPoint(self.path)
        point.release()
        point.close()


def is_mounted(path: Path) -> bool:
    return f" {path} " in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def drives(tmp_path: Path) -> Iterator[Callable[..., Drive]]:
    """Makes drives; unmounts what a test leaves."""
    made: list[Drive] = []

    def make(**options: Any) -> Drive:
        point = tmp_path / f"drive{len(made)}"
        point.mkdir()
        made.append(Drive(point, **options))
        return made[-1]

    yield make
    for drive in made:
        drive.end()


@pytest.fixture(params=["io_uring", "/dev/fuse"])
def transport(request: pytest.FixtureRequest) -> str:
    wanted: str = request.param
    if wanted == "io_uring":
        switch = Path("/sys/module/fuse/parameters/enable_uring")
        if not switch.exists() or switch.read_text().strip() not in ("Y", "1"):
            pytest.skip("FUSE over io_uring is not switched on")
    return wanted


@pytest.fixture
def drive(drives: Callable[..., Drive], transport: str) -> Drive:
    """One mounted memory filesystem on each transport."""
    made = drives(io_uring=transport == "io_uring")
    assert made.transport == transport
    return made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("mounted") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="mounting needs root here"))
