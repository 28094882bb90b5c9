import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keyserver.bundles import CONTEXT, Bundles
from keyserver.errors import Conflict, Malformed, NotFound
from policy import PolicyError
from tests.keyserver.company import POLICY


def upload(company, **files):
    files = {name.replace("_", "."): text for name, text in files.items()}
    parsed = company.service.bundles.parse(POLICY | files)
    return company.change(lambda change: company.service.bundles.upload(change, POLICY | files, parsed, "admin"))


def test_the_bundle_is_signed(company):
    signed = company.service.bundles.current.signed
    key = Ed25519PublicKey.from_public_bytes(company.service.bundle_key)
    key.verify(signed.signature, CONTEXT + signed.document)
    with pytest.raises(InvalidSignature):
        key.verify(signed.signature, signed.document)


def test_the_number_rises_with_every_change_of_policy_or_people(company):
    def number():
        return company.service.bundles.current.signed.number

    assert number() == 1
    company.add_user("li", "sales")
    assert number() == 2
    company.change(lambda change: company.service.people.set_active(change, "li", False, "admin"))
    assert number() == 3
    company.change(lambda change: company.service.people.set_active(change, "li", False, "admin"))
    assert number() == 3
    assert upload(company) == 4
    assert company.pushed == [("bundle", "")] * 3


def test_people_are_in_the_bundle(company):
    company.add_user("li", "sales")
    (person,) = company.service.bundles.current.bundle.people
    assert (person.name, person.active, person.departments) == ("li", True, {"sales"})


def test_a_bundle_survives_a_restart(company):
    company.add_user("li", "sales")
    current = company.service.bundles.current
    with company.store.read() as rows:
        again = Bundles(rows, company.service.labels, Ed25519PrivateKey.generate(), company.service.company)
    assert again.current.signed == current.signed
    assert msgspec.json.decode(current.signed.document)["number"] == again.current.bundle.number


def test_a_label_keeps_its_id_and_takes_it_along(company):
    before = company.label("sales/clients")
    upload(company)
    assert company.label("sales/clients") == before
    renamed = POLICY["sales.yaml"].replace("name: clients,", "name: customers, was: sales/clients,")
    upload(company, sales_yaml=renamed.replace("labels: [clients", "labels: [customers"))
    assert company.label("sales/customers") == before
    assert "label-renamed" in company.events()
    assert company.service.labels.newest(before)[0] == 1


def test_a_label_that_has_keys_is_not_dropped(company):
    without = (
        POLICY["sales.yaml"].replace("name: offers", "name: others").replace("contracts, offers", "contracts, others")
    )
    with pytest.raises(PolicyError, match="sales/offers"):
        upload(company, sales_yaml=without)
    assert company.service.bundles.current.signed.number == 1


def test_a_broken_policy_names_the_place(company):
    with pytest.raises(PolicyError, match=r"sales.yaml:\d+:\d+: "):
        upload(company, sales_yaml=POLICY["sales.yaml"].replace("view:", "vieww:"))


def test_names_of_people(company):
    company.add_user("li", "sales")
    with pytest.raises(Conflict):
        company.add_user("li")
    for name in ("", "a b", "@sales", "any\n", "service:", "../x"):
        with pytest.raises(Malformed):
            company.add_user(name)
    with pytest.raises(Malformed):
        company.add_user("dana", "a b")
    with pytest.raises(NotFound):
        company.change(lambda change: company.service.people.set_active(change, "dana", True, "admin"))
