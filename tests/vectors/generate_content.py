"""Makes tests/vectors/content/*.vec: `python -m tests.vectors.generate_content`. Running it again changes nothing.

Each file is sealed by this program with randomness replaced by a counter, then tampered with; what the reader makes of
it is written down, and is compared with what is meant to happen (`expect`), so a wrong expectation stops the script.
"""

# ruff: noqa: E501  # the table of tamperings has one line for each

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from unittest.mock import patch

from fsdriver.content import OVERHEAD, FileKey, Header, SealedFile, wrap
from fsdriver.content.keys import FileKeys
from fsdriver.content.offsets import COMMIT_AT, HEADER_SIZE, SIGNATURE_AT, SLOTS_AT, TEXT_AT, WRAP_SLOT_SIZE
from tests.vectors.content_vector import Reader, Vector, read_whole

FOLDER = Path(__file__).parent / "content"
FILE_KEY = FileKey(bytes(range(32)))
COMPANY = bytes.fromhex("c0" * 16)
LABEL = bytes.fromhex("1a" * 16)
READER = Reader(
    company=COMPANY, label_key_id=bytes.fromhex("4e" * 16), label_key_version=3, label_key=bytes(range(32, 64))
)
CHUNK = 4096
STRIDE = CHUNK + OVERHEAD
Edit = Callable[[bytearray], None]


@contextmanager
def counted_randomness(seed: str) -> Iterator[None]:
    """`os.urandom` gives SHAKE-128 of `seed` and a counter."""
    calls = count()
    with patch("os.urandom", lambda size: hashlib.shake_128(f"{seed}/{next(calls)}".encode()).digest(size)):
        yield


def content(size: int) -> bytes:
    return hashlib.shake_128(b"content").digest(size)


def seal(
    seed: str,
    write: Callable[[SealedFile], object],
    *,
    chunk_size: int = CHUNK,
    company: bytes = COMPANY,
) -> bytearray:
    """A sealed file that `write` has written and that was flushed. The file id follows from `seed`."""
    fd = os.memfd_create("vector")
    file_id = hashlib.shake_128(seed.encode()).digest(16)
    with counted_randomness(seed):
        slot = wrap(
            FILE_KEY,
            READER.label_key,
            file_id=file_id,
            company=company,
            label=LABEL,
            key_id=READER.label_key_id,
            version=READER.label_key_version,
        )
        file = SealedFile.create(
            os.dup(fd),
            file_id=file_id,
            company=company,
            label=LABEL,
            file_key=FILE_KEY,
            slots=[slot],
            chunk_size=chunk_size,
        )
        write(file)
        file.close()
    sealed = bytearray(os.pread(fd, 1 << 24, 0))
    os.close(fd)
    return sealed


def sample(file: SealedFile) -> None:
    """Two whole chunks and 100 bytes."""
    file.write(0, content(2 * CHUNK + 100))


def versions(file: SealedFile) -> None:
    """Like `sample`, with chunk 1 written twice."""
    sample(file)
    file.flush()
    file.write(CHUNK, content(CHUNK)[::-1])


def with_hole(file: SealedFile) -> None:
    """Chunks 0 and 5 are data, 1 to 4 a hole, 6 is partial."""
    file.write(0, content(CHUNK))
    file.truncate(6 * CHUNK + 10)
    file.write(5 * CHUNK, content(CHUNK))


def split_hole(file: SealedFile) -> None:
    """A hole of eight chunks, in whose middle a byte was written later."""
    file.truncate(8 * CHUNK)
    file.flush()
    file.write(4 * CHUNK + 7, b"x")


def shrunk(file: SealedFile) -> None:
    sample(file)
    file.flush()
    file.truncate(CHUNK + 1)


def slot(index: int) -> slice:
    return slice(HEADER_SIZE + index * STRIDE, HEADER_SIZE + (index + 1) * STRIDE)


def flip(at: int, bit: int = 0) -> Edit:
    def edit(file: bytearray) -> None:
        file[at] ^= 1 << bit

    return edit


def put(at: int, data: bytes) -> Edit:
    def edit(file: bytearray) -> None:
        file[at : at + len(data)] = data

    return edit


def cut(size: int) -> Edit:
    def edit(file: bytearray) -> None:
        del file[size:]

    return edit


def swap(one: slice, two: slice) -> Edit:
    def edit(file: bytearray) -> None:
        file[one], file[two] = file[two], file[one]

    return edit


def retagged(header: Header) -> bytes:
    """The head of `header` with a tag that verifies: what a holder of the file key could write."""
    return header.encode(FileKeys.draw(FILE_KEY, header.file_id, header.suite))[1]


