import msgspec
import pytest

from keyserver.auditlog.verify import verify_log
from keyserver.errors import Conflict, Denied, Malformed
from keyserver.messages import RecordBatch, RecordReceipt
from tests.keyserver.company import TestMachine


@pytest.fixture
def machine(company):
    company.add_user("li", "sales")
    return company.join({1000: "li"})


@pytest.fixture
def take(company, machine):
    def take(batch):
        persons = company.service.machines.get(machine.id).persons_ever
        return company.change(lambda change: company.service.intake.take(change, machine.id, persons, batch))

    return take


def verified(company):
    with company.store.read() as rows:
        return verify_log(rows, company.service.company, company.service.log_key)


def test_batches_continue_the_chain(company, machine, take):
    assert take(machine.batch(3)) == RecordReceipt(3)
    assert take(machine.batch(2)) == RecordReceipt(5)
    verified(company)


def test_a_batch_that_comes_again_is_acknowledged_and_not_stored_twice(company, machine, take):
    first = machine.batch(3)
    take(first)
    size = company.service.log.size
    assert take(first) == RecordReceipt(3)
    assert company.service.log.size == size
    verified(company)


def test_only_what_is_new_in_an_overlapping_batch_is_stored(company, machine, take):
    first = machine.batch(3)
    take(first)
    second = machine.batch(2)
    size = company.service.log.size
    assert take(RecordBatch(1, first.chain, first.lines + second.lines)) == RecordReceipt(5)
    assert company.service.log.size == size + 2
    verified(company)


def test_an_empty_batch_asks_how_far_the_server_is(machine, take):
    take(machine.batch(4))
    assert take(RecordBatch(1, bytes(32), b"")) == RecordReceipt(4)


def test_a_gap_is_refused_and_recorded_once(company, machine, take):
    take(machine.batch(1))
    machine.batch(1)
    late = machine.batch(1)
    for _ in range(3):
        answer = take(late)
        assert isinstance(answer, Conflict)
        assert "record 2 was expected" in str(answer)
    assert company.events().count("records-refused") == 1
    verified(company)


def forged(batch, **changes):
    return msgspec.structs.replace(batch, **changes)


def test_a_broken_chain_is_refused(company, machine, take):
    take(machine.batch(2))
    batch = machine.batch(2)
    assert isinstance(take(forged(batch, chain=bytes(32))), Conflict)
    assert take(batch) == RecordReceipt(4)
    assert "records-refused" in company.events()


def test_other_records_under_known_numbers_are_refused(machine, take):
    first = machine.batch(2)
    take(first)
    other = TestMachine(id=machine.id).batch(2, event="close")
    assert isinstance(take(other), Conflict)
    longer = TestMachine(id=machine.id).batch(3, event="close")
    assert isinstance(take(longer), Conflict)


def test_a_chain_begins_with_zeros(machine, take):
    assert isinstance(take(forged(machine.batch(1), chain=b"x" * 32)), Conflict)


@pytest.mark.parametrize(
    ("batch", "error"),
    [
        (TestMachine(id="0" * 32).batch(1), Denied),
        (RecordBatch(0, bytes(32), b"{}\n"), Malformed),
        (RecordBatch(1, bytes(32), b"{}\n"), Malformed),
        (RecordBatch(1, bytes(32), b"{}\n" * 5001), Malformed),
    ],
)
def test_claims_that_are_not_the_machines_own_are_refused(take, batch, error):
    assert isinstance(take(batch), error)


def test_a_user_who_was_never_mapped_is_refused(machine, take):
    assert isinstance(take(machine.batch(1, user="dana")), Denied)


def test_records_of_who_was_mapped_before_are_taken(company, machine, take):
    company.add_user("dana", "sales")
    company.change(lambda change: company.service.map_login(change, machine.id, 1000, "dana", "admin"))
    assert take(machine.batch(1, user="li")) == RecordReceipt(1)
    assert take(machine.batch(1, user="dana")) == RecordReceipt(2)


def test_numbers_within_a_batch_are_consecutive(machine, take):
    batch = machine.batch(3)
    assert isinstance(take(RecordBatch.of(batch.first, batch.chain, batch.records[::2])), Conflict)
