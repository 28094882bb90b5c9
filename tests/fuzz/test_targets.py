"""A fixed number of examples for each target: bytes at random, and seeds that were cut, mixed and edited."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import SEEDS, TARGETS

EXAMPLES = {"sealed_file": 400, "redo_log": 300, "policy": 150, "key_file": 300, "read_ahead": 300}
"""Others 2000: together some seconds."""


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        if draw(st.booleans()):
            data[at : at + draw(st.sampled_from([0, 1, 2, 4, 8, len(data)]))] = draw(st.binary(max_size=9))
        else:
            data[at : at + 4] = draw(st.sampled_from([bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]))
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str) -> None:
    @settings(max_examples=EXAMPLES.get(name, 2000))
    @given(st.one_of(st.binary(max_size=300), mutated(SEEDS[name])))
    def fuzz(data: bytes) -> None:
        TARGETS[name](data)

    fuzz()
