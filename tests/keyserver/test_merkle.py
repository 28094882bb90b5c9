from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.auditlog.merkle import (
    CompactRange,
    ProofInvalid,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

# The model is slow on purpose, and the machine may be busy.
patient = settings(deadline=None, max_examples=50)
LEAVES = [leaf_hash(b"record %d" % index) for index in range(1000)]


def leaves(count):
    return LEAVES[:count]


def model_root(hashes):
    """RFC 9162 2.1.1 as it is written."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node_hash(model_root(hashes[:split]), model_root(hashes[split:]))


def node_at(hashes):
    return lambda height, place: model_root(hashes[place << height : (place + 1) << height])


sizes = st.integers(1, 600)


@patient
@given(st.integers(0, 600))
def test_a_compact_range_has_the_root_of_the_whole_tree(size):
    tree = CompactRange()
    for leaf in leaves(size):
        tree.append(leaf)
    assert tree.root() == model_root(leaves(size))
    assert CompactRange.load(tree.size, tree.packed).root() == tree.root()


@patient
@given(st.lists(st.integers(0, 600), max_size=4))
def test_many_leaves_at_once_make_the_same_tree(counts):
    one, many = CompactRange(), CompactRange()
    for count in counts:
        new = LEAVES[:count]
        assert sorted(many.extend(new)) == sorted(subtree for leaf in new for subtree in one.append(leaf))
        assert (many.size, many.roots) == (one.size, one.roots)


def test_stored_subtrees_are_the_roots_of_complete_subtrees():
    tree, hashes, stored = CompactRange(), leaves(1000), []
    for leaf in hashes:
        stored += tree.append(leaf)
    assert stored == [(8, place, model_root(hashes[place * 256 : place * 256 + 256])) for place in range(3)]


@patient
@given(sizes, st.data())
def test_every_leaf_can_be_proved(size, data):
    index = data.draw(st.integers(0, size - 1))
    hashes = leaves(size)
    proof = inclusion_proof(index, size, node_at(hashes))
    verify_inclusion(hashes[index], index, size, proof, model_root(hashes))


@patient
@given(sizes, st.data())
def test_a_proof_is_good_for_nothing_else(size, data):
    index = data.draw(st.integers(0, size - 1))
    hashes = leaves(size)
    root, proof = model_root(hashes), inclusion_proof(index, size, node_at(hashes))
    with pytest.raises(ProofInvalid):
        verify_inclusion(leaf_hash(b"another"), index, size, proof, root)
    with pytest.raises(ProofInvalid):
        verify_inclusion(hashes[index], index, size, [*proof, root], root)
    if proof:
        with pytest.raises(ProofInvalid):
            verify_inclusion(hashes[index], index, size, proof[:-1], root)
        with pytest.raises(ProofInvalid):
            verify_inclusion(hashes[index], index ^ 1, size, proof, root)


@patient
@given(sizes, st.data())
def test_every_tree_continues_its_beginnings(size, data):
    old = data.draw(st.integers(1, size))
    hashes = leaves(size)
    proof = consistency_proof(old, size, node_at(hashes))
    verify_consistency(old, size, proof, model_root(hashes[:old]), model_root(hashes))


@patient
@given(st.integers(2, 300), st.data())
def test_a_fork_has_no_proof(size, data):
    old = data.draw(st.integers(1, size - 1))
    hashes = leaves(size)
    proof = consistency_proof(old, size, node_at(hashes))
    forked = [*hashes[: old - 1], leaf_hash(b"forged")]
    with pytest.raises(ProofInvalid):
        verify_consistency(old, size, proof, model_root(forked), model_root(hashes))
    with pytest.raises(ProofInvalid):
        verify_consistency(old, size, [*proof, hashes[0]], model_root(hashes[:old]), model_root(hashes))


def test_a_packed_range_must_fit_its_size():
    with pytest.raises(ValueError, match="complete subtrees"):
        CompactRange.load(3, bytes(32))


def test_proofs_are_of_leaves_that_are_there():
    with pytest.raises(ValueError, match="no leaf 5"):
        inclusion_proof(5, 5, node_at(leaves(5)))
    with pytest.raises(ValueError, match="no proof"):
        consistency_proof(0, 5, node_at(leaves(5)))
    with pytest.raises(ProofInvalid):
        verify_inclusion(leaves(1)[0], 1, 1, [], leaves(1)[0])
    with pytest.raises(ProofInvalid):
        verify_consistency(2, 1, [], b"", b"")
