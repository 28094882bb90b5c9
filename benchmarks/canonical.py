"""The canonical comparison: a drive with key server, policy, identity checks and records on, beside gocryptfs and ext4.

    python -m benchmarks.canonical [--rounds 3] [--systems uring,dev,gocryptfs,ext4] [--save]

Needs root, gocryptfs and 12 GiB of room. Every system of every round gets a fresh ext4 in a loop device: on a used one,
ext4 looks for inodes that were not deleted lately and makes whoever comes second pay. The systems take turns, so that a
machine that slows down slows all, and every round begins with another one; read the ratios, not the seconds. Prints
medians with their spread, and the drive's own memory after each of ten untars (--memory, also with --rounds 0).
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import click

HERE = Path(__file__).parent
FILES, FOLDERS = 11_000, 700
BLOCKS = 4096  # of 128 KiB: 512 MiB
ROWS = ("write", "cold read", "warm read", "untar", "ls -lR", "md5 all", "rm -rf")
IMAGE_SIZE = 6 << 30

Times = dict[str, float]


def make_tree(path: Path) -> None:
    """A tar of a made-up source tree: many small files, a few large ones, the same every time."""
    chance = random.Random(20260101)
    folders = [""]
    for number in range(FOLDERS):
        folders.append(f"{chance.choice(folders[-60:])}d{number}/")
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for folder in folders[1:]:
            entry = tarfile.TarInfo(folder.rstrip("/"))
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, 1_700_000_000
            tar.addfile(entry)
        for number in range(FILES):
            data = chance.randbytes(min(1 << 20, int(chance.lognormvariate(8.4, 1.3))))
            entry = tarfile.TarInfo(f"{chance.choice(folders)}f{number}.c")
            entry.size, entry.mode, entry.mtime = len(data), 0o644, 1_700_000_000 + number
            tar.addfile(entry, BytesIO(data))


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def timed(*command: str) -> float:
    begin = time.monotonic()
    run(*command)
    return time.monotonic() - begin


def drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def work(top: Path, tree: Path) -> Times:
    """The rows, in order, in an empty mounted directory."""
    big, unpacked = str(top / "big"), str(top / "tree")
    times: Times = {}
    drop_caches()
    times["write"] = timed("/usr/bin/dd", "if=/dev/zero", f"of={big}", "bs=128k", f"count={BLOCKS}", "conv=fsync")
    drop_caches()
    times["cold read"] = timed("/usr/bin/dd", f"if={big}", "of=/dev/null", "bs=128k")
    times["warm read"] = timed("/usr/bin/dd", f"if={big}", "of=/dev/null", "bs=128k")
    run("/usr/bin/rm", big)
    run("/usr/bin/mkdir", unpacked)
    drop_caches()
    times["untar"] = timed("/usr/bin/tar", "xf", str(tree), "-C", unpacked)
    drop_caches()
    times["ls -lR"] = timed("/usr/bin/ls", "-lR", unpacked)
    drop_caches()
    times["md5 all"] = timed("/usr/bin/find", unpacked, "-type", "f", "-exec", "/usr/bin/md5sum", "{}", "+")
    drop_caches()
    times["rm -rf"] = timed("/usr/bin/rm", "-rf", unpacked)
    return times


@contextmanager
def fresh_ext4(room: Path) -> Iterator[Path]:
    """A new ext4 of its own."""
    image, top = room / "image", room / "ext4"
    top.mkdir(exist_ok=True)
    os.sync()  # what the one before has left is not to be paid by this one
    with image.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, IMAGE_SIZE)
    run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
    run("mount", "-o", "loop", str(image), str(top))
    try:
        yield top
    finally:
        for _ in range(20):
            with contextlib.suppress(subprocess.CalledProcessError):
                run("umount", str(top))
                break
            time.sleep(0.5)  # somebody looks at all mounts just now
        image.unlink()


@contextmanager
def drive(top: Path, transport: str) -> Iterator[Path]:
    """The whole thing, as `fsdriver demo` sets it up."""
    fsdriver = [sys.executable, "-m", "fsdriver"]
    place = ["demo", "--dir", str(top / "demo")]
    start = [*place, "--policy", str(HERE / "policy"), "--detach", "--transport", transport, "-o", "json"]
    answer = subprocess.run([*fsdriver, *start], check=True, capture_output=True, text=True)
    facts = json.loads(answer.stdout)
    wanted = {"auto": "io_uring", "dev": "/dev/fuse"}[transport]
    if facts["transport"] != wanted:
        raise SystemExit(f"wanted {wanted}, got {facts['transport']}: is /sys/module/fuse/parameters/enable_uring Y?")
    try:
        yield Path(facts["drive"])
    finally:
        run(*fsdriver, *place, "--stop")


@contextmanager
def gocryptfs(top: Path) -> Iterator[Path]:
    cipher, plain, password = top / "cipher", top / "plain", top / "password"
    cipher.mkdir()
    plain.mkdir()
    password.write_text("benchmark\n")
    run("gocryptfs", "-q", "-init", "-scryptn", "10", "-passfile", str(password), str(cipher))
    run("gocryptfs", "-q", "-passfile", str(password), str(cipher), str(plain))
    try:
        yield plain
    finally:
        run("umount", str(plain))


SYSTEMS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Path]]] = {
    "uring": lambda top: drive(top, "auto"),
    "dev": lambda top: drive(top, "dev"),
    "gocryptfs": gocryptfs,
    "ext4": contextlib.nullcontext,
}


def memory(room: Path, tree: Path) -> list[int]:
    """Resident KiB of the drive's process after each of ten untars (each removed again), policy and records on."""
    sizes = []
    with fresh_ext4(room) as top, drive(top, "auto") as mounted:
        status = [sys.executable, "-m", "fsdriver", "--home", str(top / "demo/agent"), "status", "-o", "json"]
        pid = json.loads(subprocess.run(status, check=True, capture_output=True, text=True).stdout)["pid"]
        for _ in range(10):
            run("/usr/bin/mkdir", str(mounted / "tree"))
            run("/usr/bin/tar", "xf", str(tree), "-C", str(mounted / "tree"))
            fields = Path(f"/proc/{pid}/status").read_text().splitlines()
            sizes.append(next(int(line.split()[1]) for line in fields if line.startswith("VmRSS")))
            run("/usr/bin/rm", "-rf", str(mounted / "tree"))
    return sizes


