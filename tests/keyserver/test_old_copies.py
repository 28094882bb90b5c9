"""Whole logs: several machines' records, in any order of arrival, and what the server makes of them."""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyserver import old_copies
from keyserver.auditlog.reader import read_records
from keyserver.auditlog.records import CHAIN_START, encode, link, rfc3339
from keyserver.messages import SHARED_WITH, FilePath, Record, RecordBatch
from keyserver.sightings import SKEW
from keyserver.store.records import RecordFilter
from tests.keyserver.company import NOON, TestMachine
from tests.keyserver.test_leases import sync

LABEL, SECRET = "sales/clients", "sales/contracts"
PATH = "/sales/clients/letter"
FILE, OTHER = "0f" * 16, "0e" * 16


@dataclass
class Desk:
    """A machine that says when it did what; `send` sends it all."""

    machine: TestMachine
    seq: int = 0
    chain: bytes = CHAIN_START
    waiting: list[Record] = field(default_factory=list)

    @property
    def id(self):
        return self.machine.id

    def say(self, event, at, generation=0, path=PATH, file=FILE, label=LABEL, **more):
        place = FilePath(path, file, label, generation) if path else None
        self.seq += 1
        self.waiting.append(
            Record(self.seq, rfc3339(NOON + at), self.id, event, file=place, view=more.pop("view", "plaintext"), **more)
        )

    def take(self, count=None):
        """The batch of what was said and not sent yet, or of the first of it."""
        records, self.waiting = self.waiting[:count], self.waiting[len(self.waiting[:count]) :]
        before, bodies = self.chain, [encode(record) for record in records]
        for body in bodies:
            self.chain = link(self.chain, body)
        return RecordBatch.of(records[0].seq, before, bodies)


class Office:
    """Three machines that share a store, all lent the keys, and the server's clock."""

    def __init__(self, company):
        self.company = company
        self.desks = []
        for _ in range(3):
            self.join()
        self.at(1_000_000)

    def join(self, shares=True):
        desk = Desk(self.company.join({1000: "li"}))
        sync(self.company, desk.machine)
        if shares:
            others = SHARED_WITH + " ".join(other.id for other in self.desks) if self.desks else ""
            desk.say("mount", 0, path="", detail=f"/drive over /store, dev{others}")
            self.send(desk)
            self.desks.append(desk)
        return desk

    def at(self, seconds):
        self.company.clock.now = NOON + seconds

    def send(self, desk, count=None):
        service, batch = self.company.service, desk.take(count)
        known = service.machines.get(desk.id)
        self.company.change(lambda change: service.intake.take(change, desk.id, {"li"}, batch, banned=known.banned))

    def send_all(self, *desks):
        for desk in desks or self.desks:
            if desk.waiting:
                self.send(desk)

    def settle(self):
        """Everything the server does by the clock."""
        service = self.company.service
        self.compare()
        self.company.clock.now += old_copies.SETTLE + 1
        self.company.change(service.old_copies.record)

    def compare(self):
        while self.company.change(self.company.service.old_copies.count):
            pass

    def found(self):
        self.settle()
        with self.company.store.read() as rows:
            return list(read_records(rows, RecordFilter(event=old_copies.EVENT)))


@pytest.fixture
def office(company):
    company.add_user("li", "sales")
    return Office(company)


def test_an_old_copy_that_no_machine_put_there_is_recorded_once(office):
    a, b, c = office.desks
    a.say("close", 100, 9)
    b.say("open", 200, 5)
    c.say("open", 300, 5)
    office.send_all()
    (record,) = office.found()
    assert record.machine == "server"
    assert record.file == FilePath(PATH, FILE, LABEL, 5)
    assert record.detail == (
        f"opened-by={b.id} opened={rfc3339(NOON + 200)} newest=9 known-by={a.id} known={rfc3339(NOON + 100)}"
    )
    b.say("open", 400, 5)
    b.say("close", 401, 6)
    c.say("open", 500, 6)
    office.send_all()
    assert len(office.found()) == 1
    c.say("open", 600, 5)  # put back once more
    office.send_all()
    assert len(office.found()) == 2


