"""Two machines, one store, and no mercy: programs on both change, rename, replace and lock files while daemons are
killed, stopped and started again at random moments.

CHAOS_SECONDS, CHAOS_SEED and CHAOS_WHAT (of "kill stall stop", as often as each is to come) say for how long and how.
"""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.mounted.mounted import LISTED, Mounted, remove, temporary_directory
from tests.mounted.test_two_machines import ALARMS, Worker
from tests.patience import PATIENCE

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

SECONDS = float(os.environ.get("CHAOS_SECONDS", "60"))
SEED = int(os.environ.get("CHAOS_SEED", random.randrange(1 << 32)))
TROUBLE = os.environ.get("CHAOS_WHAT", "kill kill kill stall stall stop").split()
SIZE = 150_000
PAGE = 4096


class Machine:
    """A drive that comes and goes. While it is away, its programs get errors."""

    def __init__(self, drive: Mounted) -> None:
        self.drive = drive
        self.up = threading.Event()

    def start(self) -> None:
        self.drive.start()
        self.up.set()


class Gone(Exception):
    """The machine went away in the midst of it."""


class Document:
    """One file, its programs on each machine, and what may be in it: each state since the last promise."""

    def __init__(self, name: str, machines: list[Machine], draw: random.Random) -> None:
        self.name = name
        self._machines = machines
        self._draw = draw
        self._workers: dict[int, Worker] = {}
        self.states = [b""]
        self.turns = 0
        self.story: list[str] = []

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()

    def _path(self, which: int) -> str:
        return str(self._machines[which].drive.drive / "documents" / self.name)

    def _do(self, which: int, *what: object) -> object:
        if which not in self._workers:
            self._machines[which].up.wait(PATIENCE)
            self._workers[which] = Worker()
        words = [what[0], self._path(which), *what[1:]]
        try:
            return self._workers[which](*words)
        except (OSError, ValueError) as exc:
            self._workers.pop(which).close()
            raise Gone(f"{what[0]} on {which}: {exc}") from exc

    def work(self, until: float) -> None:
        while time.monotonic() < until:
            self.turn()

    def turn(self) -> None:
        """A machine changes the file under a lock: it finds what was promised, and leaves something else."""
        who = self._draw.randrange(2)
        self.turns += 1
        try:
            self._do(who, "flock", "LOCK_EX")
            self._settle(bytes.fromhex(str(self._do(who, "read"))), who)
            for _ in range(self._draw.randint(1, 4)):
                self._change(who)
            if self._draw.random() < 0.7:
                content = bytes.fromhex(str(self._do(who, self._draw.choice(["read", "mapped"]))))
                assert content == self.states[-1], self._trouble(content, who)
            self._do(who, "flock", "LOCK_UN")
            self.states = self.states[-1:]  # who lets a lock go has what was written committed
            if self._draw.random() < 0.2:
                self._do(who, "close")
        except Gone as exc:
            self.story.append(f"{time.monotonic():.3f} gone: {exc}")

    def _settle(self, content: bytes, who: int) -> None:
        assert content in self.states, self._trouble(content, who)
        self.story.append(
            f"{time.monotonic():.3f} {who} found state {self.states.index(content)} of {len(self.states)}"
        )
        self.states = [content]

    def _change(self, who: int) -> None:
        draw, before = self._draw, self.states[-1]
        what = draw.choice(["write", "write", "write", "append", "truncate", "punch", "sync"])
        self.story.append(f"{time.monotonic():.3f} {who} {what}")
        if what == "sync":
            self._do(who, what)
            self.states = self.states[-1:]
        elif what in ("write", "append"):
            at = draw.randrange(SIZE) if what == "write" else len(before)
            data = draw.randbytes(draw.choice([1, 100, 5000, 40_000]))
            # Who dies in the midst of it has written some of its pages.
            self.states += [_written(before, at, data[:size]) for size in range(PAGE - at % PAGE, len(data), PAGE)]
            self.states.append(_written(before, at, data))
            self._do(who, what, *([at] if what == "write" else []), data.hex())
        elif what == "truncate":
            size = draw.choice([0, draw.randrange(len(before) + 1), draw.randrange(SIZE)])
            self.states.append(before[:size].ljust(size, b"\0"))
            self._do(who, what, size)
        elif what == "punch":
            at, length = draw.randrange(SIZE), draw.randrange(1, 100_000)
            self.states.append(
                _written(before, at, bytes(len(before[at : at + length]))) if at < len(before) else before
            )
            self._do(who, what, at, length)

    def _trouble(self, content: bytes, who: int) -> str:
        return "\n".join(
            [
                f"{self.name} on {who} has {len(content)} bytes, and is none of {len(self.states)} states:",
                *(_difference(state, content) for state in self.states),
                *self.story[-40:],
            ]
        )


