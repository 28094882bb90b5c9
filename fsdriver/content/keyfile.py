"""Keys on a file, for opening sealed files without drive and server (docs/format.md 10).

{"label_keys": [{"id": "<32 hex digits>", "version": 1, "key": "<64 hex digits>"}],
 "file_keys":  [{"id": "<32 hex digits>", "key": "<64 hex digits>"}]}
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from fsdriver.content.header import Header
from fsdriver.content.keys import KEY_SIZE, FileKey
from fsdriver.content.wraps import WrapAlgorithm
from fsdriver.errors import LeaseMissing


class KeyFileError(Exception):
    """The key file cannot be understood."""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """Label keys by (id, version) and file keys by file id; ids are 16 bytes, keys 32."""

    label_keys: dict[tuple[bytes, int], bytes] = field(repr=False)
    file_keys: dict[bytes, bytes] = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises KeyFileError, and OSError when it cannot be read."""
        try:
            return cls.from_document(json.loads(path.read_bytes()))
        except ValueError as exc:
            raise KeyFileError(f"{path}: not JSON: {exc}") from None

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """Raises KeyFileError."""
        if not isinstance(document, dict) or not document.keys() <= {"label_keys", "file_keys"}:
            raise KeyFileError('a key file is an object with "label_keys" and "file_keys"')
        label_keys, file_keys = {}, {}
        try:
            for entry in document.get("label_keys", []):
                label_keys[_hex(entry["id"], 16), int(entry["version"])] = _hex(entry["key"], KEY_SIZE)
            for entry in document.get("file_keys", []):
                file_keys[_hex(entry["id"], 16)] = _hex(entry["key"], KEY_SIZE)
        except (KeyError, TypeError, ValueError) as exc:
            raise KeyFileError(f"an entry of the key file is malformed: {exc}") from None
        return cls(label_keys, file_keys)

    def unlock(self, header: Header) -> FileKey:
        """The key of the file with this header. Raises LeaseMissing, and HeaderDamaged when a key does not fit."""
        if header.file_id in self.file_keys:
            return FileKey(self.file_keys[header.file_id])
        for slot in header.slots:
            key = self.label_keys.get((slot.key_id, slot.version))
            if slot.algorithm == WrapAlgorithm.LABEL_KEY and key is not None:
                return header.unwrap(slot, key)
        wanted = " or ".join(f"label key {slot.key_id.hex()} version {slot.version}" for slot in header.slots)
        raise LeaseMissing(f"the key file has neither file key {header.file_id.hex()} nor {wanted or 'any wrap'}")


def _hex(text: str, size: int) -> bytes:
    value = bytes.fromhex(text)
    if len(value) != size:
        raise ValueError(f"{size} bytes expected, {len(value)} found")
    return value
