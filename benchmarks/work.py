"""What is timed, on every system alike. Programs are Debian's, as the benchmark's policy lists them."""

import random
import tarfile
from io import BytesIO
from pathlib import Path

from benchmarks.commands import drop_caches, run, timed

FILES, FOLDERS = 11_000, 700
BLOCKS = 4096  # of 128 KiB: 512 MiB

ROWS = {
    "write": "dd, 512 MiB in 128 KiB, with fsync",
    "cold read": "the same file, caches dropped",
    "warm read": "and once more",
    "4k read": "fio, 8,192 random reads of 4 KiB from it, one at a time, caches dropped",
    "4k read x16": "by 16 threads",
    "4k write": "8,192 random writes, one at a time, and fsync",
    "4k write x16": "by 16 threads",
    "untar": "11,000 files and 700 folders, caches dropped",
    "ls -lR": "of them, caches dropped",
    "md5 all": "of them, caches dropped",
    "open all": "of each the first 4 KiB, by one program, caches warm",
    "rm -rf": "of them, caches dropped",
    "2 untars": "at the same time, caches dropped",
}
"""Name -> what it is."""

Times = dict[str, float]
"""Row -> seconds."""


def make_tree(path: Path, files: int = FILES, amount: int = FOLDERS) -> None:
    """A tar of a made-up source tree: many small files, a few large ones, the same every time."""
    chance = random.Random(20260101)
    folders = [""]
    for number in range(amount):
        folders.append(f"{chance.choice(folders[-60:])}d{number}/")
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for folder in folders[1:]:
            entry = tarfile.TarInfo(folder.rstrip("/"))
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, 1_700_000_000
            tar.addfile(entry)
        for number in range(files):
            data = chance.randbytes(min(1 << 20, int(chance.lognormvariate(8.4, 1.3))))
            entry = tarfile.TarInfo(f"{chance.choice(folders)}f{number}.c")
            entry.size, entry.mode, entry.mtime = len(data), 0o644, 1_700_000_000 + number
            tar.addfile(entry, BytesIO(data))


def work(top: Path, tree: Path) -> Times:
    """The rows, in order, in an empty mounted directory."""
    return large_file(str(top / "big")) | small_files(top, str(tree))


def large_file(big: str) -> Times:
    times: Times = {}
    drop_caches()
    times["write"] = timed(("/usr/bin/dd", "if=/dev/zero", f"of={big}", "bs=128k", f"count={BLOCKS}", "conv=fsync"))
    drop_caches()
    times["cold read"] = timed(("/usr/bin/dd", f"if={big}", "of=/dev/null", "bs=128k"))
    times["warm read"] = timed(("/usr/bin/dd", f"if={big}", "of=/dev/null", "bs=128k"))
    timed(_fio(big, "randread", 1, operations=16))  # who it is was found out by then
    for kind in ("read", "write"):
        for threads in (1, 16):
            drop_caches()
            times[f"4k {kind}" + (f" x{threads}" if threads > 1 else "")] = timed(_fio(big, f"rand{kind}", threads))
    run("/usr/bin/rm", big)
    return times


def small_files(top: Path, tree: str) -> Times:
    unpacked, both = str(top / "tree"), [str(top / "one"), str(top / "other")]
    times: Times = {}
    run("/usr/bin/mkdir", unpacked, *both)
    drop_caches()
    times["untar"] = timed(("/usr/bin/tar", "xf", tree, "-C", unpacked))
    drop_caches()
    times["ls -lR"] = timed(("/usr/bin/ls", "-lR", unpacked))
    drop_caches()
    times["md5 all"] = timed(("/usr/bin/find", unpacked, "-type", "f", "-exec", "/usr/bin/md5sum", "{}", "+"))
    heads = ("/usr/bin/head", "-q", "-c", "4096", "{}", "+")
    times["open all"] = timed(("/usr/bin/find", unpacked, "-type", "f", "-exec", *heads))
    drop_caches()
    times["rm -rf"] = timed(("/usr/bin/rm", "-rf", unpacked))
    drop_caches()
    times["2 untars"] = timed(*[("/usr/bin/tar", "xf", tree, "-C", place) for place in both])
    return times


def _fio(file: str, kind: str, threads: int, operations: int = 8192) -> tuple[str, ...]:
    return (
        "/usr/bin/fio",
        "--name=random",
        f"--filename={file}",
        f"--rw={kind}",
        "--bs=4k",
        "--ioengine=psync",
        "--thread",
        f"--numjobs={threads}",
        f"--io_size={operations // threads * 4}k",
        "--size=512m",
        "--randseed=1",
        "--invalidate=0",
        "--end_fsync=1",
        "--output-format=terse",
    )
