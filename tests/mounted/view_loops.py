"""The processes of `test_views`: one writes, the others look, each until its time is over, but some rounds at least.

    python -I view_loops.py write|plain|cipher FOLDER SECONDS

`shrinks` is rewritten, truncated and renamed over; `mapped` keeps its size, as a mapping of a file that shrinks is
SIGBUS on every filesystem; `linked` is a hard link to whatever `shrinks` was a moment ago. A plain size is a multiple
of 16 and not of 4096; a sealed size is a multiple of 4096 (while it is written) or no multiple of 16 (36 bytes a chunk,
up to three chunks). The kernel may hand in one write(2) in pieces that end with a page, so none here crosses one where
that would give a plain size that is a multiple of 4096.
"""

import errno
import json
import mmap
import os
import random
import sys
import time
from pathlib import Path

BLOCK = 16
MAPPED_SIZE = 65_600
MAGIC = b"\x89GrantFS"
ROUNDS = 11


def content(version: int, size: int) -> bytes:
    return b"PLAIN%010d\n" % version * (size // BLOCK)


def some_size(chance: random.Random) -> int:
    return chance.choice((16, 480, 4080, 4112, 32_752, 32_784, 80_000, 90_000))


def replace(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(data)
    os.rename(beside, path)


def write(folder: Path, until: float) -> dict[str, object]:
    chance = random.Random(1)
    shrinks, mapped, linked = folder / "shrinks", folder / "mapped", folder / "linked"
    version = 0
    while time.monotonic() < until or version < ROUNDS:
        version += 1
        step = version % 8
        if step in (0, 1):
            replace(shrinks, content(version, some_size(chance)))
        elif step == 2:
            shrinks.write_bytes(content(version, some_size(chance)))
        elif step == 3:
            os.truncate(shrinks, some_size(chance))
        elif step == 4:
            with open(shrinks, "r+b", 0) as file:
                file.seek(chance.randrange(0, 8) * 4096 + 16)
                file.write(content(version, 3200))
        elif step == 5:
            spare = folder / ".spare"
            os.link(shrinks, spare)
            os.rename(spare, linked)
            if spare.exists():
                os.unlink(spare)
        elif step == 6:
            replace(mapped, content(version, MAPPED_SIZE))
        else:
            with open(mapped, "r+b", 0) as file:
                file.write(content(version, 32_000))
                os.fsync(file.fileno())
    return {"rounds": version, "failures": []}


class Look:
    """One kind of reader: what it may see, and what it saw that it may not."""

    def __init__(self, view: str) -> None:
        self._view = view
        self.failures: list[str] = []

    def size(self, what: str, size: int) -> None:
        plain = size == 0 or (size % BLOCK == 0 and size % 4096 != 0)
        if plain != (self._view == "plain"):
            self.failures.append(f"{what}: size {size}")

    def data(self, what: str, data: bytes) -> None:
        if self._view == "cipher":
            if b"PLAIN" in data:
                self.failures.append(f"{what}: plaintext at {data.find(b'PLAIN')} of {len(data)}")
            elif not data.startswith(MAGIC):
                self.failures.append(f"{what}: no header in {len(data)} bytes: {data[:20]!r}")
            return
        blocks = (data[at : at + BLOCK] for at in range(0, len(data), BLOCK))
        for number, block in enumerate(blocks):
            if block[:5] != b"PLAIN" and block != bytes(BLOCK):
                self.failures.append(f"{what}: {block!r} at block {number} of {len(data)} bytes")
                return

    def once(self, path: Path) -> None:
        name = path.name
        self.size(f"stat {name}", os.stat(path).st_size)
        fd = os.open(path, os.O_RDONLY)
        try:
            self.size(f"fstat {name}", os.fstat(fd).st_size)
            self.size(f"SEEK_END {name}", os.lseek(fd, 0, os.SEEK_END))
            if name == "mapped":
                with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as mapped:
                    self.data(f"mmap {name}", mapped[:])
            self.data(f"read {name}", os.pread(fd, 200_000, 0))
            self.size(f"fstat {name} again", os.fstat(fd).st_size)
        finally:
            os.close(fd)


def look(view: str, folder: Path, until: float) -> dict[str, object]:
    looking, rounds = Look(view), 0
    paths = [folder / name for name in ("shrinks", "mapped", "linked")]
    while time.monotonic() < until or rounds < ROUNDS:
        path = paths[rounds % len(paths)]
        rounds += 1
        try:
            looking.once(path)
        except OSError as exc:
            looking.failures.append(f"{path.name}: {errno.errorcode.get(exc.errno or 0)}: {exc}")
        if len(looking.failures) > 20:
            break
    return {"rounds": rounds, "failures": looking.failures}


def main() -> None:
    kind, folder, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    until = time.monotonic() + seconds
    print(json.dumps(write(folder, until) if kind == "write" else look(kind, folder, until)))


if __name__ == "__main__":
    main()
