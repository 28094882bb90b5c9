"""What a request costs over each transport, with the in-memory filesystem of the tests behind it. Root.

    python -m benchmarks.transport_speed [--rounds 3] [--transport io_uring|/dev/fuse]

Prints the median of the rounds, the transports in turns: microseconds for one stat (two requests: LOOKUP, GETATTR), a
4-KiB direct read, and making, writing and closing a 4-KiB file; GB/s for 1-MiB direct reads and for a cold sequential
read and a sequential write in 128-KiB pieces.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20
SIZE = 64 * MIB


@contextmanager
def drive(io_uring: bool) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as home:
        point = Path(home) / "drive"
        point.mkdir()
        options = json.dumps({"point": str(point), "io_uring": io_uring})
        daemon = subprocess.Popen(
            [sys.executable, "-m", "tests.fsdriver.device.daemon", options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert daemon.stdin
        assert daemon.stdout
        try:
            hello = json.loads(daemon.stdout.readline())
            if hello.get("transport") != ("io_uring" if io_uring else "/dev/fuse"):
                raise SystemExit(f"not available: {hello}")
            yield point
        finally:
            daemon.stdin.write("stop-release\n")
            daemon.stdin.close()
            daemon.wait(20)
            daemon.stdout.close()


def seconds(work: Callable[[], object]) -> float:
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


def measure(point: Path) -> dict[str, float]:
    """One round. "us" columns count microseconds, "GB/s" columns 10^9 bytes a second."""
    found: dict[str, float] = {}
    small, big = point / "direct", point / "big"
    small.write_bytes(bytes(4 * MIB))
    stat, times = os.stat, 4000

    found["stat us"] = seconds(lambda: [stat(small) for _ in range(times)]) / times * 1e6
    descriptor = os.open(small, os.O_RDONLY)
    buffer = bytearray(MIB)
    view = [memoryview(buffer)[:4096]]
    found["4-KiB read us"] = seconds(lambda: [os.preadv(descriptor, view, 0) for _ in range(times)]) / times * 1e6
    whole = [memoryview(buffer)]
    reads = 400
    found["1-MiB read GB/s"] = (
        reads * MIB / 1e9 / seconds(lambda: [os.preadv(descriptor, whole, i % 4 * MIB) for i in range(reads)])
    )
    os.close(descriptor)

    data = bytes(4096)

    def create(number: int) -> None:
        file = os.open(point / f"n{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(file, data)
        os.close(file)

    found["create us"] = seconds(lambda: deque(map(create, range(1000)), maxlen=0)) / 1000 * 1e6

    piece = bytes(128 * 1024)
    descriptor = os.open(big, os.O_RDWR | os.O_CREAT)
    found["write GB/s"] = SIZE / 1e9 / seconds(lambda: [os.write(descriptor, piece) for _ in range(SIZE // len(piece))])
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    pieces = [memoryview(buffer)[: len(piece)]]
    found["cold read GB/s"] = (
        SIZE / 1e9 / seconds(lambda: [os.preadv(descriptor, pieces, at) for at in range(0, SIZE, len(piece))])
    )
    os.close(descriptor)
    return found


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--transport", choices=["io_uring", "/dev/fuse"])
    chosen = arguments.parse_args()
    transports = [chosen.transport] if chosen.transport else ["io_uring", "/dev/fuse"]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in transports}
    for _ in range(chosen.rounds):
        for name in transports:
            with drive(name == "io_uring") as point:
                rounds[name].append(measure(point))
    columns = list(rounds[transports[0]][0])
    say = sys.stdout.write
    say("| | " + " | ".join(columns) + " |\n|---" * 1 + "|---" * len(columns) + "|\n")
    for name, results in rounds.items():
        medians = [statistics.median(result[column] for result in results) for column in columns]
        say(f"| {name} | " + " | ".join(f"{median:.1f}" for median in medians) + " |\n")


if __name__ == "__main__":
    main()
