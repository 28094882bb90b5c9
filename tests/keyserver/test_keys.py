import pytest

from keyserver.errors import Denied, Malformed, NotFound, NotReady
from keyserver.keys.files import WrapPlace, unwrap, wrap
from keyserver.keys.labels import LabelKeys
from keyserver.keys.root import RootKey, WrapBroken, create_root_key, load_root_key
from keyserver.sealing import SecretKey
from keyserver.secret_store import SecretSettings, open_store

COMPANY = "0c" * 16
PLACE = WrapPlace("0f" * 16, COMPANY, "0a" * 16, "0d" * 16, 3)


def test_what_is_wrapped_opens_for_its_own_purpose_only():
    key = SecretKey.generate()
    root = RootKey(key, COMPANY)
    wrapped = root.wrap(b"secret", "one")
    assert root.unwrap(wrapped, "one") == b"secret"
    assert root.wrap(b"secret", "one") != wrapped
    for other, purpose, data in (
        (root, "two", wrapped),
        (RootKey(key, "0b" * 16), "one", wrapped),
        (RootKey(SecretKey.generate(), COMPANY), "one", wrapped),
        (root, "one", wrapped[:-1]),
        (root, "one", b"\x02" + wrapped[1:]),
        (root, "one", b""),
    ):
        with pytest.raises(WrapBroken):
            other.unwrap(data, purpose)


def test_the_root_key_is_made_once(tmp_path):
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("open sesame")
    passphrase.chmod(0o600)
    home = tmp_path / "home"
    home.mkdir()
    settings = SecretSettings("sealed-file", f"file:{passphrase}")
    store = open_store(settings, home=home, service="keyserver")
    with pytest.raises(NotReady, match="cannot be read"):
        load_root_key(store, COMPANY)
    wrapped = create_root_key(store, COMPANY).wrap(b"x", "p")
    with pytest.raises(NotReady, match="never replaced"):
        create_root_key(store, COMPANY)
    assert load_root_key(open_store(settings, home=home, service="keyserver"), COMPANY).unwrap(wrapped, "p") == b"x"
    passphrase.write_text("another")
    with pytest.raises(NotReady, match="wrong passphrase"):
        load_root_key(open_store(settings, home=home, service="keyserver"), COMPANY)


def test_a_file_key_opens_in_its_own_place_only():
    file_key, label_key = SecretKey.generate(), SecretKey.generate()
    wrapped, zero = wrap(file_key, label_key, PLACE), "00" * 16
    assert unwrap(wrapped, label_key, PLACE) == file_key
    others = [PLACE._replace(file=zero), PLACE._replace(company=zero), PLACE._replace(label=zero)]
    for place in (*others, PLACE._replace(key_id=zero), PLACE._replace(version=4)):
        with pytest.raises(Denied):
            unwrap(wrapped, label_key, place)
    with pytest.raises(Malformed):
        unwrap(wrapped[:-1], label_key, PLACE)
    for bad in (PLACE._replace(file="zz"), PLACE._replace(file="00"), PLACE._replace(version=0)):
        with pytest.raises(Malformed):
            unwrap(wrapped, label_key, bad)


def test_a_wrapped_file_key_is_what_a_sealed_files_slot_holds():
    wraps = pytest.importorskip("fsdriver.content.wraps")
    file_key, label_key = SecretKey.generate(), SecretKey.generate()
    ids = [bytes.fromhex(each) for each in PLACE[:4]]
    slot = wraps.WrapSlot(wraps.WrapAlgorithm.LABEL_KEY, ids[3], PLACE.version, wrap(file_key, label_key, PLACE))
    opened = wraps.unwrap(slot, bytes(label_key), file_id=ids[0], company=ids[1], label=ids[2])
    assert opened.secret == bytes(file_key)


def test_label_keys_survive_a_restart(company):
    label = company.label("sales/clients")
    company.change(lambda change: company.service.labels.rotate(change, label, "admin"))
    with company.store.read() as rows:
        again = LabelKeys(company.founded.root, rows)
    assert again.versions(label) == company.service.labels.versions(label)
    assert again.newest(label)[0] == 2
    assert again.labels == company.service.labels.labels


def test_every_label_of_the_policy_has_an_id_and_a_key_of_its_own(company):
    labels = list(company.service.labels.labels.values())
    assert [row.qualified for row in labels] == [
        "company/internal",
        "sales/clients",
        "sales/contracts",
        "sales/offers",
    ]
    assert len({row.id for row in labels} | {row.key_id for row in labels}) == 8
    assert len({bytes(company.service.labels.newest(row.id)[1]) for row in labels}) == 4


def test_unknown_labels_are_not_found(company):
    with pytest.raises(NotFound):
        company.change(lambda change: company.service.labels.rotate(change, "0" * 32, "admin"))
