"""Where things lie in a sealed file, and the sizes that follow (docs/format.md 2 and 5). Arithmetic only.

A *slot* is the place of one chunk: generation 8, nonce 12, ciphertext, tag 16. All sizes are bytes, `index` counts
chunks from 0, `plain` is a size or offset a program sees, `sealed` one in the backing file.
"""

HEADER_SIZE = 4096
TEXT_AT = 256
SLOTS_AT = 512
WRAP_SLOT_SIZE = 1232
WRAP_SLOTS = 2
SIGNATURE_AT = 2976
SIGNATURE_SIZE = 96
COMMIT_AT = 3072
COMMIT_SIZE = 512

CHUNK_SIZE = 32 * 1024
CHUNK_SIZE_MIN = 4 * 1024
CHUNK_SIZE_MAX = 1024 * 1024
NONCE_SIZE = 12
TAG_SIZE = 16
PREFIX_SIZE = 8 + NONCE_SIZE
OVERHEAD = PREFIX_SIZE + TAG_SIZE
MARKER_SIZE = OVERHEAD + 8

MAX_SIZE = (1 << 63) - (1 << 57)
"""No plain size may reach this, so that no sealed offset leaves a signed 64-bit integer at any chunk size."""

SUM_CHECKED_CHUNKS = 32
"""Up to this many chunks the sum is checked when a file is opened."""


def chunk_count(plain: int, chunk_size: int = CHUNK_SIZE) -> int:
    """How many chunks hold `plain` bytes; the last may be partial."""
    return -(-plain // chunk_size)


def sealed_size(plain: int, chunk_size: int = CHUNK_SIZE) -> int:
    """Size of the sealed file that holds `plain` bytes."""
    return HEADER_SIZE + plain + OVERHEAD * chunk_count(plain, chunk_size)


def plain_size(sealed: int, chunk_size: int = CHUNK_SIZE) -> int:
    """Size of the content in a sealed file of `sealed` bytes, as `stat` shows it without reading anything.

    The inverse of `sealed_size`. Bytes that cannot be part of a chunk (a cut slot's prefix) count as nothing, and so
    does a header that is not whole.
    """
    body = max(0, sealed - HEADER_SIZE)
    whole, rest = divmod(body, chunk_size + OVERHEAD)
    return whole * chunk_size + max(0, rest - OVERHEAD)
