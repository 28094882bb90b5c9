"""Headers that need not be checked again."""

from fsdriver.content.header import Header
from fsdriver.content.keys import FileKeys
from fsdriver.content.offsets import COMMIT_AT, HEADER_SIZE
from fsdriver.content.verified import VerifiedHeaders
from tests.fsdriver.content.samples import COMPANY, KEY, LABEL, slot_for


def made(number: int) -> tuple[bytes, FileKeys]:
    """The first bytes of a file, and its keys."""
    file_id = number.to_bytes(16, "big")
    keys = FileKeys.draw(KEY, file_id, 1)
    _, head = Header(file_id, COMPANY, LABEL, keys.commitment, (slot_for(file_id),)).encode(keys)
    return head + bytes(HEADER_SIZE - COMMIT_AT), keys


def test_what_was_remembered_gives_the_same_header_and_keys() -> None:
    verified = VerifiedHeaders()
    first, keys = made(1)
    assert verified.get(first) is None
    verified.remembering()(first, keys)
    known = verified.get(first)
    assert known is not None
    assert known[0] == Header.parse(first)
    assert known[1].drawn == keys.drawn


def test_every_byte_under_the_tag_counts_and_the_commit_does_not() -> None:
    verified = VerifiedHeaders()
    first, keys = made(1)
    verified.remembering()(first, keys)
    for at in range(COMMIT_AT):
        changed = bytearray(first)
        changed[at] ^= 0x80
        assert verified.get(bytes(changed)) is None
    committed = bytearray(first)
    committed[COMMIT_AT] ^= 0x80
    assert verified.get(bytes(committed)) is not None


def test_nothing_is_remembered_of_a_key_that_was_taken_back_meanwhile() -> None:
    verified = VerifiedHeaders()
    first, keys = made(1)
    remember = verified.remembering()
    verified.forget()
    remember(first, keys)
    assert verified.get(first) is None


def test_the_oldest_go_when_there_are_many() -> None:
    verified = VerifiedHeaders(most=3)
    files = [made(number) for number in range(4)]
    for first, keys in files:
        verified.remembering()(first, keys)
    assert [verified.get(first) is not None for first, _ in files] == [False, True, True, True]
