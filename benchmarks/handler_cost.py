"""What the handlers cost without a kernel: requests made up here, answered in one thread, processor time per request.

    python -m benchmarks.handler_cost [--files 3000] [--profile] [--between nothing|switch|work|idle]

Real store, format, policy decision and records; the caller's identity is fixed (benchmarks/identity_cost.py has that).
`--between` is what happens before each request, which seldom comes right after another one: another process runs on the
same CPU (switch), and reads and hashes 14 KB there (work), or it runs on the other CPU while this one is idle.
"""

import argparse
import cProfile
import hashlib
import os
import pstats
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fsdriver.identity import Caller, Callers
from fsdriver.protocol import InHeader, events
from fsdriver.serve import calm_collector
from policy import ProgramFacts
from tests.mounted.harness import built_drive

HERE = Path(__file__).parent
FACTS = ProgramFacts(path="/usr/bin/tar", packages=frozenset({"tar"}), clean=True)
CALLER = Caller(1, 1, 0, 0, 0, FACTS, "", "/usr/bin/tar", "00" * 32, 1, "/sbin/init")


class Other:
    """Another process, to which the CPU goes before each request."""

    def __init__(self, between: str) -> None:
        os.sched_setaffinity(0, {1})
        there, self._go = os.pipe()
        self._back, here = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            if between == "idle":
                os.sched_setaffinity(0, {0})
            while os.read(there, 1):
                if between == "work":
                    with open(sys.executable, "rb") as file:
                        hashlib.md5(file.read(14_000), usedforsecurity=False).digest()
                os.write(here, b"x")

    def turn(self) -> None:
        os.write(self._go, b"x")
        os.read(self._back, 1)

    def end(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


class Client:
    """Sends made-up requests and adds up what they cost."""

    def __init__(self, handler: Callable[[Any, memoryview], Any], other: Other | None) -> None:
        self._handler = handler
        self._other = other
        self._out = memoryview(bytearray(1 << 20))
        self.spent: dict[str, list[int]] = {}

    def __call__(self, kind: type[Any], nodeid: int, *fields: Any) -> Any:
        event = kind(InHeader(0, 0, 1, nodeid, 0, 0, 1), *fields)
        if self._other is not None:
            self._other.turn()
        begin = time.thread_time_ns()
        answer = self._handler(event, self._out)
        spent = self.spent.setdefault(kind.__name__, [0, 0])
        spent[0] += 1
        spent[1] += time.thread_time_ns() - begin
        return answer


def work(client: Client, files: int, size: int) -> None:
    """Unpack, read again, remove: `files` files of `size` bytes."""
    data = memoryview(os.urandom(size))
    number = int.from_bytes
    nodes = []
    for index in range(files):
        name = b"file%d" % index
        created = client(events.Create, 1, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, 0, 0, name)
        nodeid, fh = number(created[:8], "little"), number(created[128:136], "little")
        client(events.Write, nodeid, fh, 0, size, 0, 0, 0, data)
        client(events.Setattr, nodeid, 0x30 | 0x40, fh, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0)
        client(events.Flush, nodeid, fh, 0)
        client(events.Release, nodeid, fh, 0, 0, 0)
        nodes.append(nodeid)
    for index, nodeid in enumerate(nodes):
        client(events.Lookup, 1, b"file%d" % index)
        opened = client(events.Open, nodeid, os.O_RDONLY, 0)
        fh = number(opened[:8], "little")
        client(events.Read, nodeid, fh, 0, 131072, 0, 0, 0)
        client(events.Release, nodeid, fh, 0, 0, 0)
    for index in range(files):
        client(events.Unlink, 1, b"file%d" % index)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--between", choices=("nothing", "switch", "work", "idle"), default="nothing")
    arguments = parser.parse_args()
    other = None if arguments.between == "nothing" else Other(arguments.between)
    with tempfile.TemporaryDirectory(prefix="grantfs-bench-", dir="/dev/shm") as room, ExitStack() as drive:
        Callers.known = lambda self, tid, uid, **how: CALLER  # type: ignore[method-assign,assignment,misc]
        Path(room, "store").mkdir()
        built = drive.enter_context(built_drive(Path(room), HERE / "policy", {0: "li"}))
        client = Client(built.operations, other)
        work(client, 200, arguments.size)
        client.spent.clear()
        calm_collector()
        profile = cProfile.Profile()
        if arguments.profile:
            profile.runcall(work, client, arguments.files, arguments.size)
            pstats.Stats(profile).sort_stats("tottime").print_stats(45)
        else:
            work(client, arguments.files, arguments.size)
        if other is not None:
            other.end()
        for name, (count, spent) in client.spent.items():
            sys.stdout.write(f"{name:10} {count:7} {spent / count / 1000:7.1f} us\n")


if __name__ == "__main__":
    main()
