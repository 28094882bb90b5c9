"""POSIX locks against a slow, obvious model: who holds what of each byte."""

from hypothesis import given
from hypothesis import strategies as st

from fsdriver.nodes.locks import END_OF_FILE, F_RDLCK, F_UNLCK, F_WRLCK, Lock, LockTable

BYTES = 12
requests = st.tuples(
    st.integers(0, BYTES - 1),
    st.integers(0, BYTES - 1),
    st.sampled_from([F_RDLCK, F_WRLCK, F_UNLCK]),
    st.integers(1, 3),
)


@given(st.lists(requests, max_size=30))
def test_a_lock_table_is_a_map_of_bytes(wanted: list[tuple[int, int, int, int]]) -> None:
    table = LockTable()
    model: dict[tuple[int, int], int] = {}  # (byte, owner) to kind
    for first, last, kind, owner in wanted:
        start, end = min(first, last), max(first, last)
        lock = Lock(start, end, kind, owner, owner)
        stands_in_the_way = kind != F_UNLCK and any(
            other != owner and start <= byte <= end and F_WRLCK in (kind, held) for (byte, other), held in model.items()
        )
        assert (kind != F_UNLCK and table.conflict(lock) is not None) == stands_in_the_way
        if stands_in_the_way:
            continue
        table.apply(lock)
        for byte in range(start, end + 1):
            model.pop((byte, owner), None)
            if kind != F_UNLCK:
                model[byte, owner] = kind
        for byte in range(BYTES):
            for asker in (1, 2, 3, 9):
                probe = Lock(byte, byte, F_WRLCK, asker, asker)
                held = any(at == byte and other != asker for at, other in model)
                assert (table.conflict(probe) is not None) == held


def test_an_owner_that_closes_holds_nothing() -> None:
    table = LockTable()
    table.apply(Lock(0, 9, F_WRLCK, 1, 1))
    table.apply(Lock(20, END_OF_FILE, F_RDLCK, 1, 1))
    table.apply(Lock(12, 14, F_RDLCK, 2, 2))
    assert table.release_owner(1)
    assert not table.release_owner(1)
    assert table.conflict(Lock(0, 11, F_WRLCK, 3, 3)) is None
    assert table.conflict(Lock(0, 12, F_WRLCK, 3, 3)) is not None


def test_ranges_of_one_kind_that_touch_become_one() -> None:
    table = LockTable()
    for start, end, kind in ((0, 9, F_WRLCK), (20, 29, F_WRLCK), (10, 19, F_WRLCK), (30, 39, F_RDLCK)):
        table.apply(Lock(start, end, kind, 1, 1))
    first, second = table.conflict(Lock(0, 99, F_WRLCK, 2, 2)), table.conflict(Lock(30, 99, F_WRLCK, 2, 2))
    assert first == Lock(0, 29, F_WRLCK, 1, 1)
    assert second == Lock(30, 39, F_RDLCK, 1, 1)


@given(st.lists(requests, max_size=12), st.integers(0, BYTES - 1), st.integers(0, BYTES - 1))
def test_the_strongest_of_each_byte_is_what_others_see(
    wanted: list[tuple[int, int, int, int]], one: int, other: int
) -> None:
    table = LockTable()
    for first, last, kind, owner in wanted:
        lock = Lock(min(first, last), max(first, last), kind, owner, owner)
        if kind == F_UNLCK or table.conflict(lock) is None:
            table.apply(lock)
    start, end = min(one, other), max(one, other)
    pieces = table.strongest(start, end)
    assert [piece.start for piece in pieces] == [start, *(piece.end + 1 for piece in pieces[:-1])]
    assert pieces[-1].end == end
    assert all(before.kind != after.kind for before, after in zip(pieces, pieces[1:], strict=False))
    for piece in pieces:
        for byte in range(piece.start, piece.end + 1):
            readers = table.conflict(Lock(byte, byte, F_WRLCK, 9, 9)) is not None
            writers = table.conflict(Lock(byte, byte, F_RDLCK, 9, 9)) is not None
            assert piece.kind == (F_WRLCK if writers else F_RDLCK if readers else F_UNLCK)
