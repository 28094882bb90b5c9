"""The book of what was left of each file."""

import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdriver.filesystem.linebook import Linebook, State

ONE, OTHER = State(b"1" * 16, 7, b"s" * 32), State(b"2" * 16, 2**62, b"\0" * 32)
ODD = b"a'%_\\ \xff\xfe\n\xc3"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "states.db"


@pytest.fixture
def book(path: Path) -> Linebook:
    return Linebook(path)


def everything(book: Linebook) -> dict[bytes, State | None]:
    return {path: book.at(path) for path in book.below(b"")}


def test_what_was_put_is_found_by_path_and_by_file(book: Linebook) -> None:
    assert book.at(ODD) is None
    book.put(ODD, OTHER)
    book.put(ODD, ONE)
    book.put(b"b/" + ODD, ONE)
    assert book.at(ODD) == ONE
    assert sorted(book.places(ONE.file_id)) == [(ODD, ONE), (b"b/" + ODD, ONE)]
    assert book.places(OTHER.file_id) == []
    book.drop(ODD)
    book.drop(ODD)
    assert everything(book) == {b"b/" + ODD: ONE}


def test_a_move_takes_the_place_of_what_was_there(book: Linebook) -> None:
    book.put(b"a", ONE)
    book.put(b"b", OTHER)
    book.move(b"a", b"b")
    assert everything(book) == {b"b": ONE}
    book.move(b"never seen", b"b")
    assert everything(book) == {}


def test_a_folder_moves_with_all_that_is_below_it(book: Linebook) -> None:
    for name in (ODD + b"/x", ODD + b"/" + ODD + b"/\xff", ODD + b"0", ODD + b"-", b"target/gone"):
        book.put(name, ONE)
    book.move_folder(ODD, b"target")
    assert set(everything(book)) == {b"target/x", b"target/" + ODD + b"/\xff", ODD + b"0", ODD + b"-"}
    assert book.below(b"target") == sorted([b"target/" + ODD + b"/\xff", b"target/x"])


NAMES = st.sampled_from([b"a", b"b", b"a/x", b"a/y/z", b"a0", b"a-", b"b/x", ODD, ODD + b"/" + ODD])
STATES = st.sampled_from([ONE, ONE._replace(generation=8), OTHER])
FOLDERS = st.sampled_from([b"a", b"b", b"new", ODD])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, STATES),
        st.tuples(st.just("drop"), NAMES),
        st.tuples(st.just("move"), NAMES, NAMES),
        st.tuples(st.just("exchange"), NAMES, NAMES),
        st.tuples(st.just("move_folder"), FOLDERS, FOLDERS),
        st.tuples(st.just("expect"), st.lists(NAMES)),
        st.tuples(st.sampled_from(["flush", "commit"])),
    ),
    max_size=30,
)


class Model:
    def __init__(self) -> None:
        self.lines: dict[bytes, State] = {}

    def put(self, path: bytes, state: State) -> None:
        self.lines[path] = state

    def drop(self, path: bytes) -> None:
        self.lines.pop(path, None)

    def move(self, old: bytes, new: bytes) -> None:
        state = self.lines.pop(old, None)
        self.drop(new)
        if state is not None:
            self.lines[new] = state

    def exchange(self, one: bytes, other: bytes) -> None:
        first, second = self.lines.pop(one, None), self.lines.pop(other, None)
        self.lines |= {path: state for path, state in ((other, first), (one, second)) if state is not None}

    def move_folder(self, old: bytes, new: bytes) -> None:
        moving = {path: state for path, state in self.lines.items() if path.startswith(old + b"/")}
        self.lines = {
            path: state for path, state in self.lines.items() if not path.startswith((old + b"/", new + b"/"))
        }
        self.lines |= {new + path[len(old) :]: state for path, state in moving.items()}

    def nothing(self, *_: object) -> None: ...

    expect = flush = commit = nothing


@given(STEPS)
def test_it_does_what_a_dictionary_does(steps: list[tuple[Any, ...]]) -> None:
    with TemporaryDirectory() as directory:
        book, model = Linebook(Path(directory, "states.db")), Model()
        for name, *arguments in steps:
            if name == "move_folder" and arguments[0] == arguments[1]:
                continue
            if name in ("move", "exchange") and arguments[0] == arguments[1]:
                continue
            getattr(book, name)(*arguments)
            getattr(model, name)(*arguments)
            for state in (ONE, OTHER):
                expected = {path: found for path, found in model.lines.items() if found.file_id == state.file_id}
                assert dict(book.places(state.file_id)) == expected
        assert book.below(b"") == sorted(model.lines)
        assert everything(book) == model.lines
        book.close()


def test_what_was_not_committed_does_not_last(path: Path) -> None:
    book = Linebook(path)
    book.put(b"a", ONE)
    book.commit()
    book.put(b"b", ONE)
    book.close()
    assert everything(Linebook(path)) == {b"a": ONE}
    assert path.stat().st_mode & 0o777 == 0o600


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:300] = b"x" * 200
    path.write_bytes(data)


def newer(path: Path) -> None:
    table = sqlite3.connect(path)
    table.execute("PRAGMA user_version = 99")
    table.close()


def no_database(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)


@pytest.mark.parametrize("harm", [damaged, newer, no_database])
def test_a_book_that_cannot_be_used_is_put_aside_and_said(path: Path, harm: object) -> None:
    assert callable(harm)
    book = Linebook(path)
    book.put(b"a", ONE)
    book.commit()
    book.close()
    harm(path)
    book = Linebook(path)
    assert "put aside" in book.begun_anew
    assert everything(book) == {}
    assert path.with_name("states.db.damaged").exists()
    book.put(b"a", ONE)
    book.commit()
    book.close()
    assert Linebook(path).begun_anew == ""
