import pytest

from policy import PolicyError, assign_label_ids, load
from tests.policy.samples import SALES

IDS = {"company/internal": b"i" * 16, "sales/clients": b"c" * 16, "sales/contracts": b"t" * 16}


def new_id() -> bytes:
    return b"new" + bytes(13)


def test_labels_keep_their_ids_and_new_ones_get_new_ones():
    policy = load({"sales.yaml": SALES})
    assert assign_label_ids(policy, IDS, new_id) == IDS
    known = {name: id_ for name, id_ in IDS.items() if name != "sales/clients"}
    assert assign_label_ids(policy, known, new_id)["sales/clients"] == new_id()


def test_a_renamed_label_takes_its_id_along_and_may_go_on_saying_so():
    policy = load({"sales.yaml": SALES.replace("clients", "customers").replace("lease: 15m", "was: clients")})
    ids = assign_label_ids(policy, IDS, new_id)
    assert ids["sales/customers"] == IDS["sales/clients"]
    assert assign_label_ids(policy, ids, new_id) == ids


def test_a_label_that_is_gone_is_refused():
    policy = load({"sales.yaml": SALES.replace("clients", "customers")})
    with pytest.raises(PolicyError, match="the label sales/clients is gone, expected it with `retired: true`"):
        assign_label_ids(policy, IDS, new_id)


def test_two_labels_do_not_become_one():
    policy = load({"sales.yaml": SALES.replace("clients", "customers").replace("lease: 15m", "was: clients")})
    with pytest.raises(PolicyError, match=r"sales\.yaml:8:12: found was: sales/clients, expected none"):
        assign_label_ids(policy, {**IDS, "sales/customers": b"x" * 16}, new_id)


def test_a_retired_label_stays_and_takes_no_folders():
    text = SALES.replace("folders: [/sales/clients/**],   level: confidential", "retired: true, level: confidential")
    policy = load({"sales.yaml": text})
    assert assign_label_ids(policy, IDS, new_id) == IDS
    assert policy.labels[1].retired
    assert policy.labels[1].folders == ()
