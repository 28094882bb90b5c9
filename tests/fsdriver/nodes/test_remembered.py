"""Remembered labels: only of this very file in this very state."""

from hypothesis import given
from hypothesis import strategies as st

from fsdriver.nodes.remembered import RememberedLabels

LABEL, FILE = b"l" * 16, b"f" * 16


def test_what_was_put_is_found_and_nothing_else() -> None:
    labels = RememberedLabels()
    assert labels.get(7, 100) is None
    labels.put(7, 100, LABEL, FILE)
    found = labels.get(7, 100)
    assert found is not None
    assert (found.label_id, found.file_id) == (LABEL, FILE)
    assert labels.get(7, 101) is None, "the file was changed since"
    assert labels.get(8, 100) is None, "another file"


@given(st.lists(st.tuples(st.integers(1, 2**40), st.integers(0, 2**60)), max_size=50))
def test_an_answer_is_never_another_files(puts: list[tuple[int, int]]) -> None:
    labels = RememberedLabels()
    newest: dict[int, int] = {}
    for ino, ctime in puts:
        labels.put(ino, ctime, ino.to_bytes(16, "big"), ctime.to_bytes(16, "big"))
        newest[ino] = ctime
    for ino, ctime in puts:
        found = labels.get(ino, ctime)
        if found is not None:
            assert found.label_id == ino.to_bytes(16, "big")
            assert found.file_id == ctime.to_bytes(16, "big")
            assert newest[ino] == ctime
