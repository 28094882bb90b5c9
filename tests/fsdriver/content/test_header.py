from contextlib import suppress

from hypothesis import example, given
from hypothesis import strategies as st

from fsdriver.content.header import MAGIC, TEXT, Header
from fsdriver.content.keys import FileKeys
from fsdriver.content.offsets import COMMIT_AT, HEADER_SIZE
from fsdriver.errors import FormatUnknown, HeaderDamaged
from tests.fsdriver.content.samples import COMPANY, FILE_ID, KEY, LABEL, slot_for

KEYS = FileKeys.draw(KEY, FILE_ID, 1)
HEADER, HEAD = Header(FILE_ID, COMPANY, LABEL, KEYS.commitment, (slot_for(),)).encode(KEYS)
WHOLE = HEAD.ljust(HEADER_SIZE, b"\0")


def parse(data: bytes) -> Header | None:
    try:
        return Header.parse(data)
    except (HeaderDamaged, FormatUnknown):
        return None


@given(st.binary(max_size=2 * HEADER_SIZE))
@example(b"")
@example(MAGIC)
def test_any_bytes_are_a_header_or_a_named_error(data):
    parse(data)


@given(st.binary(min_size=HEADER_SIZE - 8, max_size=HEADER_SIZE))
def test_random_bytes_behind_our_magic_are_a_header_or_a_named_error(data):
    parse(MAGIC + data)


@given(st.lists(st.tuples(st.integers(0, HEADER_SIZE - 1), st.integers(0, 255)), max_size=4))
def test_an_edited_header_parses_to_what_it_says_or_fails(edits):
    data = bytearray(WHOLE)
    for at, value in edits:
        data[at] = value
    header = parse(bytes(data))
    if header is not None:
        again = header.encode(KEYS)[1]
        # Nothing but the tag, the commitment and the commit record may differ: the parser saw every byte.
        assert again[8:88] == data[8:88]
        assert again[152:COMMIT_AT] == data[152:COMMIT_AT]


@given(st.lists(st.tuples(st.integers(0, HEADER_SIZE - 1), st.integers(0, 255)), max_size=6))
def test_mending_gives_a_header_or_a_named_error_and_changes_nothing_that_parses(edits):
    data = bytearray(WHOLE)
    for at, value in edits:
        data[at] = value
    header = parse(bytes(data))
    mended = None
    with suppress(HeaderDamaged, FormatUnknown):
        mended = Header.mend(bytes(data))
    if header is not None:
        assert mended == header._replace(text=TEXT)
    elif mended is not None:
        assert mended.file_id + mended.company + mended.label == data[40:88]


def test_a_header_is_parsed_to_itself():
    assert Header.parse(WHOLE) == HEADER
    HEADER.check(WHOLE, KEY)


@given(st.integers(0, COMMIT_AT * 8 - 1))
def test_no_bit_of_the_head_can_be_flipped(bit):
    data = bytearray(WHOLE)
    data[bit // 8] ^= 1 << bit % 8
    header = parse(bytes(data))
    if header is not None:
        try:
            header.check(bytes(data), KEY)
        except HeaderDamaged:
            return
        raise AssertionError(f"bit {bit} is not covered")


def test_a_key_is_not_shown():
    assert KEY.secret.hex() not in repr(KEY)
    assert "secret" not in repr(KEY)
