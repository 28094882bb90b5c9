"""Checks the whole log: rows against their bodies, each machine's chain, the tree, and every signed checkpoint.

Trusts nothing in the database but what the log's public key signed. What no checkpoint covers yet (the newest seconds)
is checked for consistency only; a log cut back to an older checkpoint is noticed by who kept a newer one
(docs/audit-log.md says what witnesses add).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from keyserver.auditlog.checkpoint import Checkpoint, CheckpointInvalid, verify
from keyserver.auditlog.merkle import CompactRange, leaf_hash
from keyserver.auditlog.records import CHAIN_START, link, parse
from keyserver.errors import KeyServerError, LogBroken
from keyserver.store.records import Stored
from keyserver.store.rows import Rows


class Verified(NamedTuple):
    """What was checked."""

    records: int
    machines: int
    checkpoints: int
    checkpointed: int
    """Records that the newest checkpoint covers."""
    root: str
    """Root of all records, hex."""


class _Chain:
    __slots__ = ("machine", "seq", "value")

    def __init__(self, machine: str) -> None:
        self.machine = machine
        self.seq = 0
        self.value = CHAIN_START


def verify_log(
    rows: Rows,
    company: str,
    log_key: bytes,
    *,
    kept: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Verified:
    """Raises `LogBroken`, whose message names the first bad row.

    `kept` is a checkpoint that someone else remembers (a machine, a witness): the log must contain what it covers.
    """
    checkpoints = _signed(rows, company, log_key)
    expected = {checkpoint.size: (f"checkpoint {checkpoint.size}", checkpoint.root) for checkpoint in checkpoints}
    if kept is not None:
        outside = _open(kept, company, log_key, "the checkpoint given")
        name, root = expected.setdefault(outside.size, ("the checkpoint given", outside.root))
        if root != outside.root:
            raise LogBroken(f"fork: {name} and the checkpoint given have one size and two roots")
    chains = {head.number: _Chain(head.machine) for head in rows.records.heads()}
    tree = CompactRange()
    subtrees = rows.records.subtrees()
    for row in rows.records.stream():
        if row[0] != tree.size:
            raise LogBroken(f"row {tree.size}: missing")
        _check_row(row, chains)
        for height, place, root in tree.append(row[8]):
            if subtrees.pop((height, place), None) != root:
                raise LogBroken(f"row {row[0]}: the stored subtree {height}/{place} that it completes is wrong")
        if (found := expected.pop(tree.size, None)) is not None and found[1] != tree.root():
            raise LogBroken(f"row {row[0]}: it, or one before it, is not what {found[0]} signed")
        progress(tree.size)
    _check_end(rows, tree, chains)
    if subtrees:
        raise LogBroken(f"row {tree.size}: missing, a stored subtree covers it")
    if expected:
        name, _ = expected[min(expected)]
        raise LogBroken(f"row {tree.size}: missing, {name} covers it")
    newest = checkpoints[-1].size if checkpoints else 0
    return Verified(tree.size, len(chains), len(checkpoints), newest, tree.root().hex())


def _check_row(row: Stored, chains: dict[int, _Chain]) -> None:
    position, number, seq, time, event, person, path, file, leaf, text = row
    try:
        record, body = parse(text)
    except KeyServerError as exc:
        raise LogBroken(f"row {position}: {exc}") from None
    if leaf_hash(body) != leaf:
        raise LogBroken(f"row {position}: its body is not what was hashed")
    chain = chains.get(number)
    if chain is None or record.machine != chain.machine:
        raise LogBroken(f"row {position}: it stands in another machine's chain")
    said = (record.file.path, record.file.id) if record.file else ("", "")
    if (record.seq, record.time, record.event, record.user, *said) != (seq, time, event, person, path, file):
        raise LogBroken(f"row {position}: its columns differ from its body")
    if seq != chain.seq + 1:
        raise LogBroken(f"row {position}: record {seq} of machine {chain.machine} follows record {chain.seq}")
    chain.seq, chain.value = seq, link(chain.value, body)


def _check_end(rows: Rows, tree: CompactRange, chains: dict[int, _Chain]) -> None:
    size, packed = rows.records.tree()
    if size != tree.size:
        raise LogBroken(f"row {tree.size}: missing, the tree has {size} leaves")
    if packed != tree.packed:
        raise LogBroken("the stored tree is not that of the rows")
    for head in rows.records.heads():
        chain = chains[head.number]
        if (head.seq, head.value) != (chain.seq, chain.value):
            raise LogBroken(
                f"machine {head.machine}: its chain ends at record {chain.seq}, not at {head.seq} as stored"
            )


def _signed(rows: Rows, company: str, log_key: bytes) -> list[Checkpoint]:
    def each() -> Iterator[Checkpoint]:
        for size, note in rows.records.checkpoints():
            checkpoint = _open(note, company, log_key, f"checkpoint {size}")
            if checkpoint.size != size:
                raise LogBroken(f"checkpoint {size}: it speaks of {checkpoint.size} records")
            yield checkpoint

    return list(each())


def _open(note: str, company: str, log_key: bytes, name: str) -> Checkpoint:
    try:
        return verify(note, company, log_key)
    except CheckpointInvalid as exc:
        raise LogBroken(f"{name}: {exc}") from None
