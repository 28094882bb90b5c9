"""The canonical comparison: a drive with key server, policy, identity checks and records on, beside its peers and ext4.

    python -m benchmarks.canonical [--rounds 5] [--systems uring,dev,gocryptfs,securefs,encfs,cryfs,ext4] [--save]

Needs root, the peers' Debian packages and 12 GiB of room. Every system of every round gets a fresh ext4 in a loop
device: on a used one, ext4 looks for inodes that were not deleted lately and makes whoever comes second pay. The
systems take turns, so that a machine that slows down slows all, and every round begins with another one; read the
ratios, not the seconds. Prints medians with their spread, and the drive's own memory after each of ten untars
(--memory, also with --rounds 0).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import click

from benchmarks.chart import svg
from benchmarks.commands import run
from benchmarks.fresh_disk import fresh_ext4
from benchmarks.systems import FSDRIVER, SYSTEMS, drive
from benchmarks.work import ROWS, Times, make_tree, work

RESULTS = Path(__file__).parent / "results"
PEER = "gocryptfs"
"""What the others are compared with, round by round."""


def memory(room: Path, tree: Path) -> list[int]:
    """Resident KiB of the drive's process after each of ten untars (each removed again), policy and records on."""
    sizes = []
    with fresh_ext4(room) as top, drive(top, "auto") as mounted:
        status = [*FSDRIVER, "--home", str(top / "demo/agent"), "status", "-o", "json"]
        pid = json.loads(subprocess.run(status, check=True, capture_output=True, text=True).stdout)["pid"]
        for _ in range(10):
            run("/usr/bin/mkdir", str(mounted / "tree"))
            run("/usr/bin/tar", "xf", str(tree), "-C", str(mounted / "tree"))
            fields = Path(f"/proc/{pid}/status").read_text().splitlines()
            sizes.append(next(int(line.split()[1]) for line in fields if line.startswith("VmRSS")))
            run("/usr/bin/rm", "-rf", str(mounted / "tree"))
    return sizes


def ratios(results: dict[str, list[Times]]) -> dict[str, dict[str, float]]:
    """Row -> system -> the median of its time by the peer's of the same round."""
    return {
        row: {
            system: statistics.median(own[row] / peer[row] for own, peer in zip(rounds, results[PEER], strict=True))
            for system, rounds in results.items()
        }
        for row in ROWS
    }


def table(results: dict[str, list[Times]]) -> str:
    """Medians in seconds, their spread, and the ratio to the peer."""
    lines = ["| | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    compared = ratios(results) if PEER in results else None
    for row in ROWS:
        cells = []
        for system, rounds in results.items():
            times = [times[row] for times in rounds]
            cell = f"{statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})"
            if compared is not None and system != PEER:
                cell += f" **{compared[row][system]:.2f}**"
            cells.append(cell)
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def save(results: dict[str, list[Times]], sizes: list[int], text: str) -> None:
    """Under the version and the day, as a table, as figures and as a picture."""
    name = f"canonical-{version('grantfs')}-{time.strftime('%Y-%m-%d')}"
    RESULTS.mkdir(exist_ok=True)
    facts = {"rounds": results, "memory_kib": sizes, "kernel": os.uname().release, "processors": os.cpu_count()}
    (RESULTS / f"{name}.md").write_text(text + "\n")
    (RESULTS / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    if results.get(PEER):
        title = f"Time by {PEER}'s, {name}"
        (RESULTS / f"{name}.svg").write_text(svg(ratios(results), list(results), title))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
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
                rounded = {row: round(seconds, 2) for row, seconds in results[system][-1].items()}
                click.echo(f"round {number + 1} of {arguments.rounds}, {system}: {rounded}", err=True)
        if arguments.memory:
            sizes = memory(room, tree)
    finally:
        shutil.rmtree(room)
    text = table(results) if arguments.rounds else ""
    if sizes:
        text += f"\n\nMemory after each of ten untars, MiB: {', '.join(f'{size / 1024:.1f}' for size in sizes)}"
    click.echo(text)
    if arguments.save:
        save(results, sizes, text)


if __name__ == "__main__":
    main()
