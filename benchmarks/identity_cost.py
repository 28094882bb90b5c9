"""What it costs to know who asks: `python benchmarks/identity_cost.py [libraries]`. Needs root; prints medians.

A process of the system's Python loads that many (300) of the system's libraries. "first" is a new process whose files'
digests are known; "hashing" is the very first time, with the digests and the package database still to be read.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fsdriver.identity import Callers
from policy import ProgramEntry

PYTHON = "/usr/bin/python3.11"
PACKAGES = ("python3.11-minimal", "python3-minimal")
LOAD = """
import ctypes, glob, os, sys
left = int(sys.argv[1])
for path in sorted(glob.glob("/usr/lib/*-linux-gnu/*.so.*"), key=os.path.getsize):
    if not left:
        break
    try:
        ctypes.CDLL(path)
    except OSError:
        continue
    left -= 1
print(sum("r-xp" in line for line in open("/proc/self/maps")), flush=True)
sys.stdin.read()
"""


@contextmanager
def process(libraries: int) -> Iterator[tuple[int, int]]:
    """A Python with its libraries loaded: pid and number of executable mappings."""
    child = subprocess.Popen(
        [PYTHON, "-I", "-c", LOAD, str(libraries)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    try:
        yield child.pid, int(child.stdout.readline())
    finally:
        child.kill()
        child.communicate()


def microseconds(call: Callable[[], object], times: int, rounds: int = 9) -> float:
    """The median over rounds of one call's time."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(times):
            call()
        found.append((time.perf_counter() - began) / times * 1e6)
    return statistics.median(found)


def main(libraries: int) -> None:
    """Measure and print."""
    now = [0.0]
    callers = Callers(now=lambda: now[0])
    callers.set_programs([ProgramEntry(PYTHON, PACKAGES, jit=True)])
    with process(libraries) as (pid, mappings):
        hashing = microseconds(lambda: callers.identify(pid, 0), 1, 1)
        print(f"{mappings} executable mappings; why unlisted: {callers.identify(pid, 0).why_unlisted or 'listed'}")
        print(f"hashing            {hashing / 1000:10.1f} ms")
        firsts = []
        for _ in range(7):
            with process(libraries) as (other, _):
                firsts.append(microseconds(lambda pid=other: callers.identify(pid, 0), 1, 1))  # type: ignore[misc]
        print(f"first              {statistics.median(firsts) / 1000:10.2f} ms")

        def a_second_later() -> None:
            now[0] += 1.0
            callers.identify(pid, 0)

        print(f"every second       {microseconds(a_second_later, 5) / 1000:10.2f} ms")
        callers.identify(pid, 0)
        print(f"known, thorough    {microseconds(lambda: callers.known(pid, 0, thorough=True), 1000):10.1f} µs")
        print(f"known              {microseconds(lambda: callers.known(pid, 0), 5000):10.1f} µs")
    with subprocess.Popen(["/usr/bin/sleep", "100"]) as sleeper:
        firsts = [microseconds(lambda: Callers.identify(callers, sleeper.pid, 0), 1, 1)]
        print(f"unlisted, first    {firsts[0]:10.1f} µs")
        print(f"unlisted, known    {microseconds(lambda: callers.known(sleeper.pid, 0, thorough=True), 5000):10.1f} µs")
        sleeper.kill()
    callers.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
