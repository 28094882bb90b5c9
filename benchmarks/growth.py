"""What operations cost as work grows: large directories, many nodes, a huge sparse file, many handles, endless work.

    python -m benchmarks.growth [--only directory,tree,sparse,handles,rounds] [--most 1.0] [--rounds 20] [--save]

Needs root and, for all of it, 15 GiB of room and half an hour; `--most 0.01` makes the largest of everything a
hundredth. A drive of the tests' harness: real mount, policy, identity checks and records, without a key server, on the
disk that BENCH_DIR lies on. On a shared machine read the drive's processor time: wall time has the others' in it.
`growing.py` is the program that works on the drive.
"""

import argparse
import json
import os
import resource
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import click

from benchmarks.commands import run
from benchmarks.fresh_disk import IMAGE_SIZE, fresh_ext4
from benchmarks.growing import Costs
from benchmarks.work import make_tree
from fsdriver.content import FileKey, SealedFile, wrap
from policy import load, read_files
from tests.mounted.harness import COMPANY
from tests.mounted.mounted import LISTED, Mounted

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PROGRAM = [LISTED, "-I", str(HERE / "growing.py")]
FILES_A_FOLDER, LINKS_A_FOLDER, FOLDERS_A_GROUP = 89, 10, 100
READ = 150_000
"""Nodes: of larger trees the files are not read as well, which would take ten minutes."""
NODES_A_GROUP = 1 + FOLDERS_A_GROUP * (1 + FILES_A_FOLDER + LINKS_A_FOLDER)

Row = dict[str, float]
Rows = dict[str, Row]
"""What was measured -> how much there was of it -> the figure."""


@contextmanager
def served(size: int = IMAGE_SIZE, inodes: int = 0, profile: Path | None = None) -> Iterator[Mounted]:
    """A new drive on a filesystem of its own."""
    room = Path(tempfile.mkdtemp(prefix="grantfs-bench-", dir=os.environ.get("BENCH_DIR", "/var/tmp")))
    try:
        with fresh_ext4(room, size, inodes) as top:
            drive = Mounted(top, policy=HERE / "policy", profile=profile)
            try:
                drive.start()
                yield drive
                drive.stop()
                click.echo(drive.log(), err=True, nl=False)
            finally:
                drive.end()
    finally:
        shutil.rmtree(room)


def costs(drive: Mounted, what: str, folder: Path, number: int) -> Costs:
    command = [*PROGRAM, what, str(drive.pid), str(folder), str(number)]
    found: Costs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def enter(rows: Rows, column: str, what: Costs) -> None:
    for name, (wall, processor) in what.items():
        rows.setdefault(f"{name}, us", {})[column] = wall
        rows.setdefault(f"{name}, us of the drive's processor time", {})[column] = processor


# ---- what grows ----------------------------------------------------------------------------------------------------


def directory(most: float) -> Rows:
    """A directory of so many files."""
    rows: Rows = {}
    for files in (1000, 10_000, int(100_000 * most)):
        with served() as drive:
            folder = drive.drive / "folder"
            folder.mkdir()
            enter(rows, f"{files:,}", costs(drive, "directory", folder, files))
    return rows


def tree(most: float) -> Rows:
    """A tree of so many nodes, nine in ten of them sealed files, looked up and kept by the kernel."""
    rows: Rows = {}
    for groups in (1, 10, int(100 * most)):
        nodes = groups * NODES_A_GROUP
        column = f"{nodes:,}"
        with served(IMAGE_SIZE + nodes * 8192, 200_000 + nodes) as drive:
            seal_groups(drive.store / "known", 1)
            seal_groups(drive.store / "tree", groups)
            costs(drive, "contents", drive.drive / "known", NODES_A_GROUP)  # who it is was found out by then
            forget(drive)
            before = drive.resident()
            enter(rows, column, costs(drive, "tree", drive.drive / "tree", nodes))
            weigh(rows, "looked up", column, drive, before)
            rows.setdefault("descriptors", {})[column] = drive.descriptors()
            if nodes <= READ:
                enter(rows, column, costs(drive, "contents", drive.drive / "tree", nodes))
                weigh(rows, "and their content read", column, drive, before)
            forget(drive)
            rows.setdefault("left once forgotten, MiB", {})[column] = (drive.resident() - before) / (1 << 20)
    return rows


def weigh(rows: Rows, what: str, column: str, drive: Mounted, before: int) -> None:
    """What a node takes of the memory that has come since the drive had `before` bytes and no nodes."""
    known = drive.holds()["nodes"]
    rows.setdefault(f"{what}, bytes a node", {})[column] = (drive.resident() - before) / known
    rows.setdefault(f"{what}, nodes the kernel holds", {})[column] = known


def sparse(most: float) -> Rows:
    """A file of so many bytes, at random places."""
    rows: Rows = {}
    for size in (1 << 20, 1 << 30, int((100 << 30) * most)):
        with served() as drive:
            folder = drive.drive / "folder"
            folder.mkdir()
            enter(rows, f"{size >> 20:,} MiB", costs(drive, "sparse", folder, size))
    return rows


