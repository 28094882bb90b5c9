"""Policies, people and questions for property tests. A policy is drawn as plain data, the way a YAML file says it."""

from typing import Any

import yaml
from hypothesis import strategies as st

from policy import Action, Person, ProgramFacts, View
from policy.hours import DAYS, When

ZONES = ("UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
DEPARTMENTS = ("sales", "design")
GROUPS = ("management", "auditors")
PERSONS = ("li", "dana", "service:backup")
PROGRAMS = ("office", "viewer", "shared")
PATHS = ("/usr/bin/a", "/usr/bin/b", "/usr/bin/c")
LABELS = ("one", "two")
DIGESTS = ("00" * 32, "11" * 32)
PACKAGES = ("alpha", "beta")

instants = st.one_of(
    st.floats(1_700_000_000, 1_800_000_000),
    st.integers(1_700_000_000 // 60, 1_800_000_000 // 60).map(lambda minute: minute * 60.0),
)
_minutes = st.tuples(st.integers(0, 1439), st.integers(0, 1440)).filter(lambda span: span[0] != span[1])
whens = st.builds(
    When,
    st.sets(st.integers(0, 6)).map(lambda days: tuple(sorted(days))),
    st.lists(_minutes, max_size=3).map(tuple),
    st.sampled_from(ZONES),
)


def _subset(names: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), min_size=1, unique=True)


def _said(when: When) -> dict[str, Any]:
    said: dict[str, Any] = {"zone": when.zone, "days": [DAYS[day] for day in when.days] or "mon-sun"}
    if when.hours:
        said["hours"] = [f"{a // 60:02}:{a % 60:02}-{b // 60:02}:{b % 60:02}" for a, b in when.hours]
    return said


_entries = st.fixed_dictionaries(
    {"path": st.sampled_from(PATHS)}, optional={"jit": st.booleans(), "script": st.just("/opt/s.py")}
).flatmap(
    lambda entry: st.one_of(
        st.builds(lambda names: {**entry, "package": names}, _subset(PACKAGES)),
        st.builds(lambda names: {**entry, "sha256": names}, _subset(DIGESTS)),
    )
)
_users = st.one_of(
    st.just("any"),
    _subset((*PERSONS, *(f"@{name}" for name in DEPARTMENTS + GROUPS))),
)
_views = st.sampled_from([view.value for view in View])


@st.composite
def _rules(draw: st.DrawFn) -> dict[str, Any]:
    view = draw(_views)
    actions = [action.value for action in Action if view != "none" or action not in (Action.READ, Action.WRITE)]
    rule: dict[str, Any] = {
        "users": draw(_users),
        "programs": draw(st.one_of(st.just("any"), _subset(PROGRAMS))),
        "labels": draw(_subset(LABELS)),
        "allow": draw(st.lists(st.sampled_from(actions), unique=True)),
        "view": view,
    }
    if draw(st.booleans()):
        rule["when"] = _said(draw(whens))
    return rule


@st.composite
def policies(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Department to what its file says; `company` is among them."""
    said: dict[str, dict[str, Any]] = {
        "company": {"company": "Sample", "programs": {"shared": draw(st.lists(_entries, min_size=1, max_size=2))}}
    }
    for department in DEPARTMENTS:
        said[department] = {
            "department": department,
            "programs": {name: draw(st.lists(_entries, min_size=1, max_size=2)) for name in PROGRAMS[:2]},
            "labels": [
                {
                    "name": name,
                    "folders": [f"/{department}/{name}/**"],
                    "level": draw(st.sampled_from(["internal", "confidential", "secret"])),
                    "unlisted": draw(st.sampled_from(["ciphertext", "none"])),
                }
                for name in LABELS
            ],
            "rules": [
                {"name": f"r{number}", **rule} for number, rule in enumerate(draw(st.lists(_rules(), max_size=5)))
            ],
        }
    return said


def as_files(said: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What `load` takes."""
    return {f"{name}.yaml": yaml.safe_dump(content, sort_keys=False) for name, content in said.items()}


people = st.tuples(
    *(
        st.builds(
            Person,
            st.just(name),
            st.booleans(),
            st.frozensets(st.sampled_from(DEPARTMENTS)),
            st.frozensets(st.sampled_from(GROUPS)),
        )
        for name in PERSONS
    )
)
facts = st.one_of(
    st.none(),
    st.builds(
        ProgramFacts,
        st.sampled_from(PATHS),
        st.sampled_from(DIGESTS),
        st.frozensets(st.sampled_from(PACKAGES)),
        st.sampled_from(["", "/opt/s.py"]),
        st.just(""),
        st.sampled_from([True, True, True, False]),
        st.booleans(),
    ),
)
asks = st.tuples(
    st.sampled_from([*PERSONS, None]), facts, st.sampled_from(DEPARTMENTS), st.sampled_from(LABELS), instants
)
