"""A drive whose store lies on a disk that loses power at any moment: ext4 and xfs, with all they keep and lose.

GRANTFS_STORM_SEED in the environment makes the same work and the same cuts, as far as the order of writes is the same.
"""

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsdriver.content import FileKey, Header, SealedFile
from fsdriver.errors import ChunkForged, FileDamaged, HeaderDamaged
from fsdriver.filesystem.store import Store
from keyserver.sealing import SecretKey
from tests.mounted.harness import COMPANY
from tests.mounted.mounted import LISTED, Mounted, run, wait_until
from tests.mounted.posix.support import pattern
from tests.mounted.recording_disk import Cuts, RecordingDisk
from tests.mounted.workloads.worker import Worker

pytestmark = pytest.mark.mounted

MEGABYTE = 1 << 20
DISKS = {"ext4": (64, ["mkfs.ext4", "-q"], "noatime"), "xfs": (300, ["mkfs.xfs", "-q", "-K"], "noatime,nouuid")}
NAMES = "one", "two", "three"
LARGEST = 400_000


class History:
    """One file of the drive: the states it was given, and which of them an fsync has promised."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.content = bytearray()
        self._states: list[tuple[int, bytes]] = [(0, b"")]
        """When the change began, and the content."""
        self._promises: list[tuple[int, int]] = []

    def changed(self, begun: int) -> None:
        self._states.append((begun, bytes(self.content)))

    def synced(self, now: int) -> None:
        self._promises.append((now, len(self._states) - 1))

    def is_promised(self, moment: int) -> bool:
        return any(now <= moment for now, _ in self._promises)

    def allowed(self, moment: int) -> list[bytes]:
        promised = max((state for now, state in self._promises if now <= moment), default=0)
        return [
            content
            for number, (begun, content) in enumerate(self._states)
            if number == promised or (number > promised and begun < moment)
        ]


@contextmanager
def loop(image: Path, point: Path, options: str) -> Iterator[None]:
    run(["mount", "-o", f"loop,{options}", image, point])
    try:
        yield
    finally:
        wait_until(lambda: subprocess.run(["umount", point], capture_output=True).returncode == 0)


class Work:
    """Random changes of a few files of a drive, by a listed program."""

    def __init__(self, drive: Path, disk: RecordingDisk, chance: random.Random) -> None:
        self._disk, self._chance, self._drive = disk, chance, drive
        self.files = [History(name) for name in NAMES]

    def go(self, steps: int) -> None:
        with Worker(LISTED) as worker:
            assert worker.ask("enter", str(self._drive))[0] == "is"
            for number, file in enumerate(self.files):
                self._ask(worker, "open", number, file.name, os.O_RDWR | os.O_CREAT)
            for step in range(steps):
                number = self._chance.randrange(len(self.files))
                self._change(worker, number, self.files[number], step)
            self._ask(worker, "leave")

    def _change(self, worker: Worker, number: int, file: History, seed: int) -> None:
        size, chance, begun = len(file.content), self._chance, len(self._disk.log)
        kind = chance.choice(["write", "write", "append", "truncate", "sync", "sync", "reopen"])
        if kind in ("write", "append"):
            at = size if kind == "append" else chance.randrange(size + 1)
            much = chance.choice([1, 5_000, 40_000, 110_000])
            self._ask(worker, "pwrite", number, much, seed, at)
            file.content[at : at + much] = pattern(much, seed)
            file.changed(begun)
        elif kind == "truncate":
            size = chance.choice([0, size // 2, min(LARGEST, size + 50_000)])
            self._ask(worker, "truncate", number, size)
            del file.content[size:]
            file.content.extend(bytes(size - len(file.content)))
            file.changed(begun)
        elif kind == "reopen":
            self._ask(worker, "close", number)
            self._ask(worker, "open", number, file.name, os.O_RDWR)
        else:
            self._ask(worker, "sync", number, chance.random() < 0.5)
            file.synced(len(self._disk.log))

    def _ask(self, worker: Worker, operation: str, *arguments: object) -> None:
        outcome, answer = worker.ask(operation, *arguments)
        assert outcome == "is", (operation, answer)


def unlock(header: Header) -> FileKey:
    """With the key that the harness lends for a label."""
    label = header.label
    return header.unwrap(header.slots[0], bytes(SecretKey(label + label)))


def content(path: Path) -> bytes | None:
    """None where the file is not there or not readable throughout."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        file = SealedFile.open(fd, unlock)
    except (HeaderDamaged, FileDamaged, ChunkForged):
        os.close(fd)
        return None
    try:
        file.verify()
        return file.read(0, 2 * LARGEST)
    except (FileDamaged, ChunkForged):
        return None
    finally:
        file.close()


@pytest.mark.parametrize(
    ("steps", "most"), [(40, 10), pytest.param(400, 600, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])]
)
@pytest.mark.parametrize("kind", DISKS)
def test_what_was_synced_outlives_a_power_cut_at_any_moment(own: Mounted, kind: str, steps: int, most: int) -> None:
    size, make, options = DISKS[kind]
    seed = int(os.environ.get("GRANTFS_STORM_SEED", random.randrange(10**6)))
    print(f"GRANTFS_STORM_SEED={seed}")
    chance = random.Random(seed)
    image, before, after = (own.directory / name for name in ("image", "before", "after"))
    recorder = own.directory / "recorder"
    recorder.mkdir()
    own.store.mkdir()
    with image.open("wb") as file:
        file.truncate(size * MEGABYTE)
    run([*make, image])
    with loop(image, own.store, options):
        own.start()
        (own.drive / "folder").mkdir()
        own.stop()
    run(["cp", "--sparse=always", image, before])
    disk = RecordingDisk(recorder, image)
    try:
        with loop(disk.file, own.store, options):
            own.start()
            work = Work(own.drive / "folder", disk, chance)
            work.go(steps)
            own.kill()
            own.unmount_dead()
    finally:
        own.end()
        disk.close()
    cuts = Cuts(before, disk.log)
    moments = cuts.flushes()
    moments = sorted(
        [*chance.sample(moments, min(most, len(moments))), *(chance.randrange(len(disk.log)) for _ in range(most))]
    )
    for moment in moments:
        cuts.cut(moment, chance, after)
        with loop(after, own.store, options):
            Store.open(str(own.store), COMPANY, "test").close()
            for history in work.files:
                found = content(own.store / "folder" / history.name)
                if found is not None or history.is_promised(moment):
                    assert found in history.allowed(moment), f"{history.name} after {moment} of {len(disk.log)}"
