"""Sealed files for tests: in memory, with small chunks, so that a few kilobytes have many of them."""

import os

from fsdriver.content import FileKey, Header, SealedFile, WrapSlot, wrap
from fsdriver.content.offsets import CHUNK_SIZE_MIN
from fsdriver.content.redo import Redo

KEY = FileKey(b"file key".ljust(32, b"."))
COMPANY = b"company".ljust(16, b".")
LABEL = b"label".ljust(16, b".")
LABEL_KEY = b"label key".ljust(32, b".")
LABEL_KEY_ID = b"label key id".ljust(16, b".")
FILE_ID = b"file id".ljust(16, b".")
CHUNK = CHUNK_SIZE_MIN


def slot_for(file_id: bytes = FILE_ID, key: FileKey = KEY) -> WrapSlot:
    return wrap(key, LABEL_KEY, file_id=file_id, company=COMPANY, label=LABEL, key_id=LABEL_KEY_ID, version=1)


def new_file(
    fd: int, *, file_id: bytes = FILE_ID, chunk_size: int = CHUNK, redo: Redo | None = None, path: bytes = b""
) -> SealedFile:
    """An empty sealed file in `fd`, which stays the caller's: the file gets a duplicate."""
    return SealedFile.create(
        os.dup(fd),
        file_id=file_id,
        company=COMPANY,
        label=LABEL,
        file_key=KEY,
        slots=[slot_for(file_id)],
        chunk_size=chunk_size,
        redo=redo,
        path=path,
    )


def unlock(header: Header) -> FileKey:
    return header.unwrap(header.slots[0], LABEL_KEY)


def reopened(fd: int, *, redo: Redo | None = None, path: bytes = b"") -> SealedFile:
    """The sealed file in `fd`, opened again in a duplicate of it."""
    own = os.dup(fd)
    try:
        return SealedFile.open(own, unlock, redo=redo, path=path)
    except BaseException:
        os.close(own)
        raise


def memory() -> int:
    return os.memfd_create("sealed")


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that differ from chunk to chunk."""
    return bytes((i * 7 + (i >> 8) * 13 + (i >> 12) * 29 + seed * 31 + 1) & 0xFF for i in range(size))