def table(results: dict[str, list[Times]]) -> str:
    """Medians in seconds, their spread, and each drive's ratio to gocryptfs."""
    lines = ["| | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    for row in ROWS:
        cells = []
        for system, rounds in results.items():
            times = [times[row] for times in rounds]
            cell = f"{statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})"
            if system in ("uring", "dev") and "gocryptfs" in results:
                ratios = [ours[row] / theirs[row] for ours, theirs in zip(rounds, results["gocryptfs"], strict=True)]
                cell += f" **{statistics.median(ratios):.2f}**"
            cells.append(cell)
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--memory", action="store_true", help="also ten untars in a row, with the drive's memory")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("this needs root: sudo make bench")
    systems = arguments.systems.split(",")
    results: dict[str, list[Times]] = {system: [] for system in systems}
    room = Path(tempfile.mkdtemp(prefix="grantfs-bench-", dir=os.environ.get("BENCH_DIR", "/var/tmp")))
    sizes: list[int] = []
    try:
        tree = room / "tree.tar"
        make_tree(tree)
        for number in range(arguments.rounds):
            for system in systems[number % len(systems) :] + systems[: number % len(systems)]:
                with fresh_ext4(room) as top, SYSTEMS[system](top) as mounted:
                    results[system].append(work(mounted, tree))
                click.echo(f"round {number + 1}, {system}: {results[system][-1]}", err=True)
        if arguments.memory:
            sizes = memory(room, tree)
    finally:
        shutil.rmtree(room)
    text = table(results) if arguments.rounds else ""
    if sizes:
        text += f"\n\nMemory after each of ten untars, MiB: {', '.join(f'{size / 1024:.1f}' for size in sizes)}"
    click.echo(text)
    if arguments.save:
        name = time.strftime("%Y-%m-%d")
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / f"canonical-{name}.md").write_text(text + "\n")
        facts = {"rounds": results, "memory_kib": sizes, "kernel": os.uname().release, "processors": os.cpu_count()}
        (HERE / "results" / f"canonical-{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
        (HERE / "results" / f"canonical-{name}.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
