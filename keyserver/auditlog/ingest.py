"""Takes a machine's batch of records into the log, or refuses all of it and records that.

A batch continues the machine's chain exactly. What was taken before may come again (the answer was lost): it is
acknowledged, compared, and not stored twice.
"""

from collections.abc import Iterable, Set

from keyserver.auditlog.records import CHAIN_START, link, parse_lines
from keyserver.changes import Change
from keyserver.errors import Conflict, Denied, KeyServerError, Malformed
from keyserver.messages import Record, RecordBatch, RecordReceipt

MAX_BATCH = 5000
MAX_REASON = 1000


class Intake:
    """What is offered to the log. Runs in the writer's thread only."""

    def __init__(self) -> None:
        self._refused: dict[str, str] = {}
        self._after_ban: set[str] = set()

    def take(
        self, change: Change, machine: str, persons: Set[str], batch: RecordBatch, *, banned: bool = False
    ) -> RecordReceipt | KeyServerError:
        """Appends what is new in `batch`. `persons`: everyone who was ever mapped on the machine.

        A refusal is returned, not raised: its record must become durable with the rest of the group.
        """
        if banned and batch.lines and machine not in self._after_ban:
            change.record("records-after-ban", detail=f"machine={machine} first={batch.first}")
            change.afterwards(lambda: self._after_ban.add(machine))
        try:
            receipt = _take(change, machine, persons, batch)
        except (Conflict, Denied, Malformed) as error:
            reason = f"machine={machine} first={batch.first} {error}"[:MAX_REASON]
            # A machine that is stuck sends the same batch for hours: one record of it is enough.
            if self._refused.get(machine) != reason:
                change.record("records-refused", detail=reason)
                change.afterwards(lambda: self._refused.update({machine: reason}))
            return error
        self._refused.pop(machine, None)
        return receipt


def _take(change: Change, machine: str, persons: Set[str], batch: RecordBatch) -> RecordReceipt:
    head = change.log.head(change.rows, machine)
    if not batch.lines:  # a machine that asks how far it got
        return RecordReceipt(head.seq)
    if len(batch) > MAX_BATCH:
        raise Malformed(f"{len(batch)} records in one batch: the limit is {MAX_BATCH}")
    if batch.first < 1:
        raise Malformed("records are numbered from 1")
    if batch.first > head.seq + 1:
        raise Conflict(f"gap: record {head.seq + 1} was expected, not {batch.first}")
    if batch.first == 1 and batch.chain != CHAIN_START:
        raise Conflict("chain: it does not begin with zeros")
    records, bodies = parse_lines(batch.lines)
    _check_claims(records, machine, persons, batch.first)

    known = head.seq + 1 - batch.first
    if known >= len(records):
        stored = change.rows.records.bodies(head.number, batch.first, batch.first + len(bodies) - 1)
        if bodies != [body.encode() for body in stored]:
            raise Conflict(f"chain: records from {batch.first} on are not those the server has")
        return RecordReceipt(head.seq)
    # Where records come again, reaching the head's value proves them equal to those stored.
    chain = _linked(batch.chain, bodies[:known])
    if chain != head.value:
        raise Conflict(f"chain: record {head.seq + 1} does not follow the record {head.seq} the server has")
    new = bodies[known:]
    change.log.append(change.rows, machine, records[known:], new, _linked(chain, new))
    return RecordReceipt(head.seq + len(new))


def _check_claims(records: Iterable[Record], machine: str, persons: Set[str], first: int) -> None:
    for seq, record in enumerate(records, first):
        if record.seq != seq:
            raise Conflict(f"gap: record {record.seq} stands where {seq} belongs")
        if record.machine != machine:
            raise Denied(f"record {seq} claims machine {record.machine}")
        if record.user and record.user not in persons:
            raise Denied(f"record {seq} claims user {record.user}, who was never mapped on this machine")


def _linked(chain: bytes, bodies: Iterable[bytes]) -> bytes:
    for body in bodies:
        chain = link(chain, body)
    return chain
