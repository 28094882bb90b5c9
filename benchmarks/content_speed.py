"""How fast the content layer is on its own, without FUSE: `python benchmarks/content_speed.py [--dir DIR]`.

Prints one line a row: the median of seven rounds. Files lie in DIR, /dev/shm unless said, so that no disk is measured.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fsdriver.content import FileKey, Header, RedoLog, SealedFile, wrap

MIB = 1 << 20
ROUNDS = 7
KEY = FileKey(os.urandom(32))
LABEL_KEY = os.urandom(32)
COMPANY, LABEL, KEY_ID = os.urandom(16), os.urandom(16), os.urandom(16)


def unlock(header: Header) -> FileKey:
    return header.unwrap(header.slots[0], LABEL_KEY)


def create(path: Path, redo: RedoLog | None = None) -> SealedFile:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    file_id = os.urandom(16)
    slot = wrap(KEY, LABEL_KEY, file_id=file_id, company=COMPANY, label=LABEL, key_id=KEY_ID, version=1)
    return SealedFile.create(
        fd,
        file_id=file_id,
        company=COMPANY,
        label=LABEL,
        file_key=KEY,
        slots=[slot],
        redo=redo,
        path=os.fsencode(path.name),
    )


def median(round_: Callable[[], float]) -> float:
    """Median of ROUNDS results, after one that does not count."""
    round_()
    return statistics.median(round_() for _ in range(ROUNDS))


def write_sequential(folder: Path, request: int, total: int = 256 * MIB) -> float:
    file = create(folder / "big")
    data = os.urandom(request)
    start = time.perf_counter()
    for offset in range(0, total, request):
        file.write(offset, data)
    file.flush()
    spent = time.perf_counter() - start
    file.close()
    return total / spent / 1e6


def read_sequential(folder: Path, request: int, total: int = 256 * MIB) -> float:
    file = SealedFile.open(os.open(folder / "big", os.O_RDWR), unlock)
    out = memoryview(bytearray(request))
    start = time.perf_counter()
    for offset in range(0, total, request):
        file.read_into(offset, out)
    spent = time.perf_counter() - start
    file.close()
    return total / spent / 1e6


def verify(folder: Path, total: int = 256 * MIB) -> float:
    file = SealedFile.open(os.open(folder / "big", os.O_RDWR), unlock)
    start = time.perf_counter()
    file.verify()
    spent = time.perf_counter() - start
    file.close()
    return total / spent / 1e6


def random_read(folder: Path, count: int = 5000) -> float:
    file = SealedFile.open(os.open(folder / "big", os.O_RDWR), unlock)
    out = memoryview(bytearray(4096))
    places = [int.from_bytes(os.urandom(2), "big") * 4096 for _ in range(count)]
    start = time.perf_counter()
    for place in places:
        file.read_into(place, out)
    spent = time.perf_counter() - start
    file.close()
    return spent / count * 1e6


def random_write(folder: Path, redo: RedoLog | None, count: int = 3000) -> float:
    file = SealedFile.open(os.open(folder / "big", os.O_RDWR), unlock, redo=redo, path=b"big")
    data = os.urandom(4096)
    places = [int.from_bytes(os.urandom(2), "big") * 4096 for _ in range(count)]
    start = time.perf_counter()
    for place in places:
        file.write(place, data)
    file.flush()
    spent = time.perf_counter() - start
    file.close()
    return spent / count * 1e6


def small_files(folder: Path, size: int, count: int = 1000) -> tuple[float, float]:
    """Microseconds a file: made (header, content, flush) and opened, read whole and closed; open(2) not counted in."""
    data, out = os.urandom(size), memoryview(bytearray(size))
    made = read = 0.0
    for _ in range(count):
        path = folder / "small"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        start = time.perf_counter()
        file_id = os.urandom(16)
        slot = wrap(KEY, LABEL_KEY, file_id=file_id, company=COMPANY, label=LABEL, key_id=KEY_ID, version=1)
        file = SealedFile.create(
            fd, file_id=file_id, company=COMPANY, label=LABEL, file_key=KEY, slots=[slot], path=b"small"
        )
        if size:
            file.write(0, data)
        file.flush()
        made += time.perf_counter() - start
        file.close()
        fd = os.open(path, os.O_RDWR)
        start = time.perf_counter()
        file = SealedFile.open(fd, unlock)
        file.read_into(0, out)
        read += time.perf_counter() - start
        file.close()
        path.unlink()
    return made / count * 1e6, read / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", default="/dev/shm")
    arguments = parser.parse_args()
    print_row = lambda name, value, unit: sys.stdout.write(f"{name:44s} {value:9.1f} {unit}\n")  # noqa: E731
    with tempfile.TemporaryDirectory(dir=arguments.dir) as name:
        folder = Path(name)
        for request in (4096, 128 * 1024, MIB):
            print_row(
                f"sequential write, {request // 1024} KiB",
                median(lambda r=request: write_sequential(folder, r)),
                "MB/s",
            )
        for request in (4096, 128 * 1024, MIB):
            print_row(
                f"sequential read, {request // 1024} KiB", median(lambda r=request: read_sequential(folder, r)), "MB/s"
            )
        print_row("verify", median(lambda: verify(folder)), "MB/s")
        print_row("random read, 4 KiB", median(lambda: random_read(folder)), "us")
        print_row("random overwrite, 4 KiB, no log", median(lambda: random_write(folder, None)), "us")
        store = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        redo = RedoLog(store, b"redo")
        print_row("random overwrite, 4 KiB, redo log", median(lambda: random_write(folder, redo)), "us")
        redo.close()
        os.close(store)
        for size in (0, 4096, 65536):
            rounds = [small_files(folder, size) for _ in range(ROUNDS)]
            print_row(f"create, write {size} bytes, flush", statistics.median(made for made, _ in rounds), "us")
            if size:
                print_row(f"open, read {size} bytes", statistics.median(read for _, read in rounds), "us")


if __name__ == "__main__":
    main()
