import pytest

from keyserver.auditlog.verify import verify_log
from keyserver.errors import NotReady
from tests.keyserver.company import one_commit


class Oops(Exception):
    pass


def test_a_job_that_raises_leaves_nothing_behind(company):
    before = company.events()

    def fail(change):
        change.record("half-done")
        change.rows.people.add("li", frozenset(), frozenset(), 0.0)
        change.afterwards(lambda: pytest.fail("it never became durable"))
        change.announce("bundle")
        raise Oops

    with pytest.raises(Oops):
        company.change(fail)
    assert company.events() == before
    assert company.pushed == []
    with company.store.read() as rows:
        assert rows.people.all() == {}


def test_jobs_that_share_a_commit_do_not_share_their_failures(company):
    writer = company.service.writer

    def fail(change):
        change.record("bad")
        raise Oops

    with one_commit(writer):
        jobs = [fail if number % 3 == 0 else lambda change: change.record("good") for number in range(20)]
        waiting = [writer.submit(job) for job in jobs]
    failed = [isinstance(each.exception(), Oops) for each in waiting]
    assert failed.count(True) == 7
    assert company.events().count("good") == 13
    assert "bad" not in company.events()
    with company.store.read() as rows:
        verify_log(rows, company.service.company, company.service.log_key)


def test_what_follows_a_commit_happens_before_who_waits_hears_of_it(company):
    seen = []
    company.change(lambda change: change.afterwards(lambda: seen.append(len(company.events()))))
    assert seen == [len(company.events())]


def test_a_store_that_cannot_be_written_is_not_ready_and_recovers(company):
    connection = company.service.writer._connection
    connection.exec_driver_sql("PRAGMA query_only=ON")
    connection.rollback()
    with pytest.raises(NotReady, match="nothing was changed"):
        company.change(lambda change: change.record("lost"))
    assert company.service.writer.failing
    connection.exec_driver_sql("PRAGMA query_only=OFF")
    connection.rollback()
    company.change(lambda change: change.record("kept"))
    assert not company.service.writer.failing
    assert "lost" not in company.events()
    assert "kept" in company.events()


def test_pushes_are_numbered_in_the_order_of_commits(company):
    numbers = [company.change(lambda change: change.announce("leases", "m")) for _ in range(3)]
    assert numbers == sorted(set(numbers))
    assert company.pushed == [("leases", "m")] * 3
