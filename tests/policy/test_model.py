"""The compiled decision against a slow one that reads the rules as a person would."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from policy import Action, Bundle, Person, ProgramFacts, load, preview_label_ids
from policy.hours import DAYS, When
from tests.policy.strategies import as_files, asks, people, policies
from tests.policy.test_hours import obvious


def is_entry(entry: dict[str, Any], program: ProgramFacts) -> bool:
    known = set(entry["package"]) & program.packages if "package" in entry else program.sha256 in entry["sha256"]
    pages = entry.get("jit", False) or not program.jit
    script = entry.get("script") in (None, program.script)
    return bool(program.clean and entry["path"] == program.path and known and pages and script)


def names_user(rule: dict[str, Any], person: Person | None) -> bool:
    if person is None or not person.active:
        return False
    for user in [rule["users"]] if rule["users"] == "any" else rule["users"]:
        if user == person.name or (user == "any" and not person.name.startswith("service:")):
            return True
        is_member = user.startswith("@") and user[1:] in person.departments | person.groups
        if is_member and not person.name.startswith("service:"):
            return True
    return False


def names_program(said: dict[str, Any], department: str, rule: dict[str, Any], program: ProgramFacts | None) -> bool:
    if rule["programs"] == "any":
        return True
    lists = {**said["company"]["programs"], **said[department]["programs"]}
    return program is not None and any(is_entry(entry, program) for name in rule["programs"] for entry in lists[name])


def holds(rule: dict[str, Any], now: float) -> bool:
    if "when" not in rule:
        return True
    said = rule["when"]
    spans = []
    for span in said.get("hours", ()):
        start, end = (int(part[:2]) * 60 + int(part[3:]) for part in span.split("-"))
        spans.append((start, end or 1440))
    days = () if said["days"] == "mon-sun" else tuple(DAYS.index(day) for day in said["days"])
    return obvious(When(days, tuple(spans), said["zone"]), now)


def slow_decision(
    said: dict[str, Any], everyone: tuple[Person, ...], person: str | None, program: ProgramFacts | None,
    department: str, name: str, now: float,
) -> tuple[str, frozenset[str], str]:  # fmt: skip
    who = next((each for each in everyone if each.name == person), None)
    label = next(each for each in said[department]["labels"] if each["name"] == name)
    rules = [rule for rule in said[department]["rules"] if name in rule["labels"]]
    mine = [rule for rule in rules if names_user(rule, who) and holds(rule, now)]
    for rule in mine:
        if names_program(said, department, rule, program):
            return rule["view"], frozenset(rule["allow"]), rule["name"]
    allow = {"read"} if label["unlisted"] != "none" else set()
    for rule in mine:
        allow |= set(rule["allow"]) & {"create", "rename", "delete"}
    return label["unlisted"], frozenset(allow), "default"


@settings(max_examples=60, deadline=None)
@given(policies(), people, st.lists(asks, min_size=1, max_size=8))
def test_a_decision_is_what_a_reader_of_the_rules_would_say(said, everyone, questions):
    policy = load(as_files(said))
    bundle = Bundle.build(policy, number=1, company="", label_ids=preview_label_ids(policy), people=everyone)
    for person, program, department, name, now in questions * 2:
        label = bundle.label_for(f"/{department}/{name}/file")
        expected = slow_decision(said, everyone, person, program, department, name, now)
        standing = bundle.standing(person, program, label, now)
        assert (standing.view, standing.allow, standing.because) == expected
        for action in Action:
            assert bundle.decide(person, program, label, action, now).allowed is (action in expected[1])
        just_before = min(standing.until - 0.001, now + 9 * 86_400)
        later = slow_decision(said, everyone, person, program, department, name, just_before)
        assert just_before < now or later == expected


@settings(max_examples=40, deadline=None)
@given(policies(), people)
def test_a_bundle_is_what_its_document_says(said, everyone):
    policy = load(as_files(said))
    bundle = Bundle.build(policy, number=1, company="", label_ids=preview_label_ids(policy), people=everyone)
    document = bundle.to_document()
    assert Bundle.from_document(json.loads(json.dumps(document))).to_document() == document


@settings(max_examples=30, deadline=None)
@given(policies(), people, asks, st.data())
def test_a_rule_at_the_end_never_takes_a_right_away(said, everyone, question, data):
    person, program, department, name, now = question
    rules = said[department]["rules"]
    longer = {**said, department: {**said[department], "rules": [*rules, {**data.draw(extra_rules), "name": "last"}]}}
    before, after = (slow_decision(each, everyone, person, program, department, name, now) for each in (said, longer))
    policy = load(as_files(longer))
    bundle = Bundle.build(policy, number=1, company="", label_ids=preview_label_ids(policy), people=everyone)
    label = bundle.label_for(f"/{department}/{name}/file")
    standing = bundle.standing(person, program, label, now)
    assert (standing.view, standing.allow, standing.because) == after
    assert after[2] == before[2] or (before[2], after[2]) == ("default", "last")


extra_rules = st.fixed_dictionaries(
    {
        "users": st.just("any"),
        "programs": st.just("any"),
        "labels": st.just(["one", "two"]),
        "allow": st.just(["read"]),
        "view": st.just("ciphertext"),
    }
)


@settings(max_examples=20, deadline=None)
@given(policies(), people)
def test_keys_are_lent_exactly_where_someone_may_see_plaintext(said, everyone):
    policy = load(as_files(said))
    bundle = Bundle.build(policy, number=1, company="", label_ids=preview_label_ids(policy), people=everyone)
    now = 1_772_424_000.0
    entitled = bundle.entitled_labels([person.name for person in everyone], now)
    for department in ("sales", "design"):
        for name in ("one", "two"):
            label = bundle.label_for(f"/{department}/{name}/file")
            wanted = not label.per_file and any(
                rule["view"] == "plaintext" and rule["allow"] and names_user(rule, person)
                and any(holds(rule, now - ago) for ago in range(0, int(label.grace) + 1, 60))
                for rule in said[department]["rules"] if name in rule["labels"] for person in everyone
            )  # fmt: skip
            assert (label.id in entitled) is wanted
