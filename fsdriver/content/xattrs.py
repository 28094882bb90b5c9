"""Values of extended attributes, sealed under the file's key (docs/format.md 7). Names stay in clear."""

import os
import struct

from cryptography.exceptions import InvalidTag

from fsdriver.content.keys import FileKeys
from fsdriver.content.offsets import NONCE_SIZE, TAG_SIZE
from fsdriver.errors import FileDamaged

OVERHEAD = NONCE_SIZE + TAG_SIZE
_CONTEXT = b"grantfs-xattr-v1"


def seal(keys: FileKeys, file_id: bytes, name: bytes, value: bytes) -> bytes:
    """nonce 12, ciphertext, tag 16; bound to the file and the attribute's name."""
    nonce = os.urandom(NONCE_SIZE)
    return nonce + keys.xattr.encrypt(nonce, value, _context(file_id, name))


def open_sealed(keys: FileKeys, file_id: bytes, name: bytes, sealed: bytes) -> bytes:
    """The value. Raises FileDamaged when it is not this file's value of this attribute."""
    try:
        if len(sealed) < OVERHEAD:
            raise InvalidTag
        return keys.xattr.decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], _context(file_id, name))
    except InvalidTag:
        raise FileDamaged(f"extended attribute {name.decode(errors='replace')} does not verify") from None


def _context(file_id: bytes, name: bytes) -> bytes:
    return struct.pack(">16s16sH", _CONTEXT, file_id, len(name)) + name