def _written(before: bytes, at: int, data: bytes) -> bytes:
    return before[:at].ljust(at, b"\0") + data + before[at + len(data) :]


def _difference(state: bytes, content: bytes) -> str:
    differs = [at for at, (one, other) in enumerate(zip(state, content, strict=False)) if one != other]
    return f"  {len(state)} bytes, {len(differs)} others from {differs[0] if differs else 'the end'} on"


NOISE = r"""
import os, random, sys, time
folder, seed = sys.argv[1], int(sys.argv[2])
draw = random.Random(seed)
while True:
    try:
        name = os.path.join(folder, "n%d" % draw.randrange(12))
        what = draw.randrange(7)
        if what == 0: os.rename(name, os.path.join(folder, "n%d" % draw.randrange(12)))
        elif what == 1: os.unlink(name)
        elif what == 2:
            with open(name, "wb") as file: file.write(draw.randbytes(draw.randrange(60000)))
        elif what == 3:
            with open(name, "rb") as file: file.read()
        elif what == 4: os.link(name, os.path.join(folder, "n%d" % draw.randrange(12)))
        elif what == 5:
            secret = os.path.join(os.path.dirname(folder), "clients", "s%d" % draw.randrange(3))
            if draw.random() < 0.5:
                with open(secret, "wb") as file: file.write(draw.randbytes(5000))
            os.rename(name, secret)
        elif what == 6:
            fd = os.open(name, os.O_RDWR)
            try:
                for _ in range(20): os.pwrite(fd, draw.randbytes(draw.randrange(9000)), draw.randrange(40000))
                os.fsync(fd)
            finally: os.close(fd)
    except OSError as exc:
        if exc.errno in (103, 107): time.sleep(0.1)  # the machine is away
"""
COPIES = r"""
folder=$1
while :; do
    for number in 0 1 2 3 4 5; do
        cat $folder/n$number > /dev/null 2>&1 && cp $folder/n$number $folder/c$number 2>/dev/null
    done
    sleep 0.05
done
"""


@contextmanager
def noise(machines: list[Machine], draw: random.Random) -> Iterator[None]:
    made = []
    try:
        for machine in machines:
            folder = machine.drive.drive / "noise"
            program = [LISTED, "-I", "-c", NOISE, str(folder), str(draw.randrange(1 << 30))]
            for command in (program, ["/bin/sh", "-c", COPIES, "sh", str(folder)]):
                made.append(subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True))
        yield
    finally:
        for process in made:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def trouble(machines: list[Machine], draw: random.Random, until: float, story: list[str]) -> None:
    """Kills, stalls and ordinary ends, of one machine or both."""
    while time.monotonic() < until:
        time.sleep(draw.uniform(0.3, 3.0))
        chosen = draw.sample(machines, draw.choice([1, 1, 1, 1, 2]))
        what = draw.choice(TROUBLE)
        story.append(f"{time.monotonic():.3f} {what} {[machine.drive.machine for machine in chosen]}")
        if what == "stall":
            pids = [machine.drive.pid for machine in chosen]
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(draw.choice([0.05, 0.3, 1.0, 4.0]))
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            continue
        for machine in chosen:
            machine.up.clear()
            if what == "kill":
                machine.drive.kill()
                machine.drive.unmount_dead()
            else:
                machine.drive.stop()
        time.sleep(draw.choice([0.0, 0.1, 1.0, 7.0]))  # after five seconds the other is alone
        with ThreadPoolExecutor() as pool:
            list(pool.map(Machine.start, chosen))


def test_nothing_is_lost_and_nobody_cries_wolf() -> None:
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    one = Mounted(temporary_directory(), machine="one", transport=draw.choice(["io_uring", "dev"]))
    other = Mounted(temporary_directory(), machine="two", store=one.store, transport=draw.choice(["io_uring", "dev"]))
    machines = [Machine(one), Machine(other)]
    documents = [Document(f"d{number}", machines, random.Random(draw.random())) for number in range(3)]
    story: list[str] = []
    try:
        for machine in machines:
            machine.start()
        for folder in ("noise", "clients", "documents"):
            (one.drive / folder).mkdir()
        until = time.monotonic() + SECONDS
        with noise(machines, draw), ThreadPoolExecutor() as pool:
            working = [pool.submit(document.work, until) for document in documents]
            trouble(machines, draw, until, story)
            for work in working:
                work.result()
        print("turns", [document.turns for document in documents])
        alarms = [record for machine in machines for record in machine.drive.records() if record.event in ALARMS]
        assert alarms == []
    finally:
        print("\n".join([*story, one.log(), other.log()]))
        for document in documents:
            document.close()
        for drive in (other, one):
            drive.end()
        for drive in (other, one):
            remove(drive.directory)
