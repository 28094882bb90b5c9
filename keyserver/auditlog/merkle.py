"""The Merkle tree of RFC 9162 section 2.1 over the records, and its proofs. Pure: hashes in, hashes out.

`CompactRange` is all that appending needs: the roots of the complete subtrees that make up the tree, one for each bit
of its size. Proofs ask for the roots of complete subtrees by (height, place), where place counts subtrees of that
height from the left; who calls says where those come from.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

HASH_SIZE = 32
STORED_HEIGHT = 8
"""Roots of complete subtrees whose height is a multiple of this are worth keeping: one a 256 leaves."""

Subtree = tuple[int, int, bytes]
"""height, place, root"""
NodeAt = Callable[[int, int], bytes]
"""(height, place) to the root of that complete subtree; height 0 are the leaves."""


class ProofInvalid(Exception):
    """A proof does not lead to the root it should."""


def leaf_hash(body: bytes) -> bytes:
    """RFC 9162 2.1.1: the domain of leaves is 0x00."""
    return sha256(b"\x00" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 9162 2.1.1: the domain of inner nodes is 0x01."""
    return sha256(b"\x01" + left + right).digest()


class CompactRange:
    """A tree that can grow and tell its root."""

    __slots__ = ("roots", "size")

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        if len(roots) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} complete subtrees, not {len(roots)}")
        self.size = size
        self.roots = list(roots)

    @classmethod
    def load(cls, size: int, packed: bytes) -> "CompactRange":
        """Inverse of `size` and `packed`. Raises ValueError where they do not fit together."""
        roots = [packed[at : at + HASH_SIZE] for at in range(0, len(packed), HASH_SIZE)]
        return cls(size, roots)

    @property
    def packed(self) -> bytes:
        return b"".join(self.roots)

    def append(self, leaf: bytes) -> list[Subtree]:
        """Adds one leaf hash; the subtrees worth storing that it completed (nearly always none)."""
        completed: list[Subtree] = []
        place, height = self.size, 0
        while place & 1:
            leaf = node_hash(self.roots.pop(), leaf)
            place >>= 1
            height += 1
            if height % STORED_HEIGHT == 0:
                completed.append((height, place, leaf))
        self.roots.append(leaf)
        self.size += 1
        return completed

    def extend(self, leaves: Sequence[bytes]) -> list[Subtree]:
        """`append` of many, level by level; the order of what it returns differs."""
        completed: list[Subtree] = []
        edge: list[bytes] = []  # new roots on the right, smallest first
        level, place, height = list(leaves), self.size, 0
        self.size += len(level)
        while level:
            if height and height % STORED_HEIGHT == 0:
                completed += [(height, at, root) for at, root in enumerate(level, place)]
            if place & 1:
                level.insert(0, self.roots.pop())
            if len(level) & 1:
                edge.append(level.pop())
            level = [
                sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=True)
            ]
            place, height = place >> 1, height + 1
        self.roots += reversed(edge)
        return completed

    def root(self) -> bytes:
        """The hash of the whole tree; of the empty tree, that of nothing."""
        if not self.roots:
            return sha256().digest()
        *left, root = self.roots
        for each in reversed(left):
            root = node_hash(each, root)
        return root


def inclusion_proof(index: int, size: int, node_at: NodeAt) -> list[bytes]:
    """RFC 9162 2.1.3.1: hashes that lead from leaf `index` to the root of the first `size` leaves."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    return _path(index, 0, size, node_at)


def consistency_proof(old: int, size: int, node_at: NodeAt) -> list[bytes]:
    """RFC 9162 2.1.4.1: hashes that show the tree of `old` leaves to be the beginning of that of `size`."""
    if not 0 < old <= size:
        raise ValueError(f"there is no proof from {old} to {size} leaves")
    return _subproof(old, 0, size, True, node_at)


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """RFC 9162 2.1.3.2. Raises `ProofInvalid`."""
    if not 0 <= index < size:
        raise ProofInvalid(f"a tree of {size} leaves has no leaf {index}")
    place, last, value = index, size - 1, leaf
    for each in proof:
        if last == 0:
            raise ProofInvalid("the proof is too long")
        if place & 1 or place == last:
            value = node_hash(each, value)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            value = node_hash(value, each)
        place, last = place >> 1, last >> 1
    if last or value != root:
        raise ProofInvalid("the proof does not lead to the root")


def verify_consistency(old: int, size: int, proof: Sequence[bytes], old_root: bytes, root: bytes) -> None:
    """RFC 9162 2.1.4.2. Raises `ProofInvalid`."""
    if not 0 < old <= size:
        raise ProofInvalid(f"there is no proof from {old} to {size} leaves")
    if old == size:
        if proof or old_root != root:
            raise ProofInvalid("two roots for one size")
        return
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        raise ProofInvalid("the proof is empty")
    place, last = old - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    first = second = path[0]
    for each in path[1:]:
        if last == 0:
            raise ProofInvalid("the proof is too long")
        if place & 1 or place == last:
            first, second = node_hash(each, first), node_hash(each, second)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            second = node_hash(second, each)
        place, last = place >> 1, last >> 1
    if last or first != old_root or second != root:
        raise ProofInvalid("the proof does not lead from the old root to the new one")


def _split(size: int) -> int:
    """The largest power of two below `size`, which is above 1."""
    return 1 << ((size - 1).bit_length() - 1)


def _range_root(start: int, size: int, node_at: NodeAt) -> bytes:
    """Root of leaves start .. start+size; `start` is a multiple of the next power of two at or above `size`."""
    if size & (size - 1) == 0:
        height = size.bit_length() - 1
        return node_at(height, start >> height)
    left = _split(size)
    return node_hash(_range_root(start, left, node_at), _range_root(start + left, size - left, node_at))


def _path(index: int, start: int, size: int, node_at: NodeAt) -> list[bytes]:
    if size == 1:
        return []
    left = _split(size)
    if index < left:
        return [*_path(index, start, left, node_at), _range_root(start + left, size - left, node_at)]
    return [*_path(index - left, start + left, size - left, node_at), _range_root(start, left, node_at)]


def _subproof(old: int, start: int, size: int, whole: bool, node_at: NodeAt) -> list[bytes]:
    if old == size:
        return [] if whole else [_range_root(start, size, node_at)]
    left = _split(size)
    if old <= left:
        return [*_subproof(old, start, left, whole, node_at), _range_root(start + left, size - left, node_at)]
    rest = _subproof(old - left, start + left, size - left, False, node_at)
    return [*rest, _range_root(start, left, node_at)]


def pairs(hashes: Sequence[bytes]) -> Iterator[bytes]:
    """The next level of a complete subtree: each two neighbours under one node."""
    return map(node_hash, hashes[::2], hashes[1::2])
