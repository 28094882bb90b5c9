import shutil
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from tests.endtoend.company import LISTED, POLICY, Company, eventually
from tests.endtoend.program import SIGBUS, Program, Refused
from tests.patience import within

WITHIN = 1.0
"""Seconds a revocation may take (promise P5)."""
TEXT = "what only listed programs read " * 3000


class Holder:
    """A listed program that holds a plaintext handle with cached pages and a mapping, and one file to try again."""

    def __init__(self, company, place):
        self.company = company
        self.path = company.drive / place
        self.program = Program()
        self.program.put(self.path, TEXT)
        self.hold()

    def hold(self):
        self.program.open("held", self.path, 0)
        assert self.program.read("held", len(TEXT)) == TEXT
        self.program.map("held")
        assert self.program.touch_map("held") == 0

    def measured(self, act, event):
        """Seconds from the server's record of what `act` did until the handle, and the mapping, were refused."""
        self.program.tell("refused", "held", "held", 60)
        act()
        found = self.program.answer()
        done = self.company.records(event, machine="server")[-1]
        at = datetime.fromisoformat(done["time"]).timestamp()
        assert found["read"][0] == "EACCES"
        assert found["map"][0] == SIGBUS
        return found["read"][1] - at, found["map"][1] - at

    def is_refused_in_time(self, act, event, undo, report):
        """After `act`. A second attempt, where this machine stood still in the first, begins with `undo`."""
        attempts = 0

        def attempt():
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                undo()
                eventually(lambda: can_read(self))
                self.hold()
            return report(self.measured(act, event))

        within(WITHIN, attempt)

    def end(self):
        self.program.end()


@pytest.fixture
def holder(company):
    holder = Holder(company, "clients/held.txt")
    yield holder
    holder.end()


@pytest.fixture
def report(record_property):
    """Notes what the two took; the slower one."""

    def note(seconds):
        for name, value in zip(("read", "map"), seconds, strict=True):
            record_property(name, round(value, 3))
        return max(seconds)

    return note


def receipts(company):
    return company.records("forgotten")


def still_ciphertext(company, path):
    """For who is not listed nothing changes."""
    sealed = path.read_bytes()
    assert sealed == (company.store / path.relative_to(company.drive)).read_bytes()
    assert TEXT[:20].encode() not in sealed


@pytest.fixture
def restored(company):
    """The clients' lease is lent again at the end."""
    lease = company.lease("office/clients")
    yield lease
    company.keyserver("lease", "restore", lease)
    eventually(lambda: "office/clients" in {each["label"] for each in company.status()["leases"]})


def test_a_revoked_lease(company, holder, restored, report):
    before = len(receipts(company))
    holder.is_refused_in_time(
        lambda: company.keyserver("lease", "revoke", restored),
        "revoke",
        lambda: company.keyserver("lease", "restore", restored),
        report,
    )
    with pytest.raises(Refused, match="EACCES"):
        holder.program.get(holder.path)
    with pytest.raises(Refused, match="EACCES"):
        holder.program.put(company.drive / "clients/new.txt", "no key")
    still_ciphertext(company, holder.path)
    holder.program.put(company.drive / "other.txt", "other labels go on")
    eventually(lambda: len(receipts(company)) > before)
    assert restored in receipts(company)[-1]["detail"]
    assert "handles_refused=1" in receipts(company)[-1]["detail"]
    eventually(lambda: [record for record in company.records("revoke") if record["machine"] != "server"])
    noted = [record for record in company.records("revoke") if record["machine"] != "server"][0]
    assert (noted["file"]["path"], noted["view"], noted["user"]) == ("/clients/held.txt", "plaintext", "root")

    company.keyserver("lease", "restore", restored)
    eventually(lambda: can_read(holder))
    with pytest.raises(Refused, match="EACCES"):  # what was taken away does not come back
        holder.program.read("held", 10)


def test_a_disabled_person(company, holder, report):
    holder.is_refused_in_time(
        lambda: company.keyserver("user", "disable", "root"),
        "user-disabled",
        lambda: company.keyserver("user", "enable", "root"),
        report,
    )
    with pytest.raises(Refused):
        holder.program.get(holder.path)
    still_ciphertext(company, holder.path)
    company.keyserver("user", "enable", "root")
    eventually(lambda: can_read(holder))