def test_nothing_is_recorded_before_it_has_settled(office):
    a, b, c = office.desks
    a.say("close", 100, 9)
    b.say("open", 200, 5)
    office.send_all()
    office.compare()
    office.company.change(office.company.service.old_copies.record)
    c.say("rename", 150, path="/sales/clients/backup", to=PATH)
    office.send(c)
    assert office.found() == []


@pytest.mark.parametrize("event", ["create", "delete", "accept", "rollback", "conflict"])
def test_what_a_machine_did_or_found_itself_is_not_said_again(office, event):
    a, b, c = office.desks
    a.say("close", 100, 9)
    c.say(event, 150, file=OTHER)
    b.say("open", 200, 5)
    office.send_all()
    assert office.found() == []


def test_what_the_opener_found_itself_is_not_said_again_however_late_it_looked(office):
    a, b, _ = office.desks
    a.say("close", 100, 9)
    b.say("open", 200, 5)
    b.say("rollback", 210, 5)
    b.say("open", 300, 5)
    office.send_all()
    assert office.found() == []


def test_a_folder_that_was_moved_there_is_no_old_copy(office):
    a, b, c = office.desks
    a.say("close", 100, 9)
    c.say("rename", 150, path="/backup", file="", to="/sales/clients")
    b.say("open", 200, 5)
    office.send_all()
    assert office.found() == []


def test_a_sealed_file_that_came_through_the_drive_is_no_old_copy(office):
    """It takes its name at the close, long after the record of its beginning, and by another id."""
    a, b, c = office.desks
    c.say("create", 50, file=OTHER, view="ciphertext", detail="replacing")
    a.say("close", 100, 9)
    c.say("close", 150, file=OTHER, view="ciphertext", bytes_written=4096, detail="stored as the sealed file it is")
    b.say("open", 200, 5)
    office.send_all()
    assert office.found() == []


def test_who_reads_the_sealed_bytes_explains_nothing(office):
    a, b, c = office.desks
    a.say("close", 100, 9)
    c.say("open", 150, view="ciphertext")
    c.say("close", 151, view="ciphertext", bytes_read=4096)
    b.say("open", 200, 5)
    office.send_all()
    assert len(office.found()) == 1


def test_a_copy_elsewhere_begins_its_own_line(office):
    a, b, _ = office.desks
    a.say("close", 100, 9)
    b.say("open", 200, 5, path="/sales/clients/copy of letter")
    office.send_all()
    assert office.found() == []


def test_a_close_that_did_not_reach_the_store_is_none(office):
    a, b, _ = office.desks
    a.say("close", 100, 9, detail="what was written last is not in the store: No space left on device")
    b.say("open", 200, 5)
    office.send_all()
    assert office.found() == []


def test_what_a_power_cut_may_have_taken_is_no_old_copy(office):
    a, b, _ = office.desks
    a.say("close", 100, 8)
    a.say("close", 200, 9)
    office.send(a)
    a.say("restart", 5000, path="")
    b.say("open", 6000, 8)
    office.send_all()
    assert office.found() == []
    a.say("open", 7000, 7)
    office.send_all()
    assert len(office.found()) == 1


def test_machines_that_do_not_share_a_store_have_nothing_to_do_with_each_other(office):
    stranger = office.join(shares=False)
    stranger.say("mount", 10, path="", detail="/drive over /replica, dev")
    office.desks[0].say("close", 100, 9)
    stranger.say("open", 200, 5)
    office.send_all(office.desks[0], stranger)
    assert office.found() == []


