import sqlite3

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from keyserver.errors import Banned, Denied, Malformed, NotFound, TokenExpired, TokenUsed
from keyserver.machines import Machines
from tests.keyserver.company import TestMachine, one_commit


@pytest.fixture
def li(company):
    company.add_user("li", "sales")


def enrol(company, request):
    return company.change(lambda change: company.service.enrolment.enrol(change, request))


@pytest.mark.usefixtures("li")
def test_a_machine_joins_with_its_own_key(company):
    machine = company.join({1000: "li"})
    known = company.service.machines.admit(machine.peer, company.clock.now)
    assert known.persons == {"li"}
    assert machine.peer.machine == known.id


@pytest.mark.usefixtures("li")
def test_a_token_works_once(company):
    token = company.token({1000: "li"})
    enrol(company, TestMachine().request(token))
    assert isinstance(enrol(company, TestMachine().request(token)), TokenUsed)
    assert company.events().count("enrol") == 1
    assert company.events().count("token-refused") == 1


def test_two_machines_in_one_commit_cannot_both_use_a_token(company):
    token = company.token({})
    requests = [TestMachine().request(token) for _ in range(2)]
    enrol_, submit = company.service.enrolment.enrol, company.service.writer.submit
    with one_commit(company.service.writer):
        futures = [submit(lambda change, r=r: enrol_(change, r)) for r in requests]
    assert [isinstance(each.result(), TokenUsed) for each in futures] == [False, True]


def test_a_token_expires(company):
    token = company.token({}, 600.0)
    company.clock.now += 600.0
    assert isinstance(enrol(company, TestMachine().request(token)), TokenExpired)


def test_a_token_of_another_company_or_with_another_secret_is_refused(company):
    prefix, token_id, secret, authority = company.token({}).split(".")
    for parts in (
        (prefix, token_id, secret, "0" * 64),
        (prefix, token_id, "0" * 64, authority),
        (prefix, "0" * 16, secret, authority),
        (prefix, token_id, secret),
        ("",),
    ):
        with pytest.raises(Denied):
            enrol(company, TestMachine().request(".".join(parts)))


def test_the_secret_is_not_in_the_database(company):
    secret = company.token({}).split(".")[2]
    with sqlite3.connect(company.founded.home.database) as connection:
        assert secret not in "\n".join(connection.iterdump())
    connection.close()


def test_tokens_name_known_people_and_sensible_terms(company):
    with pytest.raises(NotFound, match="user add nobody"):
        company.token({1000: "nobody"})
    with pytest.raises(Malformed):
        company.token({}, 100_000)
    with pytest.raises(Malformed):
        company.token({-1: "li"})


@pytest.mark.parametrize("change", [{"csr": "x"}, {"sealing_key": b"x"}, {"name": ""}, {"name": "a\nb"}])
def test_a_malformed_request_does_not_use_the_token_up(company, change):
    request = TestMachine().request(company.token({}))
    with pytest.raises(Malformed):
        enrol(company, msgspec.structs.replace(request, **change))
    enrol(company, request)


def test_a_renewed_certificate_counts_beside_the_old_one(company):
    machine = company.join({})
    old = machine.peer
    issue = company.service.authority.issue_machine
    company.clock.now += 43_200

    def renew(change):
        certificate = issue(machine.id, machine.csr(), change.now)
        company.service.machines.add_certificate(change, machine.id, certificate)
        return certificate

    machine.certificate = company.change(renew).public_bytes(Encoding.PEM).decode()
    company.service.machines.admit(old, company.clock.now)
    company.clock.now += 43_200
    company.service.machines.admit(machine.peer, company.clock.now)
    with pytest.raises(Denied, match="expired"):
        company.service.machines.admit(old, company.clock.now)


def test_a_certificate_the_server_has_not_issued_is_refused(company):
    machine = company.join({})
    with pytest.raises(Denied, match="has not issued"):
        company.service.machines.admit(machine.peer._replace(serial="1"), company.clock.now)
    with pytest.raises(Denied, match="has not issued"):
        company.service.machines.admit(machine.peer._replace(machine="0" * 32), company.clock.now)


def test_a_banned_machine_stays_banned_over_a_restart(company):
    machine = company.join({})
    company.change(lambda change: company.service.ban(change, machine.id, "admin"))
    assert company.pushed[-1] == ("banned", machine.id)
    with company.store.read() as rows:
        for machines in (company.service.machines, Machines(rows)):
            with pytest.raises(Banned):
                machines.admit(machine.peer, company.clock.now)
    with pytest.raises(NotFound):
        company.change(lambda change: company.service.ban(change, "0" * 32, "admin"))


def test_a_services_login_needs_its_user(company):
    company.add_user("service:backup")
    machine = company.join({0: "service:backup"})
    assert company.service.machines.get(machine.id).persons == {"service:backup"}
