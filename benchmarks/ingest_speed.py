"""How fast the key server takes records: decoded, checked, chained, hashed into the tree, durable in SQLite.

Run from the project's root: python -m benchmarks.ingest_speed. In one process, without TLS: what the writer's thread
costs a record. The disk's fsync counts, so run it on the disk that is meant (`--dir`).
"""

import gc
import tempfile
import time
from functools import partial
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyserver.auditlog.ingest import Intake
from keyserver.auditlog.log import Log
from keyserver.auditlog.records import CHAIN_START, encode, link, rfc3339
from keyserver.auditlog.verify import verify_log
from keyserver.changes import Change, Writer
from keyserver.machines import Machines
from keyserver.messages import FilePath, ProgramPath, Record, RecordBatch, RecordReceipt
from keyserver.old_copies import OldCopies
from keyserver.store import Store

COMPANY = "0c" * 16
MACHINES = 4
RECORDS = 40_000
NOON = 1_790_000_000.0


class Machine:
    """Writes records as an agent does."""

    def __init__(self, number: int) -> None:
        self.id = f"{number:032x}"
        self.seq, self.chain = 0, CHAIN_START

    def batch(self, count: int) -> RecordBatch:
        first, before, bodies = self.seq + 1, self.chain, []
        for _ in range(count):
            self.seq += 1
            body = encode(self._record())
            self.chain = link(self.chain, body)
            bodies.append(body)
        return RecordBatch.of(first, before, bodies)

    def _record(self) -> Record:
        path = f"/sales/clients/region-{self.seq % 50}/document-{self.seq % 1000}.docx"
        return Record(
            seq=self.seq,
            time=rfc3339(NOON + self.seq / 1000),
            machine=self.id,
            event="open",
            user="li",
            uid=1000,
            file=FilePath(path, f"{self.seq % 1000:032x}", "ab" * 16, 3),
            program=ProgramPath("/usr/lib/libreoffice/program/soffice.bin", "9f" * 32, 1234, 1200, "/usr/bin/bash"),
            view="plaintext",
            rule="sales/office-edits-clients",
            policy=3,
            bytes_read=123_456,
        )


@click.command()
@click.option("--dir", "directory", type=click.Path(exists=True, path_type=Path), help="Where the database goes.")
def main(directory: Path | None) -> None:
    gc.set_threshold(50_000, 20, 50)  # as `serve` does
    key = Ed25519PrivateKey.generate()
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        store = Store(Path(folder) / "keyserver.db")
        store.upgrade()
        with store.read() as rows:
            log = Log(rows, COMPANY, key)
            old_copies = OldCopies(Machines(rows), lambda: lambda machine, label: True)
        writer, intake = Writer(store, log, time.time), Intake()
        writer.start()

        def take(machine: str, batch: RecordBatch, change: Change) -> object:
            return intake.take(change, machine, {"li"}, batch)

        machines = [Machine(number) for number in range(MACHINES)]
        for size in (20, 100, 500, 2000):
            batches = [(each, each.batch(size)) for _ in range(RECORDS // size // MACHINES) for each in machines]
            begun, used = time.perf_counter(), time.process_time()
            waiting = [writer.submit(partial(take, machine.id, batch)) for machine, batch in batches]
            assert all(isinstance(future.result(), RecordReceipt) for future in waiting)
            taken, used = time.perf_counter() - begun, time.process_time() - used
            count = len(batches) * size
            click.echo(
                f"batches of {size:4}: {count / taken:7.0f} records/s, {used / count * 1e6:5.1f} us CPU a record"
            )
        used = time.process_time()
        while writer.run(old_copies.count):
            pass
        click.echo(f"searched for old copies: {(time.process_time() - used) / log.size * 1e6:.1f} us CPU a record")
        writer.stop()
        begun = time.perf_counter()
        with store.read() as rows:
            verified = verify_log(rows, COMPANY, key.public_key().public_bytes_raw())
        click.echo(f"verify: {(time.perf_counter() - begun) / verified.records * 1e6:.1f} us a record")
        store.close()


if __name__ == "__main__":
    main()
