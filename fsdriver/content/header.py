"""The head of a sealed file, bytes 0-3071: what may be read without a key, and the tag over it (docs/format.md 3).

`Header.parse` takes any bytes and gives a Header or raises HeaderDamaged or FormatUnknown, nothing else. What it gives
is unverified until `Header.check` has seen the file's keys.
"""

import hmac
import struct
from typing import NamedTuple, Self

from fsdriver.content.keys import FileKey, FileKeys
from fsdriver.content.offsets import (
    CHUNK_SIZE,
    CHUNK_SIZE_MAX,
    CHUNK_SIZE_MIN,
    COMMIT_AT,
    COMMIT_SIZE,
    HEADER_SIZE,
    SIGNATURE_AT,
    SIGNATURE_SIZE,
    SLOTS_AT,
    TEXT_AT,
    WRAP_SLOT_SIZE,
    WRAP_SLOTS,
)
from fsdriver.content.wraps import WrapSlot, unwrap
from fsdriver.errors import FormatUnknown, HeaderDamaged, OtherCompany

MAGIC = b"\x89GrantFS"
MAJOR = 1
SUITE_AES_GCM = 1
"""AES-256-GCM, HKDF-SHA256, BLAKE2b. Reserved: 2 AES-256-GCM-SIV, 3 SM4-GCM."""
TEXT = (
    "This is a sealed GrantFS file: it belongs to a company and opens on its enrolled machines, "
    "in the programs its policy lists. If it reached you by mistake, please return it to whoever sent it."
)

_TEXT_FIELD = TEXT.encode().ljust(SLOTS_AT - TEXT_AT, b"\0")

_FIELDS = struct.Struct(">8sHHIQQQ16s16s16s32s32s104x")
FILE_ID_AT = 40
_TAG_AT = 120
_TAG_END = 152
_NO_TAG = bytes(32)
PEEK_SIZE = _FIELDS.size


class Belonging(NamedTuple):
    """Whose a sealed file is, by the (unverified) fields of its header."""

    file_id: bytes
    company: bytes
    label: bytes


def peek(data: bytes) -> Belonging:
    """Whose file begins with the PEEK_SIZE bytes of `data`: for decisions that need no key, such as who may delete it.
    Raises HeaderDamaged or FormatUnknown."""
    if len(data) < PEEK_SIZE or data[: len(MAGIC)] != MAGIC:
        raise HeaderDamaged("not a sealed file")
    _, major, _, _, incompatible, _, _, file_id, company, label, _, _ = _FIELDS.unpack_from(data)
    if major != MAJOR or incompatible:
        raise FormatUnknown(f"format {major}, features {incompatible:#x}: newer than this program")
    return Belonging(file_id, company, label)


def _text(field: bytes) -> str:
    encoded, _, padding = field.partition(b"\0")
    try:
        text = encoded.decode()
    except UnicodeDecodeError:
        raise HeaderDamaged("the header's text is not UTF-8") from None
    if padding.strip(b"\0"):
        raise HeaderDamaged("the header's text is not padded with zeros")
    return text


_RESERVED = bytes(TEXT_AT - _TAG_END)
_RESERVED_TAIL = bytes(HEADER_SIZE - COMMIT_AT - COMMIT_SIZE)


