"""The log: one sequence of all machines' records, a chain for each machine, a Merkle tree over the whole.

Only the writer thread (`keyserver.changes`) appends. INVARIANT: rows, chain heads and tree are written in the same
transaction, so whatever a crash leaves verifies; `reload` takes the database's word after a rollback.
"""

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyserver.auditlog.checkpoint import Checkpoint, origin, sign
from keyserver.auditlog.merkle import CompactRange, Subtree, leaf_hash
from keyserver.auditlog.records import encode, link, rfc3339
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
        self._tree = CompactRange.load(*rows.records.tree())
        self._heads: dict[str, Head] = {}

    @property
    def size(self) -> int:
        return self._tree.size

    def head(self, rows: Rows, machine: str) -> Head:
        """Where the machine's chain ends."""
        if machine not in self._heads:
            self._heads[machine] = rows.records.head(machine)
        return self._heads[machine]

    def append(self, rows: Rows, machine: str, records: Sequence[tuple[Record, bytes]], chain: bytes) -> None:
        """Adds records that follow the machine's head; `chain` is its value after the last of them."""
        head = self.head(rows, machine)
        tree, number = self._tree, head.number
        stored: list[Stored] = []
        subtrees: list[Subtree] = []
        for record, body in records:
            leaf = leaf_hash(body)
            path, file = (record.file.path, record.file.id) if record.file else ("", "")
            # fmt: off
            stored.append((tree.size, number, record.seq, record.time, record.event, record.user, path, file, leaf,
                           body.decode()))
            # fmt: on
            subtrees += tree.append(leaf)
        rows.records.add(stored, subtrees)
        self._heads[machine] = Head(number, machine, head.seq + len(stored), chain)
        rows.records.set_head(self._heads[machine])
        rows.records.set_tree(tree.size, tree.packed)

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
        """A record of the server itself."""
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
        self.append(rows, SERVER, [(record, body)], link(head.value, body))

    def sign_checkpoint(self, rows: Rows, now: float) -> str:
        """The newest checkpoint, signed anew and kept in the database where the log has grown since."""
        newest = rows.records.newest_checkpoint()
        size = self._tree.size
        if size == 0 or newest.splitlines()[1:2] == [str(size)]:
            return newest
        note = sign(Checkpoint(origin(self._company), size, self._tree.root()), self._key)
        rows.records.add_checkpoint(size, note, now)
        return note