def can_read(holder):
    try:
        return holder.program.get(holder.path) == TEXT
    except Refused:
        return False


def test_a_policy_that_takes_the_right_away(company, holder, report, tmp_path):
    changed = tmp_path / "policy"
    shutil.copytree(POLICY, changed)
    text = (changed / "office.yaml").read_text()
    (changed / "office.yaml").write_text(text.replace("labels: [clients, brief,", "labels: [brief,"))
    holder.is_refused_in_time(
        lambda: company.keyserver("policy", "upload", changed),
        "policy",
        lambda: company.keyserver("policy", "upload", POLICY),
        report,
    )
    still_ciphertext(company, holder.path)
    # A rule that is added gives the right at once, not at half term.
    company.keyserver("policy", "upload", POLICY)
    eventually(lambda: can_read(holder), 60)


def test_what_was_written_before_a_revocation_is_kept(company, program, restored):
    path = company.drive / "clients/written.txt"
    program.put(path, "old")
    program.open("w", path, 2)
    program.write("w", "new")
    company.keyserver("lease", "revoke", restored)
    eventually(lambda: refused(program))
    company.keyserver("lease", "restore", restored)
    eventually(lambda: "office/clients" in {each["label"] for each in company.status()["leases"]})
    assert program.get(path) == "new"


@pytest.mark.slow
def test_an_hour_that_begins_brings_the_key(company, program, tmp_path):
    """No lease was lent before, and the next sync is far away: the first who asks has it fetched."""
    path = company.drive / "clients/hour.txt"
    program.put(path, "in office hours")
    changed = tmp_path / "policy"
    shutil.copytree(POLICY, changed)
    text = (changed / "office.yaml").read_text().replace("labels: [clients, brief,", "labels: [brief,")
    begins = datetime.now(UTC) + timedelta(seconds=75)
    hours = f"{begins:%H:%M}-{begins + timedelta(minutes=3):%H:%M}"
    rule = f"""
  - {{name: in-hours, users: ["@office"], programs: [tools], labels: [clients], allow: [read], view: plaintext,
     when: {{days: mon-sun, hours: "{hours}"}}}}
"""
    (changed / "office.yaml").write_text(text + rule)
    try:
        company.keyserver("policy", "upload", changed)
        eventually(lambda: "office/clients" not in {each["label"] for each in company.status()["leases"]})
        with pytest.raises(Refused):
            program.get(path)
        eventually(lambda: opened(program, path) == "in office hours", 90)
        assert 0 <= time.time() - begins.replace(second=0, microsecond=0).timestamp() < 3
    finally:
        company.keyserver("policy", "upload", POLICY)


def opened(program, path):
    try:
        return program.get(path)
    except Refused:
        return None


def refused(program):
    try:
        program.write("w", "not any more")
    except Refused as exc:
        return str(exc) == "EACCES"
    return False


def test_a_banned_machine(report):
    with ExitStack() as stack:
        tried = []

        def ban():
            own = Company()
            stack.callback(own.end)
            own.start()
            holder = Holder(own, "clients/held.txt")
            stack.callback(holder.end)
            tried.append((own, holder))
            machine = own.machine()
            return report(holder.measured(lambda: own.keyserver("machine", "ban", machine), "ban"))

        within(WITHIN, ban)
        own, holder = tried[-1]
        eventually(lambda: own.status()["server"]["state"] == "banned")
        with pytest.raises(Refused):
            holder.program.get(holder.path)
        still_ciphertext(own, holder.path)
        assert [each["state"] for each in own.listed("machine")] == ["banned"]
        holder.program.end()
        own.stop()
        own.start_server()
        assert [each["state"] for each in own.listed("machine")] == ["banned"]
        own.mount()  # what is left is ciphertext
        assert own.status()["leases"] == []
        still_ciphertext(own, holder.path)
        program = Program(LISTED)
        try:
            with pytest.raises(Refused):
                program.get(holder.path)
        except UnicodeDecodeError:
            pytest.fail("the banned machine shows nothing but sealed bytes")
        finally:
            program.end()
