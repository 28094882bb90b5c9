import sqlite3

import pytest

from keyserver.auditlog.checkpoint import verify as open_checkpoint
from keyserver.auditlog.merkle import leaf_hash, verify_consistency, verify_inclusion
from keyserver.auditlog.proof import prove_consistency, prove_inclusion
from keyserver.auditlog.verify import verify_log
from keyserver.changes import Change
from keyserver.errors import LogBroken, NotFound


@pytest.fixture
def log(company):
    """A log of some 600 records with checkpoints on the way; returns the first position of the machine's."""
    company.add_user("li", "sales")
    machine = company.join({1000: "li"})
    start = company.service.log.size
    for _ in range(6):
        batch = machine.batch(100)
        company.change(lambda change, b=batch: company.service.intake.take(change, machine.id, {"li"}, b))
        company.change(Change.sign_checkpoint)
    return start


def check(company, **options):
    with company.store.read() as rows:
        return verify_log(rows, company.service.company, company.service.log_key, **options)


def tamper(company, statement, *values):
    with sqlite3.connect(company.founded.home.database, timeout=60) as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        connection.execute(statement, values)
    connection.close()


def test_an_untouched_log_verifies(company, log):
    found = check(company)
    assert found.records == found.checkpointed == log + 600
    assert found.machines == 2


@pytest.mark.parametrize(
    ("statement", "offset"),
    [
        ("UPDATE record SET body = replace(body, 'open', 'shut') WHERE position = ?", 0),
        ("UPDATE record SET person = 'dana' WHERE position = ?", 0),
        ("UPDATE record SET leaf = zeroblob(32) WHERE position = ?", 0),
        ("UPDATE record SET chain = 1, seq = 5000 WHERE position = ?", 0),
        ("DELETE FROM record WHERE position = ?", 0),
        ("UPDATE record SET body = 'x' WHERE position = ?", 0),
        ("UPDATE record SET seq = 9999 WHERE position = ?", 0),
    ],
)
def test_the_first_bad_row_is_named(company, log, statement, offset):
    position = log + 250
    tamper(company, statement, position)
    with pytest.raises(LogBroken, match=f"^row {position + offset}: "):
        check(company)


def test_a_record_changed_with_all_its_hashes_does_not_fit_the_checkpoint(company, log):
    position = log + 250
    with company.store.read() as rows:
        row = next(row for row in rows.records.stream() if row[0] == position)
    body = row[9].replace('"event":"open"', '"event":"close"')
    tamper(
        company,
        "UPDATE record SET body=?, leaf=?, event='close' WHERE position=?",
        body,
        leaf_hash(body.encode()),
        position,
    )
    with pytest.raises(LogBroken, match="row 255|row 511|checkpoint"):
        check(company)
    tamper(company, "DELETE FROM subtree")
    with pytest.raises(LogBroken):
        check(company)


def test_a_log_cut_at_its_end_is_noticed(company, log):
    tamper(company, "DELETE FROM record WHERE position = ?", log + 599)
    with pytest.raises(LogBroken, match=f"row {log + 599}: missing"):
        check(company)


def test_a_log_cut_back_to_an_older_checkpoint_contradicts_who_kept_the_newer(company, log):
    with company.store.read() as rows:
        kept = rows.records.newest_checkpoint()
    company.change(lambda change: change.record("later"))
    check(company, kept=kept)
    size = log + 300
    tamper(company, "DELETE FROM checkpoint WHERE size > ?", size)
    tamper(company, "DELETE FROM record WHERE position >= ?", size)
    with pytest.raises(LogBroken):
        check(company, kept=kept)


def test_a_checkpoint_signed_by_another_key_is_refused(company, log):
    with company.store.read() as rows, pytest.raises(LogBroken, match="checkpoint"):
        verify_log(rows, company.service.company, bytes(32))


def test_two_swapped_rows_are_noticed(company, log):
    a, b = log + 10, log + 11
    for old, new in ((a, -1), (b, a), (-1, b)):
        tamper(company, "UPDATE record SET position = ? WHERE position = ?", new, old)
    with pytest.raises(LogBroken, match=f"^row {a}: "):
        check(company)


def test_a_record_can_be_proved_with_stored_subtrees(company, log):
    with company.store.read() as rows:
        checkpoint = open_checkpoint(rows.records.newest_checkpoint(), company.service.company, company.service.log_key)
        for position in (0, log, 255, 256, 511, checkpoint.size - 1):
            (leaf,) = rows.records.leaves(position, 1)
            proof = prove_inclusion(rows, position, checkpoint.size)
            verify_inclusion(leaf, position, checkpoint.size, proof, checkpoint.root)
        with pytest.raises(NotFound):
            prove_inclusion(rows, checkpoint.size, checkpoint.size)


def test_the_newest_checkpoint_is_proved_to_continue_the_older_ones(company, log):
    service = company.service
    with company.store.read() as rows:
        notes = [open_checkpoint(note, service.company, service.log_key) for _, note in rows.records.checkpoints()]
        newest = notes[-1]
        for old in notes:
            proof = prove_consistency(rows, old.size, newest.size)
            verify_consistency(old.size, newest.size, proof, old.root, newest.root)
        with pytest.raises(NotFound):
            prove_consistency(rows, newest.size + 1, newest.size)