def handles(most: float) -> Rows:
    """So many files open at once, by one program."""
    rows: Rows = {}
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for count in (10, 1000, int(10_000 * most)):
        column = f"{count:,}"
        with served() as drive:
            folder = drive.drive / "folder"
            folder.mkdir()
            command = [*PROGRAM, "handles", str(drive.pid), str(folder), str(count)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            with subprocess.Popen(command, text=True, **pipes) as program:
                assert program.stdin is not None
                assert program.stdout is not None
                figures = []
                for _ in range(2):
                    program.stdout.readline()
                    figures.append((drive.resident(), drive.descriptors()))
                    program.stdin.write("\n")
                    program.stdin.flush()
                enter(rows, column, json.loads(program.stdout.readline()))
            (before, none), (after, some) = figures
            rows.setdefault("memory, bytes a handle", {})[column] = (after - before) / count
            rows.setdefault("descriptors a handle", {})[column] = (some - none) / count
    return rows


def rounds(most: float, count: int) -> Rows:
    """Unpacked and removed, again and again: 2,000 files and 130 folders."""
    rows: Rows = {}
    with served() as drive:
        archive = drive.directory / "tree.tar"
        make_tree(archive, int(2000 * most), int(130 * most))
        for number in range(1, count + 1):
            folder = drive.drive / "folder"
            run("/usr/bin/mkdir", str(folder))
            run("/usr/bin/tar", "xf", str(archive), "-C", str(folder))
            rows.setdefault("memory once unpacked, MiB", {})[str(number)] = drive.resident() / (1 << 20)
            run("/usr/bin/rm", "-rf", str(folder))
            rows.setdefault("memory once removed, MiB", {})[str(number)] = drive.resident() / (1 << 20)
    return rows


def forget(drive: Mounted) -> None:
    """The kernel forgets what nobody uses, and has told the drive so."""
    before = -1.0
    Path("/proc/sys/vm/drop_caches").write_text("2")
    while (spent := drive.processor_seconds()) != before:
        before = spent
        time.sleep(1.0)


# ---- a store made beside the drive ---------------------------------------------------------------------------------


def seal_groups(top: Path, groups: int) -> None:
    """`groups` x NODES_A_GROUP nodes in `top`: sealed files, empty, as CREATE makes them, each with a key of its own;
    symlinks; folders. By several processes: through the drive a million would take ten minutes more."""
    top.mkdir()
    with ProcessPoolExecutor() as pool:
        list(pool.map(seal_group, [top / f"group-{number}" for number in range(groups)]))


def seal_group(group: Path) -> None:
    label = load(read_files([HERE / "policy"])).labels[0].qualified.encode().ljust(16, b"\0")[:16]
    group.mkdir()
    for number in range(FOLDERS_A_GROUP):
        folder = group / f"folder-{number}"
        folder.mkdir()
        for name in range(LINKS_A_FOLDER):
            os.symlink("file-0.txt", folder / f"link-{name}")
        for name in range(FILES_A_FOLDER):
            seal(folder / f"file-{name}.txt", label)


def seal(path: Path, label: bytes) -> None:
    file_id, key = secrets.token_bytes(16), FileKey.generate()
    slot = wrap(key, label + label, file_id=file_id, company=COMPANY, label=label, key_id=bytes(16), version=1)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        SealedFile.create(fd, file_id=file_id, company=COMPANY, label=label, file_key=key, slots=(slot,))
    finally:
        os.close(fd)


# ---- what is printed -----------------------------------------------------------------------------------------------


def table(rows: Rows) -> str:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        lines.append(
            f"| {name} | " + " | ".join(figure(row[column]) if column in row else "" for column in columns) + " |"
        )
    return "\n".join(lines)


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="directory,tree,sparse,handles,rounds")
    parser.add_argument("--most", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("this needs root: it looks at the drive's process and drops caches")
    work: dict[str, Callable[[], Rows]] = {
        "directory": lambda: directory(arguments.most),
        "tree": lambda: tree(arguments.most),
        "sparse": lambda: sparse(arguments.most),
        "handles": lambda: handles(arguments.most),
        "rounds": lambda: rounds(arguments.most, arguments.rounds),
    }
    found: dict[str, Rows] = {}
    for name in arguments.only.split(","):
        found[name] = work[name]()
        click.echo(f"{globals()[name].__doc__}\n\n{table(found[name])}\n")
    if arguments.save:
        name = f"growth-{version('grantfs')}-{time.strftime('%Y-%m-%d')}"
        RESULTS.mkdir(exist_ok=True)
        text = "\n".join(f"{globals()[part].__doc__}\n\n{table(rows)}\n" for part, rows in found.items())
        (RESULTS / f"{name}.md").write_text(text)
        facts = {"rows": found, "kernel": os.uname().release, "processors": os.cpu_count()}
        (RESULTS / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
