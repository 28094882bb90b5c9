"""A drive without a key server: real mount, real store, real policy, label keys made up here.

    python -m tests.mounted.harness DIR [--policy FOLDER] [--transport io_uring|dev] [--person UID=NAME ...]
        [--store FOLDER] [--machine NAME]

uses DIR/store, or FOLDER, DIR/drive and DIR/spool, prints one JSON line when the drive answers, ends at SIGTERM. At
SIGUSR1 it prints another, which says what it holds.
"""

import argparse
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fsdriver.audit_spool import AuditSpool
from fsdriver.device import Answer, Handler, Session
from fsdriver.errors import LeaseMissing, ServerUnreachable
from fsdriver.filesystem import Built, Store, build
from fsdriver.leases import LabelKey
from fsdriver.protocol import Event
from fsdriver.serve import calm_collector
from keyserver.sealing import SecretKey
from policy import Bundle, Person, load, read_files

COMPANY = bytes(range(16))
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}


class FixedLeases:
    """One key a label, for ever: derived from the label's id, so that a second mount opens what the first wrote."""

    def __init__(self) -> None:
        self.revoked: set[bytes] = set()
        self.epoch = 0

    def key_for(self, label: bytes, version: int | None, now: float) -> LabelKey:
        if label in self.revoked or version not in (None, 1):
            raise LeaseMissing("revoked")
        return LabelKey(bytes(16), 1, SecretKey(label + label))

    def holds(self, label: bytes, now: float) -> bool:
        return label not in self.revoked


class NoGrants:
    def grant(self, request: object) -> object:
        raise ServerUnreachable("there is no key server in this test")

    def refresh(self) -> bool:
        return False


class Timed:
    """Counts requests, and the processor and wall time their handlers take."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.spent: dict[str, list[int]] = {}
        """Kind of request -> how many, nanoseconds of processor time, nanoseconds."""

    def __call__(self, event: Event, out: memoryview) -> Answer:
        wall, processor = time.perf_counter_ns(), time.thread_time_ns()
        try:
            return self._handler(event, out)
        finally:
            spent = self.spent.setdefault(type(event).__name__, [0, 0, 0])
            spent[0] += 1
            spent[1] += time.thread_time_ns() - processor
            spent[2] += time.perf_counter_ns() - wall

    def report(self) -> str:
        rows = sorted(self.spent.items(), key=lambda row: -row[1][2])
        lines = [
            f"{name:16} {count:8} {cpu / count / 1000:8.1f} us cpu {wall / count / 1000:8.1f} us wall"
            for name, (count, cpu, wall) in rows
        ]
        return "\n".join(lines) + "\n"


@contextmanager
def built_drive(
    here: Path, policy_folder: Path, logins: Mapping[int, str], *, store: Path | None = None, machine: str = "test"
) -> Iterator[Built]:
    """A drive over `store` or `here`/store, its records in `here`/spool; not mounted. All of `logins` are in every
    department."""
    policy = load(read_files([policy_folder]))
    departments = frozenset(policy.departments)
    bundle = Bundle.build(
        policy,
        number=1,
        company=COMPANY.hex(),
        label_ids={label.qualified: label.qualified.encode().ljust(16, b"\0")[:16] for label in policy.labels},
        people=[Person(name=name, departments=departments) for name in logins.values()],
    )
    with ExitStack() as ending:
        opened = Store.open(str(store or here / "store"), COMPANY, machine)
        ending.callback(opened.close)
        spool = AuditSpool(here / "spool", machine, time.time)
        ending.callback(spool.close)
        built = build(
            opened,
            here / "drive",
            company=COMPANY,
            mode="root",
            leases=FixedLeases(),  # type: ignore[arg-type]
            grants=NoGrants(),  # type: ignore[arg-type]
            spool=spool,
            states=here / "states.db",
            now=time.time,
        )
        ending.callback(built.close)
        built.revocation.decide_anew(bundle, logins)
        yield built


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--transport", choices=["io_uring", "dev"], default="io_uring")
    parser.add_argument("--person", action="append", default=[])
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--machine", default="test")
    arguments = parser.parse_args()
    os.umask(0)
    here = arguments.directory
    for name in ("store", "drive"):
        with suppress(FileExistsError):
            os.mkdir(here / name)
    logins = {int(uid): name for uid, _, name in (pair.partition("=") for pair in arguments.person)} or {0: "li"}
    with built_drive(here, arguments.policy, logins, store=arguments.store, machine=arguments.machine) as built:
        serve(built, here / "drive", arguments)


def serve(built: Built, drive: Path, arguments: argparse.Namespace) -> None:
    handler = Timed(built.operations) if arguments.profile else built.operations
    session = Session(handler, drive, io_uring=arguments.transport == "io_uring", hang_limit=None)
    session.start()
    built.drive.kernel.attach(session.notifier)
    calm_collector()
    print(json.dumps({"pid": os.getpid(), "drive": str(drive), "transport": session.transport}), flush=True)
    while signal.sigwait(_SIGNALS) == signal.SIGUSR1:
        held = {"nodes": len(built.drive.inodes), "files": len(list(built.drive.files))}
        if isinstance(handler, Timed):
            for kind, (count, processor, _) in handler.spent.copy().items():
                held |= {kind: count, f"{kind} ns": processor}
        print(json.dumps(held), flush=True)
    session.stop(release=True)
    if isinstance(handler, Timed):
        arguments.profile.write_text(handler.report())


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    main()
