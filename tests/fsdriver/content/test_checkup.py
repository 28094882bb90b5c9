"""Each golden vector gets the verdict that its expectation says, with a key and without."""

import os

import pytest

from fsdriver.content.checkup import SOUND, Verdict, check
from fsdriver.content.keyfile import KeyFile
from fsdriver.content.offsets import COMMIT_AT, COMMIT_SIZE, HEADER_SIZE
from tests.fsdriver.content.samples import CHUNK, memory, new_file, pattern, unlock
from tests.vectors import generate_content
from tests.vectors.content_vector import Vector

VECTORS = sorted(generate_content.FOLDER.glob("*.vec"))
FIRST = {
    "not_sealed": Verdict.NOT_SEALED,
    "empty_file": Verdict.UNFINISHED,
    "header_cut": Verdict.UNFINISHED,
    "trailing_bytes": Verdict.OVERLONG,
    "wrap_key_id_flipped": Verdict.STRUCTURE_OK,
    "wrap_version_edited": Verdict.STRUCTURE_OK,
    # Of these the header says another key than it was made with, so the right one looks wrong.
    "commitment_flipped": Verdict.WRONG_KEY,
    "file_id_flipped": Verdict.WRONG_KEY,
    "label_edited": Verdict.WRONG_KEY,
    "label_edited_with_tag": Verdict.WRONG_KEY,
    "wrap_flipped": Verdict.WRONG_KEY,
    "wrap_from_other_file": Verdict.WRONG_KEY,
}
"""What the kind of failure does not say."""
BY_EXPECTATION = {
    "ok": Verdict.OK,
    "HeaderDamaged": Verdict.DAMAGED,
    "ChunkForged": Verdict.DAMAGED,
    "FileDamaged": Verdict.DAMAGED,
    "FormatUnknown": Verdict.UNKNOWN_FORMAT,
    "OtherCompany": Verdict.OTHER_COMPANY,
}


def checked(sealed: bytes | bytearray, *arguments) -> tuple[Verdict, str]:
    fd = memory()
    try:
        os.write(fd, sealed)
        return check(fd, *arguments)[:2]
    finally:
        os.close(fd)


@pytest.fixture
def at_once(monkeypatch):
    """Files that were made a moment ago are judged as if they had been left alone."""
    monkeypatch.setattr("fsdriver.content.checkup._PAUSE", 0)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_vector_gets_the_verdict_it_says(path):
    vector = Vector.decode(path.read_text())
    reader = vector.reader
    keys = KeyFile({(reader.label_key_id, reader.label_key_version): reader.label_key}, {})
    verdict, reason = checked(vector.sealed, keys.unlock, reader.company)
    assert verdict == (FIRST.get(path.stem) or BY_EXPECTATION[vector.outcome.expect])
    assert (verdict in {Verdict.OK, Verdict.OVERLONG}) == (vector.outcome.expect == "ok")
    assert reason or verdict in {Verdict.OK, Verdict.NOT_SEALED}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_without_a_key_nothing_is_ok_and_no_whole_file_is_damaged(path):
    vector = Vector.decode(path.read_text())
    verdict, _ = checked(vector.sealed)
    assert verdict not in {Verdict.OK, Verdict.OVERLONG}
    if vector.outcome.expect == "ok":
        assert verdict is Verdict.STRUCTURE_OK


def test_a_chunk_that_only_a_key_finds_damaged():
    sealed = Vector.decode((generate_content.FOLDER / "ciphertext_flipped.vec").read_text()).sealed
    assert checked(sealed) == (Verdict.STRUCTURE_OK, "")


def large() -> bytearray:
    """More chunks than are checked when a file is opened."""
    fd = memory()
    file = new_file(fd)
    file.write(0, pattern(40 * CHUNK))
    file.close()
    sealed = bytearray(os.pread(fd, 1 << 20, 0))
    os.close(fd)
    return sealed


def test_every_chunk_of_a_large_file_is_verified():
    sealed = large()
    assert checked(sealed, unlock) == (Verdict.OK, "")
    sealed[HEADER_SIZE + 39 * (CHUNK + 36) + 77] ^= 1
    verdict, reason = checked(sealed, unlock)
    assert verdict is Verdict.DAMAGED
    assert "chunk 39" in reason


def test_what_changes_all_the_time_is_not_called_damaged():
    sealed = large()
    sealed[HEADER_SIZE + 100] ^= 1
    fd = memory()
    os.write(fd, sealed)

    def unlock_while_it_is_written(header):
        os.pwrite(fd, sealed[-1:], len(sealed) - 1)
        os.utime(fd)
        return unlock(header)

    assert check(fd, unlock_while_it_is_written).verdict is Verdict.UNREADABLE
    assert check(fd, unlock).verdict is Verdict.DAMAGED
    os.close(fd)


def test_a_file_that_was_mended_while_it_was_looked_at_is_ok():
    sealed = large()
    fd = memory()
    os.write(fd, sealed)
    os.pwrite(fd, b"?", HEADER_SIZE + 100)
    looks = []

    def unlock_and_mend_later(header):
        looks.append(1)
        if len(looks) == 2:
            os.pwrite(fd, sealed, 0)
        return unlock(header)

    assert check(fd, unlock_and_mend_later)[:2] == (Verdict.OK, "")
    os.close(fd)


def test_a_chunk_that_is_newer_than_the_commit_is_among_the_damaged_ranges():
    fd = memory()
    file = new_file(fd)
    file.write(0, pattern(4 * CHUNK))
    file.flush()
    older = os.pread(fd, COMMIT_SIZE, COMMIT_AT)
    file.write(CHUNK, bytes(CHUNK))
    file.write(2 * CHUNK, pattern(CHUNK, 5))
    file.close()
    os.pwrite(fd, older, COMMIT_AT)
    assert check(fd, unlock).ranges == ((CHUNK, 3 * CHUNK),)
    os.close(fd)


def test_a_header_that_was_edited_costs_no_range_and_one_that_is_gone_says_nothing():
    fd = memory()
    sealed = large()
    os.write(fd, sealed)
    os.pwrite(fd, b"?", 300)
    assert (check(fd, unlock).verdict, check(fd, unlock).ranges) == (Verdict.DAMAGED, ())
    os.pwrite(fd, bytes(2), 14)  # the chunk size
    assert (check(fd, unlock).verdict, check(fd, unlock).ranges) == (Verdict.DAMAGED, None)
    os.close(fd)


def test_what_cannot_be_read_is_unreadable():
    fd = os.open("/", os.O_RDONLY)
    assert check(fd)[:2] == (Verdict.UNREADABLE, "Is a directory")
    os.close(fd)


def test_only_what_was_found_good_is_sound():
    assert {"ok", "structure-ok", "overlong"} == SOUND
