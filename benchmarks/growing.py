"""What `growth` lets a listed program do on a drive; nothing but the standard library, as Debian's Python runs it.

    python3.11 -I growing.py WHAT PID FOLDER [NUMBER ...]

prints JSON: operation -> [microseconds, microseconds of the drive's processor time] an operation; PID is the drive's.
"""

import ctypes
import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence

TICK = os.sysconf("SC_CLK_TCK")
STEPS = 1000
"""Operations that are timed together: a tenth of a second at least, or processor time in ticks of 10 ms says little."""
BLOCK = 4096
_PUNCH_HOLE_KEEP_SIZE = 3

Costs = dict[str, list[float]]


class Meter:
    """Adds up what operations cost."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.costs: Costs = {}

    def each(self, name: str, act: Callable[[], object], operations: int) -> None:
        """`act` does that many operations. What the drive finishes later is counted, too."""
        processor, begin = self._settled(), time.perf_counter()
        act()
        seconds, processor = time.perf_counter() - begin, self._settled() - processor
        self.costs[name] = [seconds / operations * 1e6, processor / operations * 1e6]

    def _settled(self) -> float:
        """The drive's processor time in seconds, once it has nothing to do."""
        before = self._processor()
        while True:
            time.sleep(0.3)
            if (now := self._processor()) == before:
                return now
            before = now

    def _processor(self) -> float:
        with open(f"/proc/{self._pid}/stat") as stat:
            fields = stat.read().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK


def for_all(act: Callable[[str], object], names: Iterable[str]) -> Callable[[], None]:
    def acts() -> None:
        for name in names:
            act(name)

    return acts


def make(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))


def open_once(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def read_once(path: str) -> None:
    with open(path, "rb") as file:
        file.read()


def directory(meter: Meter, folder: str, files: int) -> None:
    """A directory of `files`, and what one more costs."""
    names = [f"{folder}/file-{number:07}" for number in range(files)]
    for_all(make, names)()
    more = [f"{folder}/more-{number:07}" for number in range(STEPS)]
    some = random.Random(files).choices(names, k=STEPS)
    meter.each("create", for_all(make, more), STEPS)
    meter.each("stat", for_all(os.stat, some), STEPS)
    meter.each("open", for_all(open_once, some), STEPS)
    meter.each("list, an entry", lambda: os.listdir(folder), files + STEPS)
    meter.each("list again, an entry", lambda: os.listdir(folder), files + STEPS)
    meter.each("unlink", for_all(os.unlink, more), STEPS)


def tree(meter: Meter, folder: str, nodes: int) -> None:
    """Looks every name up once, as `find -size` does. `nodes` are there."""

    def walk() -> None:
        seen = 0
        for above, folders, names in os.walk(folder):
            for name in folders + names:
                os.lstat(f"{above}/{name}")
            seen += len(folders) + len(names)
        assert seen == nodes, f"{seen} nodes instead of {nodes}"

    meter.each("look up", walk, nodes)


def contents(meter: Meter, folder: str, nodes: int) -> None:
    """Reads all files."""

    def read_all() -> None:
        for above, _, names in os.walk(folder):
            for name in names:
                read_once(f"{above}/{name}")

    meter.each("read a file", read_all, nodes)


def sparse(meter: Meter, folder: str, size: int) -> None:
    """Random places of a file of `size` bytes that is one hole at first."""
    chance = random.Random(size)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    fd = os.open(f"{folder}/sparse", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, size)
    places = [chance.randrange(size // BLOCK) * BLOCK for _ in range(STEPS)]
    block = b"x" * BLOCK

    def punch(place: int) -> None:
        if libc.fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, place, BLOCK):
            raise OSError(ctypes.get_errno(), "fallocate")

    def shorten_and_lengthen(place: int) -> None:
        os.ftruncate(fd, size - place // 16)
        os.ftruncate(fd, size)

    def reopen(_: int) -> None:
        os.close(os.open(f"{folder}/sparse", os.O_RDONLY))

    def on(act: Callable[[int], object], some: Sequence[int] = places) -> Callable[[], None]:
        return lambda: [act(place) for place in some] and None

    meter.each("write 4 KiB", on(lambda place: os.pwrite(fd, block, place)), STEPS)
    meter.each("fsync after them", lambda: os.fsync(fd), STEPS)
    meter.each(
        "seek for data", on(lambda place: os.lseek(fd, place, os.SEEK_DATA), sorted(places)[: STEPS // 2]), STEPS // 2
    )
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    meter.each("read 4 KiB", on(lambda place: os.pread(fd, BLOCK, place)), STEPS)
    meter.each("punch 4 KiB", on(punch), STEPS)
    meter.each("shorten and lengthen", on(shorten_and_lengthen, places[:100]), 100)
    os.close(fd)
    meter.each("open", on(reopen), STEPS)


def handles(meter: Meter, folder: str, handles: int) -> None:
    """So many files open at once, and what one more costs. A line says when they are, then one is waited for."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    for number in range(handles + STEPS):
        with open(f"{folder}/{number}", "wb") as file:
            file.write(b"content")
    for_all(read_once, [f"{folder}/{number}" for number in range(handles + STEPS)])()
    print("made", flush=True)
    sys.stdin.readline()
    held = [os.open(f"{folder}/{number}", os.O_RDONLY) for number in range(handles)]
    print("open", flush=True)
    sys.stdin.readline()
    more = [f"{folder}/{number}" for number in range(handles, handles + STEPS)]
    meter.each("open, read and close", for_all(read_once, more), STEPS)
    meter.each("create and close", for_all(make, [f"{folder}/new-{number}" for number in range(STEPS)]), STEPS)
    for fd in held:
        os.close(fd)


def main() -> None:
    what, pid, folder, *numbers = sys.argv[1:]
    meter = Meter(int(pid))
    WORK[what](meter, folder, *map(int, numbers))
    print(json.dumps(meter.costs), flush=True)


WORK: dict[str, Callable[..., None]] = {work.__name__: work for work in (directory, tree, contents, sparse, handles)}

if __name__ == "__main__":
    main()
