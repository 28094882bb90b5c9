"""Reading the log: what was recorded, as it was recorded."""

from collections.abc import Iterator

import msgspec

from keyserver.messages import Record
from keyserver.store.records import RecordFilter
from keyserver.store.rows import Rows


def read_bodies(rows: Rows, wanted: RecordFilter) -> Iterator[str]:
    """Canonical records, oldest first, unchanged."""
    return rows.records.select(wanted)


def read_records(rows: Rows, wanted: RecordFilter) -> Iterator[Record]:
    """The same, decoded."""
    decode = msgspec.json.Decoder(Record).decode
    return (decode(body) for body in rows.records.select(wanted))