class Header(NamedTuple):
    """Everything the head says. Ids are 16 bytes; the feature masks are explained in docs/format.md 3.1."""

    file_id: bytes
    company: bytes
    label: bytes
    commitment: bytes
    slots: tuple[WrapSlot, ...]
    tag: bytes = _NO_TAG
    chunk_size: int = CHUNK_SIZE
    suite: int = SUITE_AES_GCM
    incompatible: int = 0
    read_only_compatible: int = 0
    compatible: int = 0
    text: str = TEXT
    signature: bytes = bytes(SIGNATURE_SIZE)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The header at the start of `data`, unverified. Raises HeaderDamaged or FormatUnknown."""
        if data[: len(MAGIC)] != MAGIC:
            raise HeaderDamaged("not a sealed file")
        if len(data) < HEADER_SIZE:
            raise HeaderDamaged(f"a sealed file has at least {HEADER_SIZE} bytes, this one {len(data)}")
        _, major, suite, chunk_size, incompatible, read_only, compatible, file_id, company, label, commitment, tag = (
            _FIELDS.unpack_from(data)
        )
        # The version comes first: what follows means nothing in a format that we do not know.
        if major != MAJOR:
            raise FormatUnknown(f"format {major} is newer than this program, which knows format {MAJOR}")
        if incompatible:
            raise FormatUnknown(f"the file needs features this program does not have (mask {incompatible:#x})")
        if suite != SUITE_AES_GCM:
            raise FormatUnknown(f"cipher suite {suite} is not known to this program")
        if not CHUNK_SIZE_MIN <= chunk_size <= CHUNK_SIZE_MAX or chunk_size & (chunk_size - 1):
            raise HeaderDamaged(f"chunk size {chunk_size} is not a power of two from 4 KiB to 1 MiB")
        if data[_TAG_END:TEXT_AT] != _RESERVED or data[COMMIT_AT + COMMIT_SIZE : HEADER_SIZE] != _RESERVED_TAIL:
            raise HeaderDamaged("reserved bytes of the header are not zero")
        found = [WrapSlot.parse(data[at : at + WRAP_SLOT_SIZE]) for at in range(SLOTS_AT, SIGNATURE_AT, WRAP_SLOT_SIZE)]
        return cls(
            file_id=file_id,
            company=company,
            label=label,
            commitment=commitment,
            slots=tuple(slot for slot in found if slot is not None),
            tag=tag,
            chunk_size=chunk_size,
            suite=suite,
            incompatible=incompatible,
            read_only_compatible=read_only,
            compatible=compatible,
            text=TEXT if data[TEXT_AT:SLOTS_AT] == _TEXT_FIELD else _text(data[TEXT_AT:SLOTS_AT]),
            signature=data[SIGNATURE_AT : SIGNATURE_AT + SIGNATURE_SIZE],
        )

    @classmethod
    def mend(cls, data: bytes) -> Self:
        """As `parse`, for salvaging: what no chunk depends on (text, reserved bytes, malformed wrap slots) is put right
        or left out. Raises HeaderDamaged or FormatUnknown."""
        mended = bytearray(data)
        if len(data) >= HEADER_SIZE:
            mended[_TAG_END:SLOTS_AT] = _RESERVED + _TEXT_FIELD
            mended[HEADER_SIZE - len(_RESERVED_TAIL) : HEADER_SIZE] = _RESERVED_TAIL
            for at in range(SLOTS_AT, SIGNATURE_AT, WRAP_SLOT_SIZE):
                try:
                    WrapSlot.parse(data[at : at + WRAP_SLOT_SIZE])
                except HeaderDamaged:
                    mended[at : at + WRAP_SLOT_SIZE] = WrapSlot.mend(data[at : at + WRAP_SLOT_SIZE])
        return cls.parse(bytes(mended))

    def encode(self, keys: FileKeys) -> tuple[Self, bytes]:
        """This header with its commitment and tag, and its COMMIT_AT bytes."""
        if len(self.slots) > WRAP_SLOTS:
            raise ValueError(f"a header has {WRAP_SLOTS} wrap slots")
        fields = _FIELDS.pack(
            MAGIC,
            MAJOR,
            self.suite,
            self.chunk_size,
            self.incompatible,
            self.read_only_compatible,
            self.compatible,
            self.file_id,
            self.company,
            self.label,
            keys.commitment,
            _NO_TAG,
        )
        text = self.text.encode()
        if len(text) > SLOTS_AT - TEXT_AT or b"\0" in text:
            raise ValueError("the header's text has at most 256 bytes of UTF-8 and no NUL")
        wraps = b"".join(slot.encode() for slot in self.slots).ljust(SIGNATURE_AT - SLOTS_AT, b"\0")
        untagged = b"".join((fields, text.ljust(SLOTS_AT - TEXT_AT, b"\0"), wraps, self.signature))
        tag = hmac.digest(keys.header_tag, untagged, "sha256")
        return (
            self._replace(commitment=keys.commitment, tag=tag),
            b"".join((untagged[:_TAG_AT], tag, untagged[_TAG_END:])),
        )

    def check(self, data: bytes, file_key: FileKey) -> FileKeys:
        """The file's keys, after the header in `data` has been found to be made with them. Raises HeaderDamaged."""
        keys = FileKeys.draw(file_key, self.file_id, self.suite)
        self.verify(data, keys)
        return keys

    def verify(self, data: bytes, keys: FileKeys) -> None:
        """Raises HeaderDamaged unless the header in `data` was made with `keys`."""
        if not hmac.compare_digest(keys.commitment, self.commitment):
            raise HeaderDamaged("the file key is not the one this header was made with")
        untagged = b"".join((data[:_TAG_AT], _NO_TAG, data[_TAG_END:COMMIT_AT]))
        if not hmac.compare_digest(hmac.digest(keys.header_tag, untagged, "sha256"), self.tag):
            raise HeaderDamaged("the header was changed: its tag does not verify")

    def stands_in(self, data: bytes) -> bool:
        """Whether this header, with this tag, is the one in `data`. Proves nothing against who made one up."""
        return data[_TAG_AT:_TAG_END] == self.tag

    def require_company(self, company: bytes) -> None:
        """Raises OtherCompany unless the file belongs to `company`."""
        if self.company != company:
            raise OtherCompany(f"the file belongs to company {self.company.hex()}")

    def unwrap(self, slot: WrapSlot, label_key: bytes) -> FileKey:
        """The file key in `slot` of this header. Raises HeaderDamaged."""
        return unwrap(slot, label_key, file_id=self.file_id, company=self.company, label=self.label)