def test_other_stores_with_the_same_paths_hide_nothing(office):
    """A replica, which is behind, and a store with another file there."""
    a, b, _ = office.desks
    replica, other = office.join(shares=False), office.join(shares=False)
    a.say("close", 100, 9)
    replica.say("open", 150, 7)
    other.say("open", 160, 2, file=OTHER)
    b.say("open", 200, 5)
    office.send_all(a, replica, other, b)
    (record,) = office.found()
    assert f"newest=9 known-by={a.id}" in record.detail


def test_machines_that_mounted_at_the_same_time_share_a_store(office):
    two = office.join(shares=False), office.join(shares=False)
    for one, other in (two, two[::-1]):
        one.say("mount", 10, path="", detail=f"/drive over /other, dev{SHARED_WITH}{other.id}")
    two[0].say("close", 100, 9)
    two[1].say("open", 200, 5)
    office.send_all(*two)
    assert len(office.found()) == 1


def test_what_was_known_before_two_machines_are_found_to_share_a_store(office):
    a, later = office.desks[0], office.join(shares=False)
    later.say("close", 100, 9)
    a.say("close", 110, 9, path=PATH + "2")
    office.send_all(later, a)
    office.compare()
    a.say("mount", 150, path="", detail=f"/drive over /store, dev{SHARED_WITH}{later.id} {'ab' * 16}")
    a.say("open", 200, 5)
    later.say("open", 200, 5, path=PATH + "2")
    office.send_all(a, later)
    assert {record.file.path for record in office.found()} == {PATH, PATH + "2"}


def test_one_machine_that_forgot_what_it_saw(office):
    a, *_ = office.desks
    a.say("close", 100, 9)
    a.say("open", 110, 5)
    office.send(a)
    assert len(office.found()) == 1


def test_a_label_whose_keys_are_not_lent(office):
    a, b, _ = office.desks
    path = "/sales/contracts/offer"
    a.say("close", 100, 9, path=path, label=SECRET)
    b.say("open", 200, 5, path=path, label=SECRET)
    office.send_all()
    assert [record.file.path for record in office.found()] == [path]


@pytest.mark.parametrize(
    "lie",
    [
        {"label": "company/internal"},  # which nobody was lent
        {"label": "sales/made-up"},
        {"generation": 1 << 63},
        {"generation": 1 << 70},
        {"generation": -1},
        {"at": 2_000_000},  # the future
        {"file": "0f" * 4000},
        {"path": "/sales/clients/" + "x" * 5000},
    ],
)
def test_claims_that_cannot_be_true_do_not_count(office, lie):
    a, b, c = office.desks
    c.say("close", **{"at": 100, "generation": 1 << 60, **lie})
    a.say("close", 101, 8)
    office.send_all()
    office.settle()
    b.say("open", 2_000_300, 9, path=lie.get("path", PATH), file=lie.get("file", FILE))
    office.at(2_001_000)
    office.send_all()
    assert office.found() == []
    office.at(2_001_000)
    a.say("open", 2_000_600, 8)
    office.send_all()
    assert len(office.found()) == (0 if "path" in lie or "file" in lie else 1), "the lie hides nothing"


def test_a_claim_that_could_be_true_is_said_once_with_who_made_it(office):
    a, b, liar = office.desks
    liar.say("close", 100, 1 << 60)
    for step in range(5):
        a.say("open", 200 + 100 * step, 8 + step)
        b.say("open", 250 + 100 * step, 8 + step)
    office.send_all()
    (record,) = office.found()
    assert f"known-by={liar.id}" in record.detail


def test_what_a_banned_machine_sends_does_not_count(office):
    a, b, banned = office.desks
    company = office.company
    company.change(lambda change: company.service.ban(change, banned.id, "admin"))
    a.say("close", 100, 9)
    banned.say("close", 110, 1 << 60)
    banned.say("accept", 150)
    b.say("open", 200, 5)
    office.send_all()
    (record,) = office.found()
    assert f"known-by={a.id}" in record.detail


