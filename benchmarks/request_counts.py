"""How many requests the kernel sends for what programs do, and where the drive's processor time goes, on a real mount.

    python -m benchmarks.request_counts

Counted by a handler that wraps the drive's (tests/mounted/harness.py), a thousand operations each; then the small
files of the canonical benchmark, without a key server. FORGETs come when the kernel likes. docs/performance.md says
which flag saves which request: each was left out in turn and the requests counted again.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.commands import drop_caches, run
from benchmarks.growth import served
from benchmarks.work import FILES as TREE
from benchmarks.work import make_tree
from tests.mounted.mounted import LISTED, Mounted

FILES = 1000
PROGRAM = """
import os, sys
act, folder, files = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(files):
    path = f"{folder}/{number}"
    if act == "write":
        with open(path, "xb", buffering=0) as file:
            file.write(bytes(8192))
    elif act == "overwrite":
        with open(path, "wb", buffering=0) as file:
            file.write(bytes(8192))
    elif act == "read":
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 65536)
        os.close(fd)
    elif act == "drop":
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    elif act == "append":
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        for _ in range(2):
            os.write(fd, b"line")
        os.close(fd)
    elif act == "link":
        os.symlink("nowhere", f"{path}-link")
    elif act == "readlink":
        os.readlink(f"{path}-link")
    elif act == "mkdir":
        os.mkdir(f"{path}-folder")
    elif act == "stat":
        os.stat(path)
"""


def python(act: str) -> Callable[[Path], tuple[str, ...]]:
    return lambda folder: (LISTED, "-I", "-c", PROGRAM, act, str(folder), str(FILES))


OPERATIONS: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "create, write 8 KiB, close": python("write"),
    "open, posix_fadvise(POSIX_FADV_DONTNEED), close": python("drop"),
    "open, read, close": python("read"),
    "open, read, close again": python("read"),
    "stat": python("stat"),
    "open, append twice, close": python("append"),
    "open with O_TRUNC, write 8 KiB, close": python("overwrite"),
    "symlink": python("link"),
    "readlink": python("readlink"),
    "readlink again": python("readlink"),
    "mkdir": python("mkdir"),
    "ls": lambda folder: ("/usr/bin/ls", str(folder)),
    "ls again": lambda folder: ("/usr/bin/ls", str(folder)),
    "ls -l (as many directories and symlinks as well)": lambda folder: ("/usr/bin/ls", "-l", str(folder)),
    "tar cf": lambda folder: ("/usr/bin/tar", "cf", f"{folder.parent.parent}/made.tar", "-C", str(folder), "."),
    "rm -rf": lambda folder: ("/usr/bin/rm", "-rf", str(folder)),
    "tar xf": lambda folder: ("/usr/bin/tar", "xf", f"{folder.parent.parent}/made.tar", "-C", str(folder)),
}
"""In this order, on the same thousand files."""


def counted(drive: Mounted, command: tuple[str, ...]) -> tuple[dict[str, float], dict[str, float]]:
    """Kind of request -> how many came, and the processor seconds that their handlers took."""
    before = drive.holds()
    run(*command)
    came = {kind: count - before.get(kind, 0) for kind, count in drive.holds().items()}
    kinds = [kind for kind in came if f"{kind} ns" in came and came[kind] > 0]
    return {kind: came[kind] for kind in kinds}, {kind: came[f"{kind} ns"] / 1e9 for kind in kinds}


def operations(drive: Mounted) -> None:
    click.echo("| | requests a file |\n|---|---|")
    folder = drive.drive / "folder"
    for what, command in OPERATIONS.items():
        folder.mkdir(exist_ok=True)
        counts, _ = counted(drive, command(folder))
        often = sorted(counts.items(), key=lambda one: -one[1])
        cells = [f"{kind.upper()} {count / FILES:.3f}".rstrip("0").rstrip(".") for kind, count in often]
        click.echo(f"| {what} | {', '.join(cells)} |")


def rows(drive: Mounted) -> None:
    """Rows of the canonical benchmark: where the processor time of the drive goes."""
    archive, unpacked = drive.directory / "tree.tar", drive.drive / "tree"
    make_tree(archive)
    unpacked.mkdir()
    commands = {
        "untar": ("/usr/bin/tar", "xf", str(archive), "-C", str(unpacked)),
        "md5 all": ("/usr/bin/find", str(unpacked), "-type", "f", "-exec", "/usr/bin/md5sum", "{}", "+"),
        "rm -rf": ("/usr/bin/rm", "-rf", str(unpacked)),
    }
    for row, command in commands.items():
        drop_caches()
        begin = drive.processor_seconds()
        counts, seconds = counted(drive, command)
        whole = drive.processor_seconds() - begin
        click.echo(f"\n{row}: {whole:.2f} s of processor time, {whole / TREE * 1e6:.0f} us a file\n")
        click.echo("| | requests a file | us each | share |\n|---|---|---|---|")
        for kind in sorted(counts, key=lambda kind: -seconds[kind]):
            if (share := seconds[kind] / whole) >= 0.005:
                each = seconds[kind] / counts[kind] * 1e6
                click.echo(f"| {kind.upper()} | {counts[kind] / TREE:.2f} | {each:.0f} | {share:.0%} |")
        click.echo(f"| all else: transport, other threads | | | {1 - sum(seconds.values()) / whole:.0%} |")


def main() -> None:
    if os.geteuid() != 0:
        raise SystemExit("this needs root")
    with tempfile.TemporaryDirectory(prefix="grantfs-bench-") as room:
        for part in (operations, rows):
            with served(profile=Path(room) / "profile") as drive:
                part(drive)


if __name__ == "__main__":
    main()
