"""The sealed file format and random access to it (docs/format.md)."""

from fsdriver.content.header import MAGIC, PEEK_SIZE, Header, peek
from fsdriver.content.keys import FileKey
from fsdriver.content.offsets import CHUNK_SIZE, HEADER_SIZE, OVERHEAD, plain_size, sealed_size
from fsdriver.content.redo import Group, Redo, RedoLog, Replayed, is_begun, is_log, still_claims, works
from fsdriver.content.sealed_file import SealedFile, read_first
from fsdriver.content.verified import Remember, VerifiedHeaders
from fsdriver.content.whole import is_whole
from fsdriver.content.wraps import WrapAlgorithm, WrapSlot, unwrap, wrap

__all__ = [
    "CHUNK_SIZE",
    "HEADER_SIZE",
    "MAGIC",
    "OVERHEAD",
    "PEEK_SIZE",
    "FileKey",
    "Group",
    "Header",
    "Redo",
    "RedoLog",
    "Remember",
    "Replayed",
    "SealedFile",
    "VerifiedHeaders",
    "WrapAlgorithm",
    "WrapSlot",
    "is_begun",
    "is_log",
    "is_whole",
    "peek",
    "plain_size",
    "read_first",
    "sealed_size",
    "still_claims",
    "unwrap",
    "works",
    "wrap",
]