def test_a_server_that_was_killed_goes_on_where_it_was(office, monkeypatch):
    monkeypatch.setattr(old_copies, "CHUNK", 1)
    a, b, _ = office.desks
    a.say("close", 100, 9)
    office.send(a)
    assert office.company.change(office.company.service.old_copies.count)
    with pytest.raises(ZeroDivisionError):
        office.company.change(lambda change: office.company.service.old_copies.count(change) / 0)
    b.say("open", 200, 5)
    office.send(b)
    assert len(office.found()) == 1


def test_paths_that_were_left_are_forgotten_in_time(office):
    a, *_ = office.desks
    a.say("create", 100, path="/sales/clients/.~lock")
    a.say("close", 110, 9)
    office.send(a)
    office.compare()
    office.company.clock.now += old_copies.FORGOTTEN_AFTER
    office.settle()
    with office.company.store.read() as rows:
        store = rows.sightings.mount(a.id).store
        places = [store + path for path in (PATH, "/sales/clients/.~lock")]
        assert [one.place for one in rows.sightings.at(places)] == places[:1]


# ---- any order of arrival --------------------------------------------------------------------------------------------


def ordinary_work(desks, steps, pace=40.0, skew=(0.0, 0.0, 0.0)):
    """Machines take turns with one file. `steps`: (desk, what); `pace`: seconds between two; `skew`: of the clocks."""
    generation, now = 1, 100.0
    for who, what in steps:
        desk, time = desks[who], now + skew[who]
        if what == "write":
            desk.say("open", time, generation)
            generation += 1
            desk.say("close", time + 1, generation)
        elif what == "read":
            desk.say("open", time, generation)
            desk.say("close", time + 1, generation)
        elif what == "restore":
            generation = max(1, generation - 2)
            desk.say("rename", time, path="/sales/clients/backup", to=PATH)
        else:
            generation = max(1, generation - 2)
            desk.say("accept", time)
        now += pace
    return generation, now


def arrive(office, data, per_batch=3):
    """Every machine's records in its own order, the machines' among each other in any, compared now and then."""
    while waiting := [desk for desk in office.desks if desk.waiting]:
        desk = waiting[data.draw(st.integers(0, len(waiting) - 1))]
        office.send(desk, data.draw(st.integers(1, per_batch)))
        if data.draw(st.booleans()):
            office.compare()


WORK = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["write", "read", "restore", "accept"])), max_size=12)
ANY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def fresh(office):
    """The same office with nothing known of any file; how many old copies it had."""
    for desk in office.desks:  # of an example that was broken off
        desk.seq -= len(desk.waiting)
        desk.waiting.clear()
    office.compare()
    for table in ("sighting", "old_copy"):
        delete = f"DELETE FROM {table}"
        office.company.change(lambda change, delete=delete: change.rows.connection.exec_driver_sql(delete))
    office.at(1_000_000)
    return len(office.found())


@ANY
@given(WORK, st.sampled_from([1.5, 5.0, 40.0]), st.tuples(*[st.floats(-SKEW / 2, SKEW / 2)] * 3), st.data())
def test_work_of_several_machines_is_never_taken_for_an_old_copy(office, work, pace, skew, data):
    before = fresh(office)
    ordinary_work(office.desks, work, pace, skew)
    arrive(office, data)
    assert len(office.found()) == before


@ANY
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["write", "read"])), max_size=8),
    st.integers(0, 2),
    st.lists(st.tuples(st.integers(0, 2), st.just("read")), max_size=4),
    st.data(),
)
def test_an_old_copy_is_found_exactly_once_in_whatever_order_the_records_come(office, work, opener, after, data):
    before = fresh(office)
    generation, time = ordinary_work(office.desks, [*work, (0, "write"), (1, "write")])
    office.desks[opener].say("open", time, generation - 1)
    for step, (who, _) in enumerate(after, 1):
        office.desks[who].say("open", time + 40 * step, generation - 1)
    arrive(office, data)
    assert len(office.found()) == before + 1
