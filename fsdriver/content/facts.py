"""What a sealed file's header says, for people and scripts (`fsdriver info`)."""

from typing import Any

from fsdriver.content.header import MAJOR, Header
from fsdriver.content.offsets import HEADER_SIZE, OVERHEAD, plain_size

_SUITES = {1: "AES-256-GCM, HKDF-SHA256, BLAKE2b"}


def describe(header: Header, sealed: int) -> dict[str, Any]:
    """The facts that need no key, of a file of `sealed` bytes; the drive adds its own to them."""
    newest = header.slots[0] if header.slots else None
    return {
        "format": MAJOR,
        "suite": header.suite,
        "cipher": _SUITES[header.suite],
        "header_size": HEADER_SIZE,
        "chunk_size": header.chunk_size,
        "chunk_overhead": OVERHEAD,
        "file_id": header.file_id.hex(),
        "company": header.company.hex(),
        "label": header.label.hex(),
        "key": newest.key_id.hex() if newest else None,
        "key_version": newest.version if newest else None,
        "generation": None,
        "seals": None,
        "plain_size": plain_size(sealed, header.chunk_size),
        "sealed_size": sealed,
        "text": header.text,
    }
