"""Proofs from the stored tree: that a record is in the log, that one checkpoint's log continues another's."""

from keyserver.auditlog.merkle import HASH_SIZE, STORED_HEIGHT, consistency_proof, inclusion_proof, pairs
from keyserver.errors import LogBroken, NotFound
from keyserver.store.rows import Rows


class StoredTree:
    """Roots of complete subtrees, from stored ones and, below those, from at most 256 leaf hashes."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def node(self, height: int, place: int) -> bytes:
        """`merkle.NodeAt`. Raises `LogBroken` where rows are missing."""
        base = height - height % STORED_HEIGHT
        first, count = place << (height - base), 1 << (height - base)
        if base == 0:
            hashes = self._rows.records.leaves(first, count)
        else:
            hashes = [each for at in range(count) if (each := self._rows.records.subtree(base, first + at))]
        if len(hashes) != count:
            raise LogBroken(f"row {first << base} or one soon after it: missing")
        while len(hashes) > 1:
            hashes = list(pairs(hashes))
        assert len(hashes[0]) == HASH_SIZE
        return hashes[0]


def prove_inclusion(rows: Rows, position: int, size: int) -> list[bytes]:
    """Raises `NotFound` where the first `size` records do not include `position`."""
    if not 0 <= position < size:
        raise NotFound(f"no checkpoint covers row {position} yet")
    return inclusion_proof(position, size, StoredTree(rows).node)


def prove_consistency(rows: Rows, old: int, size: int) -> list[bytes]:
    """Raises `NotFound` where the first `size` records do not include the first `old`."""
    if not 0 < old <= size:
        raise NotFound(f"no checkpoint covers {old} records yet")
    return consistency_proof(old, size, StoredTree(rows).node)
