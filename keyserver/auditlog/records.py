"""A record's canonical bytes, and the chain each machine's records form (docs/audit-log.md).

Bytes are what counts: what was spooled is chained, hashed into the tree, stored and printed unchanged. `parse` accepts
a text only if encoding what it says gives the same bytes again, so one record has one encoding.
"""

import re
from datetime import UTC, datetime
from hashlib import sha256

import msgspec

from keyserver.errors import Malformed
from keyserver.messages import Record

CHAIN_START = bytes(32)
MAX_RECORD_BYTES = 64 * 1024

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)
_encode, _decode = _encoder.encode, _decoder.decode


def encode(record: Record) -> bytes:
    return _encode(record)


def parse_lines(lines: bytes) -> tuple[list[Record], list[bytes]]:
    """Many records, a newline after each, and the canonical bytes of each. Raises `Malformed`, as `parse` does."""
    bodies = lines.split(b"\n")
    if bodies.pop():
        raise Malformed("the last record has no end")
    try:
        records = _decoder.decode_lines(lines)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        records = []
    # What is canonical as a whole is so line by line: no encoding has a newline in it.
    well = _encoder.encode_lines(records) == lines and max(map(len, bodies), default=0) <= MAX_RECORD_BYTES
    if not (well and all(map(_TIME.fullmatch, [record.time for record in records]))):
        records = [parse(body)[0] for body in bodies]
    return records, bodies


def parse(text: str | bytes) -> tuple[Record, bytes]:
    """The record and its canonical bytes. Raises `Malformed`."""
    body = text.encode() if isinstance(text, str) else text
    if len(body) > MAX_RECORD_BYTES:
        raise Malformed(f"a record of {len(body)} bytes: the limit is {MAX_RECORD_BYTES}")
    try:
        record = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise Malformed(f"not a record: {exc}") from None
    if _encode(record) != body:
        raise Malformed(f"record {record.seq} is not in canonical form")
    if not _TIME.fullmatch(record.time):
        raise Malformed(f"record {record.seq} has no RFC 3339 time in UTC with microseconds")
    return record, body


def link(chain: bytes, body: bytes) -> bytes:
    """The chain's next value."""
    return sha256(chain + body).digest()


def rfc3339(seconds: float) -> str:
    """As records say it: UTC, microseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
