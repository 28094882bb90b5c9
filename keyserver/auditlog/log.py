"""The log: one sequence of all machines' records, a chain for each machine, a Merkle tree over the whole.

Only the writer thread (`keyserver.changes`) appends. INVARIANT: rows, chain heads and tree are written in the same
transaction, so whatever a crash leaves verifies.
"""

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyserver.auditlog.checkpoint import Checkpoint, origin, sign
from keyserver.auditlog.merkle import CompactRange, leaf_hash
from keyserver.auditlog.records import MAX_RECORD_BYTES, encode, link, rfc3339
from keyserver.errors import Malformed
from keyserver.messages import FilePath, ProgramPath, Record
from keyserver.store.records import Head, Stored
from keyserver.store.rows import Rows

SERVER = "server"
"""The machine field of the server's own records."""


class Log:
    """The end of the log in memory: chain heads and the tree's compact range."""

    def __init__(self, rows: Rows, company: str, key: Ed25519PrivateKey) -> None:
        self._company = company
        self._key = key
        self.checkpoint = rows.records.newest_checkpoint()
        """The newest signed checkpoint, "" before the first."""
        self.reload(rows)

    def reload(self, rows: Rows) -> None:
        """Takes the database's word, after a commit that failed."""
        self._tree = CompactRange.load(*rows.records.tree())
        self._heads: dict[str, Head] = {}
        self._touched: set[str] = set()
        self.mark()

    def mark(self) -> None:
        """What `back_to_mark` goes back to."""
        self._marked = self._tree.size, list(self._tree.roots)
        self._before: dict[str, Head | None] = {}

    def back_to_mark(self) -> None:
        """Forgets what was appended since `mark`; the rows are the caller's to roll back."""
        self._tree = CompactRange(*self._marked)
        for machine, head in self._before.items():
            if head is None:
                del self._heads[machine]
                self._touched.discard(machine)
            else:
                self._heads[machine] = head

    def flush(self, rows: Rows) -> None:
        """Writes heads and tree; once a transaction, before its commit."""
        for machine in self._touched:
            rows.records.set_head(self._heads[machine])
        if self._touched:
            rows.records.set_tree(self._tree.size, self._tree.packed)
        self._touched.clear()

    @property
    def size(self) -> int:
        return self._tree.size

    def head(self, rows: Rows, machine: str) -> Head:
        """Where the machine's chain ends."""
        if machine not in self._heads:
            self._before[machine] = None
            self._heads[machine] = rows.records.head(machine)
        return self._heads[machine]

    def append(
        self, rows: Rows, machine: str, records: Sequence[Record], bodies: Sequence[bytes], chain: bytes
    ) -> None:
        """Adds records and their encodings that follow the machine's head; `chain` is its value after the last."""
        head = self.head(rows, machine)
        number, leaves = head.number, list(map(leaf_hash, bodies))
        stored: list[Stored] = [
            # fmt: off
            (
                position,
                number,
                record.seq,
                record.time,
                record.event,
                record.user,
                record.file.path if record.file else "",
                record.file.id if record.file else "",
                leaf,
                body.decode(),
            )
            # fmt: on
            for position, (record, body, leaf) in enumerate(zip(records, bodies, leaves, strict=True), self._tree.size)
        ]
        rows.records.add(stored, self._tree.extend(leaves))
        self._before.setdefault(machine, head)
        self._heads[machine] = Head(number, machine, head.seq + len(stored), chain)
        self._touched.add(machine)

    def append_own(
        self,
        rows: Rows,
        event: str,
        now: float,
        *,
        user: str = "",
        file: FilePath | None = None,
        program: ProgramPath | None = None,
        view: str = "",
        rule: str = "",
        policy: int = 0,
        detail: str = "",
    ) -> None:
        """A record of the server itself. Raises `Malformed` where what a request said makes it too long."""
        head = self.head(rows, SERVER)
        record = Record(
            seq=head.seq + 1,
            time=rfc3339(now),
            machine=SERVER,
            event=event,
            user=user,
            file=file,
            program=program,
            view=view,
            rule=rule,
            policy=policy,
            detail=detail,
        )
        body = encode(record)
        if len(body) > MAX_RECORD_BYTES:
            raise Malformed(f"the record of this would have {len(body)} bytes: the limit is {MAX_RECORD_BYTES}")
        self.append(rows, SERVER, [record], [body], link(head.value, body))

    def sign_checkpoint(self, rows: Rows, now: float) -> str:
        """The newest checkpoint, signed anew and kept in the database where the log has grown since."""
        newest = rows.records.newest_checkpoint()
        size = self._tree.size
        if size == 0 or newest.splitlines()[1:2] == [str(size)]:
            return newest
        note = sign(Checkpoint(origin(self._company), size, self._tree.root()), self._key)
        rows.records.add_checkpoint(size, note, now)
        return note
