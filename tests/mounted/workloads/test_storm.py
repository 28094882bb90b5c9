"""kill -9 at random moments, for minutes, under load: what was promised is there, all else is old or new, and readable.

GRANTFS_STORM_SECONDS and GRANTFS_STORM_SEED in the environment make it longer, and make a failure again.
"""

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.mounted.mounted import LISTED, SECONDS, Mounted, run
from tests.mounted.workloads import storm
from tests.mounted.workloads.conftest import POLICY

DURATION = float(os.environ.get("GRANTFS_STORM_SECONDS", "120"))
SEED = int(os.environ.get("GRANTFS_STORM_SEED", str(random.randrange(10**6))))
STORM = Path(storm.__file__)
FILES = ("log", "records", "sizes")
"""Kinds of writers whose every step is judged."""
CONTENT = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"

pytestmark = [pytest.mark.mounted, pytest.mark.slow, pytest.mark.timeout(DURATION + 600)]


def content(path: Path) -> bytes:
    return subprocess.run(
        [LISTED, "-I", "-c", CONTENT, path], stdout=subprocess.PIPE, check=True, timeout=SECONDS
    ).stdout


class Round:
    """From a start of the daemon to its death."""

    def __init__(self, drive: Mounted, number: int, before: dict[str, bytes]) -> None:
        self._drive = drive
        self._seed = SEED * 1_000 + number
        self._before = before
        self._said = {kind: drive.directory / f"said-{number}-{kind}" for kind in (*FILES, "saved", "base")}

    def go(self, chance: random.Random) -> None:
        writers = [
            subprocess.Popen(
                [LISTED, "-I", STORM, kind, self._drive.drive / kind, said, str(self._seed)], stdout=subprocess.DEVNULL
            )
            for kind, said in self._said.items()
        ]
        time.sleep(chance.uniform(0.1, 1.5))
        self._drive.kill()
        for writer in writers:
            writer.wait(SECONDS)
        self._drive.unmount_dead()

    def check(self) -> dict[str, bytes]:
        """What the files have, which is as it should be."""
        found = {}
        for kind in FILES:
            path = self._drive.drive / kind
            if not path.exists():
                assert not self._done(kind)
                continue
            found[kind] = content(path)
            states = storm.allowed(kind, self._seed, self._before.get(kind, b""), self._done(kind))
            assert found[kind] in states, f"{kind} after {self._done(kind)} steps: {len(found[kind])} bytes"
        path, done = self._drive.drive / "saved", self._done("saved")
        if path.exists():
            found["saved"] = content(path)
            versions = [storm.version(self._seed, done), storm.version(self._seed, done + 1)]
            if not done:
                versions[0] = self._before.get("saved", b"nothing yet")
            assert found["saved"] in versions, f"saved {done} times"
        beside = path.with_suffix(".new")
        if beside.exists():
            content(beside)
        if (self._drive.drive / "base").exists():
            verdict, last, *parts = run(
                [LISTED, "-I", STORM, "look", self._drive.drive / "base", "-", self._seed]
            ).split()
            done = self._done("base")
            assert verdict == "ok"
            assert int(last) in (done, done + 1)
            assert set(parts) <= {"5"}
        assert self._drive.records("damaged") == []
        return found

    def _done(self, kind: str) -> int:
        return self._said[kind].stat().st_size if self._said[kind].exists() else 0


def test_a_daemon_that_is_killed_again_and_again(own: Mounted) -> None:
    print(f"GRANTFS_STORM_SEED={SEED}")
    drive = Mounted(own.directory, policy=POLICY)
    chance = random.Random(SEED)
    before: dict[str, bytes] = {}
    end, number = time.monotonic() + DURATION, 0
    try:
        drive.start()
        while time.monotonic() < end:
            number += 1
            this = Round(drive, number, before)
            this.go(chance)
            drive.start()
            before = this.check()
        drive.stop()
        assert drive.log() == ""
    finally:
        drive.end()
    print(f"{number} kills")
