from fsdriver.commands.status import _rows

FACTS = {
    "drive": "/drive",
    "store": "/store",
    "shared_with": [],
    "company": "Demo",
    "machine": "m1",
    "mode": "root",
    "note": "",
    "transport": "/dev/fuse",
    "server": {"url": "https://s", "state": "connected", "problem": ""},
    "policy": 3,
    "leases": [],
    "spool": {"waiting": 0, "problem": ""},
    "clock_rolled_back": False,
    "log_problem": "",
    "holders": {},
}


def test_what_needs_somebody_has_a_line_of_its_own():
    assert {"log", "clock", "shared"}.isdisjoint(dict(_rows(FACTS)))
    rows = dict(_rows(FACTS | {"log_problem": "the log was cut back", "clock_rolled_back": True}))
    assert rows["log"] == "the log was cut back"
    assert rows["clock"].startswith("was turned back")


def test_other_machines_are_named():
    rows = dict(_rows(FACTS | {"shared_with": ["m2", "m3"]}))
    assert rows["shared"] == "the store is mounted by m2, m3 as well"