def vectors() -> Iterator[tuple[str, str, str, bytes]]:
    """(name, what is meant to happen, comment, file)"""
    for size in (0, 1, 5000, 32767, 32768, 32769):
        data = content(size)
        sealed = seal(f"size {size}", partial(SealedFile.write, offset=0, data=data), chunk_size=32768)
        yield f"size_{size}", "ok", f"{size} bytes in chunks of 32 KiB", bytes(sealed)
    for write in (versions, with_hole, split_hole, shrunk):
        yield (
            write.__name__,
            "ok",
            (write.__doc__ or "cut to one chunk and a byte").strip(),
            bytes(seal(write.__name__, write)),
        )

    base = bytes(seal("sample", sample))
    other = bytes(seal("other", sample))
    newer = bytes(seal("versions", versions))
    older = bytes(seal("versions", sample))
    holed = bytes(seal("with_hole", with_hole))
    header = Header.parse(base)
    yield "trailing_bytes", "ok", "bytes behind the content are never served", base + b"behind the end"

    tampered: list[tuple[str, str, str, bytes, list[Edit]]] = [
        ("not_sealed", "HeaderDamaged", "the magic is another one", base, [flip(0)]),
        ("empty_file", "HeaderDamaged", "no bytes at all", base, [cut(0)]),
        ("header_cut", "HeaderDamaged", "cut inside the header", base, [cut(HEADER_SIZE - 1)]),
        ("unknown_major", "FormatUnknown", "format 2", base, [put(8, struct.pack(">H", 2))]),
        ("unknown_suite", "FormatUnknown", "suite 3 is reserved", base, [put(10, struct.pack(">H", 3))]),
        ("unknown_feature", "FormatUnknown", "an incompatible feature bit", base, [put(16, struct.pack(">Q", 1))]),
        ("chunk_size_zero", "HeaderDamaged", "chunk size 0", base, [put(12, bytes(4))]),
        ("chunk_size_odd", "HeaderDamaged", "chunk size is no power of two", base, [flip(15)]),
        ("chunk_size_other", "HeaderDamaged", "chunk size 8192: the tag sees it", base, [put(12, struct.pack(">I", 8192))]),
        ("feature_read_only", "HeaderDamaged", "a read-only-compatible bit set: the tag sees it", base, [flip(31)]),
        ("feature_compatible", "HeaderDamaged", "a compatible bit set: the tag sees it", base, [flip(39)]),
        ("file_id_flipped", "HeaderDamaged", "a bit of the file id", base, [flip(40)]),
        ("company_flipped", "OtherCompany", "a bit of the company id", base, [flip(56)]),
        ("label_edited", "HeaderDamaged", "another label id", base, [put(72, bytes.fromhex("2b" * 16))]),
        ("commitment_flipped", "HeaderDamaged", "a bit of the file-key commitment", base, [flip(88)]),
        ("header_tag_flipped", "HeaderDamaged", "a bit of the header tag", base, [flip(120)]),
        ("reserved_bit", "HeaderDamaged", "a bit in the reserved bytes 152-255", base, [flip(200)]),
        ("text_edited", "HeaderDamaged", "a letter of the text", base, [flip(TEXT_AT + 5)]),
        ("text_not_utf8", "HeaderDamaged", "the text is not UTF-8", base, [put(TEXT_AT, b"\xff")]),
        ("wrap_key_id_flipped", "LeaseMissing", "a bit of the wrap's key id", base, [flip(SLOTS_AT + 8)]),
        ("wrap_version_edited", "LeaseMissing", "the wrap's key version", base, [flip(SLOTS_AT + 7)]),
        ("wrap_flipped", "HeaderDamaged", "a bit of the wrapped file key", base, [flip(SLOTS_AT + 80)]),
        ("wrap_reserved", "HeaderDamaged", "a bit in a wrap slot's reserved bytes", base, [flip(SLOTS_AT + 30)]),
        ("wrap_padding", "HeaderDamaged", "a bit behind the wrapped file key", base, [flip(SLOTS_AT + 200)]),
        ("second_wrap_not_empty", "HeaderDamaged", "a bit in the empty second slot", base, [flip(SLOTS_AT + WRAP_SLOT_SIZE + 99)]),
        ("wrap_from_other_file", "HeaderDamaged", "the other file's wrap slots", base, [put(SLOTS_AT, other[SLOTS_AT:SIGNATURE_AT])]),
        ("signature_flipped", "HeaderDamaged", "a bit of the signature field", base, [flip(SIGNATURE_AT)]),
        ("commit_flipped", "FileDamaged", "a bit of the commit record", base, [flip(COMMIT_AT + 40)]),
        ("commit_zeroed", "FileDamaged", "the commit record is zeros", base, [put(COMMIT_AT, bytes(512))]),
        ("commit_from_other_file", "FileDamaged", "the other file's commit record", base, [put(COMMIT_AT, other[COMMIT_AT : COMMIT_AT + 512])]),
        ("commit_older", "ChunkForged", "the commit before the last: chunk 1 is newer than it", newer, [put(COMMIT_AT, older[COMMIT_AT : COMMIT_AT + 512])]),
        ("reserved_tail", "HeaderDamaged", "a bit in the reserved bytes 3584-4095", base, [flip(4000)]),
        ("header_from_other_file", "FileDamaged", "the other file's whole header over this file's chunks", base, [put(0, other[:HEADER_SIZE])]),
        ("ciphertext_flipped", "ChunkForged", "a bit of chunk 1's ciphertext", base, [flip(HEADER_SIZE + STRIDE + 500)]),
        ("nonce_flipped", "FileDamaged", "a bit of chunk 1's nonce: the sum sees it", base, [flip(HEADER_SIZE + STRIDE + 10)]),
        ("tag_flipped", "FileDamaged", "a bit of chunk 1's tag: the sum sees it", base, [flip(HEADER_SIZE + 2 * STRIDE - 1)]),
        ("generation_newer", "ChunkForged", "chunk 1 says the next generation", base, [put(HEADER_SIZE + STRIDE, struct.pack(">Q", 2))]),
        ("generation_zero", "FileDamaged", "chunk 1 says generation 0", base, [put(HEADER_SIZE + STRIDE, bytes(8))]),
        ("marked_as_hole", "ChunkForged", "chunk 1 says it is a hole", base, [flip(HEADER_SIZE + STRIDE, 7)]),
        ("chunks_swapped", "FileDamaged", "chunks 0 and 1 exchanged; each tag is valid, neither in this place", base, [swap(slot(0), slot(1))]),
        ("chunk_zeroed", "FileDamaged", "chunk 1 is zeros", base, [put(slot(1).start, bytes(STRIDE))]),
        ("chunk_of_older_version", "FileDamaged", "chunk 1 as it was one commit before", newer, [put(slot(1).start, older[slot(1)])]),
        ("chunk_of_other_file", "FileDamaged", "chunk 1 of the other file", base, [put(slot(1).start, other[slot(1)])]),
        ("cut_at_chunk", "FileDamaged", "cut behind chunk 1", base, [cut(slot(2).start)]),
        ("cut_inside_chunk", "FileDamaged", "cut in the middle of chunk 1", base, [cut(slot(1).start + 2000)]),
        ("cut_to_header", "FileDamaged", "only the header is left", base, [cut(HEADER_SIZE)]),
        ("cut_last_byte", "FileDamaged", "the last byte is missing", base, [cut(len(base) - 1)]),
        ("hole_marker_zeroed", "FileDamaged", "the marker of a hole is gone", holed, [put(slot(1).start, bytes(44))]),
        ("hole_filled", "FileDamaged", "a byte in the middle of a hole", holed, [put(slot(3).start + 99, b"x")]),
        ("hole_chunk_planted", "FileDamaged", "chunk 5 copied into the hole", holed, [put(slot(3).start, holed[slot(5)])]),
        ("hole_marker_flipped", "ChunkForged", "a bit of the marker's tag", holed, [flip(slot(1).start + 43)]),
        ("hole_marker_moved", "FileDamaged", "the marker one chunk further", holed, [swap(slot(1), slot(2))]),
    ]  # fmt: skip
    for name, expect, comment, file, edits in tampered:
        edited = bytearray(file)
        for edit in edits:
            edit(edited)
        yield name, expect, comment, bytes(edited)
    yield (
        "company_other",
        "OtherCompany",
        "a whole and valid file of another company",
        bytes(seal("foreign", sample, company=bytes.fromhex("c1" * 16))),
    )
    yield (
        "label_edited_with_tag",
        "HeaderDamaged",
        "another label under a header tag that verifies: the wrap is bound to the label",
        retagged(header._replace(label=bytes.fromhex("2b" * 16))) + base[COMMIT_AT:],
    )


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    written = set()
    for name, expect, comment, sealed in vectors():
        outcome = read_whole(sealed, READER)
        if outcome.expect != expect:
            raise SystemExit(f"{name}: meant to be {expect}, is {outcome.expect}")
        path = FOLDER / f"{name}.vec"
        path.write_text(Vector(comment=comment, reader=READER, outcome=outcome, sealed=sealed).encode())
        written.add(path)
    for path in set(FOLDER.glob("*.vec")) - written:
        path.unlink()


if __name__ == "__main__":
    main()
