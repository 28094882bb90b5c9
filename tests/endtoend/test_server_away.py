import os
import signal
import threading
import time

import pytest

from tests.endtoend.company import eventually
from tests.endtoend.program import Program, Refused
from tests.patience import within

QUICKLY = 6.0
"""Seconds within which every call has its answer, whatever the key server does."""


@pytest.fixture(params=[signal.SIGSTOP, signal.SIGTERM], ids=["stopped", "ended"])
def away(request, company):
    """Takes the server away, and brings it back."""
    pid = company.server_pid

    def take():
        if request.param == signal.SIGSTOP:
            os.kill(pid, signal.SIGSTOP)
        else:
            company.stop_server()

    def bring():
        if request.param == signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
        else:
            company.start_server()

    back = threading.Event()

    class Server:
        def __init__(self):
            self.take = take

        def bring(self):
            back.set()
            bring()

    yield Server()
    if not back.is_set():
        bring()
    eventually(lambda: company.status()["server"]["state"] == "connected")


def test_terms_carry_on_and_then_end(company, program, away):
    brief, clients = company.drive / "brief/a.txt", company.drive / "clients/a.txt"
    program.put(brief, "lent for three seconds, four without the server")
    program.put(clients, "lent for a quarter of an hour")
    opens_before = len(company.paths("open"))
    program.open("brief", brief, 0)
    lent = next(lease for lease in company.status()["leases"] if lease["label"] == "office/brief")
    away.take()
    found = program.try_open(brief, 60)
    assert found["error"] == "EACCES"
    # Terms count from the last sync, which may have come after `lent`: not refused before, nor served after.
    assert found["at"] > lent["usable_until"] - 0.5
    assert found["last"] < company.status()["server"]["synced"] + 4.1
    assert program.refused("brief", None, 1.0)["read"][0] == "EACCES"  # cached pages too, within a second
    program.close("brief")

    def ask_in_vain():
        time.sleep(2.1)  # so that the server is asked once more
        with pytest.raises(Refused, match="EACCES"):
            program.open("again", brief, 0)
        opening = program.seconds
        with pytest.raises(Refused, match="EACCES"):
            program.put(company.drive / "brief/new.txt", "no key to seal it with")
        return max(opening, program.seconds)

    within(QUICKLY, ask_in_vain)
    # The label with hours left goes on, and so does everything that needs no key.
    for _ in range(20):
        assert program.get(clients) == "lent for a quarter of an hour"
    sealed = brief.read_bytes()
    assert sealed == (company.store / "brief/a.txt").read_bytes()
    status = company.status()
    assert status["spool"]["waiting"] > 0
    assert "office/brief" not in {lease["label"] for lease in status["leases"]}

    away.bring()
    eventually(lambda: company.status()["server"]["state"] == "connected")
    eventually(lambda: opened(program, brief))
    company.everything_arrived()
    records = company.records()
    numbers = [record["seq"] for record in records if record["machine"] != "server"]
    assert numbers == list(range(1, len(numbers) + 1))
    opens = [record["file"]["path"] for record in records if record["event"] == "open"]
    assert len(opens) - opens_before >= found["count"] + 20
    assert company.verify()


def opened(program, path):
    try:
        return program.get(path)
    except Refused:
        return None


def test_a_secret_file_is_asked_for(company, program):
    path = company.drive / "payroll/may.txt"
    program.put(path, "salaries")
    before = len(company.records("grant"))
    assert program.get(path) == "salaries"
    # The server's record is there before its answer, so before the open's.
    granted = company.records("grant")
    assert len(granted) == before + 1
    assert granted[-1]["file"]["path"] == "/payroll/may.txt"
    assert granted[-1]["user"] == "root"
    assert granted[-1]["program"]["path"] == "/usr/bin/python3.11"


def test_a_file_of_another_label_does_not_take_a_secret_files_place(company, program):
    """Its key would have to be wrapped with one that never leaves the server."""
    secret, other = company.drive / "payroll/july.txt", company.drive / "clients/july.txt"
    program.put(secret, "salaries")
    program.put(other, "prices")
    company.everything_arrived()
    before = {event: len(company.records(event)) for event in ("denied", "delete", "rename", "failed")}
    with pytest.raises(Refused, match="EACCES"):
        program.rename(other, secret)
    assert (program.get(secret), program.get(other)) == ("salaries", "prices")
    company.everything_arrived()
    (denied,) = company.records("denied")[before.pop("denied") :]
    assert (denied["file"]["path"], denied["rule"]) == ("/clients/july.txt", "key-per-file")
    assert "rename refused by key-per-file" in denied["detail"]
    assert before == {event: len(company.records(event)) for event in before}
    # The other way round the label stays the higher one, and a save by a new file and rename is of the same label.
    program.rename(secret, other)
    assert company.fsdriver("info", "-o", "json", other).stdout.count("office/payroll") == 1
    program.put(company.drive / "payroll/new.txt", "raised")
    program.put(secret, "salaries")
    program.rename(company.drive / "payroll/new.txt", secret)
    assert program.get(secret) == "raised"


def test_a_secret_file_without_the_server(company, program, away):
    path = company.drive / "payroll/june.txt"
    program.put(path, "salaries")
    ordinary = company.drive / "clients/ordinary.txt"
    program.put(ordinary, "ordinary")
    away.take()
    others = [Program() for _ in range(3)]

    def ask_in_vain():
        """What share of its time each took that was asked meanwhile, at most."""
        for other in others:  # all ask for the same key at once: nobody else waits with them
            other.tell("get", path)
        time.sleep(0.2)
        shares = []
        for _ in range(5):
            assert program.get(ordinary) == "ordinary"
            shares.append(program.seconds / 1.0)
            assert program.exists(path)
            shares.append(program.seconds / 1.0)
        assert path.read_bytes()
        for other in others:
            with pytest.raises(Refused, match="EACCES"):
                other.answer()
            shares.append(other.seconds / QUICKLY)
        with pytest.raises(Refused, match="EACCES"):
            program.put(company.drive / "payroll/new.txt", "no")
        shares.append(program.seconds / QUICKLY)
        return max(shares)

    try:
        within(1.0, ask_in_vain)
        assert not (company.store / "payroll/new.txt").exists()
    finally:
        away.bring()
        for other in others:
            other.end()
    eventually(lambda: opened(program, path))


def test_a_mount_without_the_server(own, program):
    own.start()
    program.put(own.drive / "clients/a.txt", "text")
    own.stop_server()
    own.fsdriver("umount")
    own.mount()
    assert own.status()["server"]["state"] == "offline"
    with pytest.raises(Refused, match="EACCES"):  # leases live in memory
        program.get(own.drive / "clients/a.txt")
    assert (own.drive / "clients/a.txt").read_bytes() == (own.store / "clients/a.txt").read_bytes()
    own.start_server()
    eventually(lambda: opened(program, own.drive / "clients/a.txt") == "text")
    own.everything_arrived()
    assert own.verify()
