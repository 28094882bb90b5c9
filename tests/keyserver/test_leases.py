import pytest

from keyserver.leases import Leases
from keyserver.sealing import Binding
from tests.keyserver.company import NOON, POLICY


@pytest.fixture
def machine(company):
    company.add_user("li", "sales")
    return company.join({1000: "li"})


def sync(company, machine, mode="root"):
    service = company.service
    known = service.machines.get(machine.id)
    wanted = service.leases.wanted(known, mode, company.clock.now)
    if not service.leases.settled(known, wanted):
        company.change(lambda change: service.leases.settle(change, known, wanted))
    return {grant.label: grant for grant in service.leases.lend(known, wanted, company.clock.now)}


def test_a_machine_is_lent_what_its_people_may_read(company, machine):
    grants = sync(company, machine)
    assert set(grants) == {company.label("sales/clients"), company.label("sales/offers")}
    clients = grants[company.label("sales/clients")]
    assert clients.expires == NOON + 900
    assert clients.offline == 8 * 3600


def test_only_this_machine_opens_the_key(company, machine):
    label = company.label("sales/clients")
    (grant,) = [each for each in sync(company, machine).values() if each.label == label]
    (key,) = grant.keys
    binding = Binding("lease", company.service.company, machine.id, label, grant.key_id, 1)
    assert machine.sealing.open(key.sealed, binding) == company.service.labels.versions(label)[1]


def test_renewal_writes_nothing(company, machine):
    first = sync(company, machine)
    size = company.service.log.size
    company.clock.now += 450
    second = sync(company, machine)
    assert company.service.log.size == size
    assert {each.lease for each in first.values()} == {each.lease for each in second.values()}
    assert all(second[label].expires == first[label].expires + 450 for label in first)


def test_a_rotated_key_is_lent_with_its_older_versions(company, machine):
    label = company.label("sales/clients")
    company.change(lambda change: company.service.labels.rotate(change, label, "admin"))
    assert [key.version for key in sync(company, machine)[label].keys] == [1, 2]
    assert company.pushed[-1] == ("leases", "")


def test_a_revoked_lease_stays_revoked_until_it_is_restored(company, machine):
    label = company.label("sales/clients")
    lease = sync(company, machine)[label].lease
    company.change(lambda change: company.service.leases.revoke(change, lease, "admin"))
    assert company.pushed[-1] == ("revoked", machine.id)
    assert label not in sync(company, machine)
    assert next(each.state for each in company.service.leases.list() if each.id == lease) == "revoked"
    with company.store.read() as rows:
        again = Leases(rows, company.service.bundles, company.service.labels, company.service.company)
    known = company.service.machines.get(machine.id)
    assert label not in [grant.label for grant in again.lend(known, again.wanted(known, "root", NOON), NOON)]
    company.change(lambda change: company.service.leases.restore(change, lease, "admin"))
    assert sync(company, machine)[label].lease == lease


def test_leases_end_with_the_right_to_them(company, machine):
    sync(company, machine)
    company.change(lambda change: company.service.people.set_active(change, "li", False, "admin"))
    assert sync(company, machine) == {}
    assert {each.state for each in company.service.leases.list()} == {"ended"}
    company.change(lambda change: company.service.people.set_active(change, "li", True, "admin"))
    assert len(sync(company, machine)) == 2


def test_nobodys_machine_is_lent_nothing(company):
    assert sync(company, company.join({})) == {}


def test_a_ciphertext_rule_lends_no_key(company):
    company.add_user("service:backup")
    assert sync(company, company.join({0: "service:backup"})) == {}


def test_a_ban_revokes_all_leases(company, machine):
    sync(company, machine)
    company.change(lambda change: company.service.ban(change, machine.id, "admin"))
    assert {each.state for each in company.service.leases.list()} == {"revoked"}
    assert {each.expires for each in company.service.leases.list()} == {None}


def test_root_only_labels_are_not_lent_to_a_users_mount(company):
    text = POLICY["sales.yaml"].replace("level: internal}", "level: internal, machines: root}")
    files = POLICY | {"sales.yaml": text}
    parsed = company.service.bundles.parse(files)
    company.change(lambda change: company.service.bundles.upload(change, files, parsed, "admin"))
    company.add_user("li", "sales")
    root, user = company.join({1000: "li"}), company.join({1000: "li"}, "user")
    offers = company.label("sales/offers")
    assert offers in sync(company, root)
    assert offers not in sync(company, root, "user")
    assert offers not in sync(company, user)
