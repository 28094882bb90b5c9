import dataclasses
import json
import math

import pytest

from policy import Action, Bundle, Label, PolicyError, ProgramFacts, View, load, preview_label_ids
from tests.policy.samples import BACKUP, CAT, DANA, GONE, LI, MONDAY_NOON, SALES, SATURDAY_NOON, SOFFICE, bundle

ALL = frozenset(Action)


@pytest.fixture(scope="module")
def sales() -> Bundle:
    return bundle()


@pytest.fixture(scope="module")
def clients(sales: Bundle) -> Label:
    return sales.label_for("/sales/clients/a.docx")


def test_a_listed_program_of_a_member_sees_plaintext(sales, clients):
    standing = sales.standing("li", SOFFICE, clients, MONDAY_NOON)
    assert (standing.view, standing.allow) == (View.PLAINTEXT, ALL)
    assert (standing.because, standing.rule) == ("office-edits-clients", "sales/office-edits-clients")
    assert standing.until == MONDAY_NOON + 8 * 3600


def test_without_a_rule_one_reads_ciphertext_and_keeps_what_a_rule_lets_one_rename_and_delete(sales, clients):
    standing = sales.standing("li", CAT, clients, MONDAY_NOON)
    assert (standing.view, standing.because) == (View.CIPHERTEXT, "default")
    assert standing.allow == {Action.READ, Action.CREATE, Action.RENAME, Action.DELETE}
    assert standing.until == MONDAY_NOON + 8 * 3600


@pytest.mark.parametrize("person", ["dana", "gone", "stranger", "@sales", "any", None])
def test_whom_no_rule_names_reads_ciphertext_only(sales, clients, person):
    standing = sales.standing(person, SOFFICE, clients, MONDAY_NOON)
    assert (standing.view, standing.allow, standing.until) == (View.CIPHERTEXT, {Action.READ}, math.inf)


def test_outside_the_hours_the_rule_does_not_match(sales, clients):
    standing = sales.standing("li", SOFFICE, clients, SATURDAY_NOON)
    assert (standing.view, standing.allow) == (View.CIPHERTEXT, {Action.READ})
    assert standing.until == MONDAY_NOON + 7 * 86_400 - 4 * 3600


def test_an_hour_that_ends_is_not_remembered(sales, clients):
    end = MONDAY_NOON + 8 * 3600
    assert sales.standing("li", SOFFICE, clients, end - 1).view is View.PLAINTEXT
    assert sales.standing("li", SOFFICE, clients, end).view is View.CIPHERTEXT
    assert sales.standing("li", SOFFICE, clients, end - 1).view is View.PLAINTEXT


def test_no_time_means_that_every_hour_holds(sales, clients):
    assert sales.standing("li", SOFFICE, clients, None).view is View.PLAINTEXT


def test_a_label_that_hides_itself_shows_nothing(sales):
    label = sales.label_for("/sales/contracts/1.odt")
    standing = sales.standing("li", SOFFICE, label, MONDAY_NOON)
    assert (standing.view, standing.allow) == (View.NONE, frozenset())


def test_any_program_is_every_program_and_none(sales, clients):
    for program in (CAT, SOFFICE, None):
        decision = sales.decide("service:backup", program, clients, Action.READ, MONDAY_NOON)
        assert (decision.allowed, decision.view, decision.because) == (True, View.CIPHERTEXT, "backup")
        assert not sales.decide("service:backup", program, clients, Action.DELETE, MONDAY_NOON).allowed


def test_rules_that_show_plaintext_do_not_count_where_none_may_be_seen(sales, clients):
    whole = sales.standing("li", SOFFICE, clients, MONDAY_NOON)
    barred = sales.standing("li", SOFFICE, clients, MONDAY_NOON, plaintext=False)
    assert (whole.view, barred.view) == (View.PLAINTEXT, View.CIPHERTEXT)
    assert barred == sales.standing("li", CAT, clients, MONDAY_NOON)
    for program in (CAT, None):
        backup = sales.standing("service:backup", program, clients, MONDAY_NOON, plaintext=False)
        assert (backup.view, backup.because) == (View.CIPHERTEXT, "backup")


def test_any_user_is_a_person_not_a_service_nor_nobody():
    text = SALES.replace('users: ["@sales"]', "users: any")
    everyone = bundle(text)
    label = everyone.label_for("/sales/clients/a")
    views = {
        person: everyone.standing(person, SOFFICE, label, MONDAY_NOON).because
        for person in (LI.name, DANA.name, GONE.name, BACKUP.name, None)
    }
    rule = "office-edits-clients"
    assert views == {"li": rule, "dana": rule, "gone": "default", "service:backup": "backup", None: "default"}


@pytest.mark.parametrize(
    "changed",
    [
        {"path": "/tmp/soffice.bin"},
        {"packages": frozenset({"coreutils"})},
        {"packages": frozenset()},
        {"clean": False},
    ],
)
def test_a_program_that_differs_from_its_entry_is_unlisted(sales, clients, changed):
    program = dataclasses.replace(SOFFICE, **changed)
    assert sales.standing("li", program, clients, MONDAY_NOON).because == "default"


def test_anonymous_executable_pages_need_an_entry_that_allows_them():
    text = SALES.replace(", jit: true", "")
    strict = bundle(text)
    label = strict.label_for("/sales/clients/a")
    assert strict.standing("li", SOFFICE, label, MONDAY_NOON).because == "default"
    still = dataclasses.replace(SOFFICE, jit=False)
    assert strict.standing("li", still, label, MONDAY_NOON).because == "office-edits-clients"


def test_a_digest_must_be_one_of_the_listed():
    text = SALES.replace("programs: [office]", "programs: [archive]")
    archive = bundle(text)
    label = archive.label_for("/sales/clients/a")
    good = ProgramFacts("/usr/bin/tar", sha256="9f" * 32, clean=True)
    bad = ProgramFacts("/usr/bin/tar", sha256="9e" * 32, packages=frozenset({"tar"}), clean=True)
    assert archive.standing("li", good, label, MONDAY_NOON).view is View.PLAINTEXT
    assert archive.standing("li", bad, label, MONDAY_NOON).view is View.CIPHERTEXT


def test_a_script_counts_only_when_it_was_seen_and_is_the_listed_one():
    entry = "- {path: /usr/bin/python3.11, package: python3.11-minimal, script: /opt/report.py, script-sha256: %s}" % (
        "ab" * 32
    )
    text = SALES.replace("- {path: /usr/bin/tar, sha256: [%s]}" % ("9f" * 32), entry)
    scripts = bundle(text.replace("programs: [office]", "programs: [archive]"))
    label = scripts.label_for("/sales/clients/a")
    python = ProgramFacts("/usr/bin/python3.11", packages=frozenset({"python3.11-minimal"}), clean=True)
    report = dataclasses.replace(python, script="/opt/report.py", script_sha256="ab" * 32)
    changed = dataclasses.replace(report, script_sha256="ac" * 32)
    assert [scripts.standing("li", each, label, MONDAY_NOON).view for each in (python, report, changed)] == [
        View.CIPHERTEXT,
        View.PLAINTEXT,
        View.CIPHERTEXT,
    ]


def test_the_deepest_folder_gives_the_label_and_the_default_the_rest(sales):
    names = [
        sales.label_for(path).qualified
        for path in ("/sales/clients", "/sales/clients/x", "/x", "/sales/contracts/a/b/c")
    ]
    assert names == ["company/internal", "sales/clients", "company/internal", "sales/contracts"]
    assert sales.default_label.qualified == "company/internal"


def test_labels_are_found_by_the_id_in_a_header(sales, clients):
    assert sales.label_by_id(clients.id) is clients
    assert sales.label_by_id(bytes(16)) is None


def test_secret_sets_what_it_says(sales):
    label = sales.label_for("/sales/contracts/x")
    assert label.per_file
    assert label.root_only
    assert label.wait_fsync
    assert (label.lease, label.offline, label.recheck, label.save_lower) == (0.0, 0.0, "read", "raise")
    assert (label.level.rank, sales.label_for("/sales/clients/x").level.rank) == (2, 1)


def test_keys_are_lent_while_a_rule_shows_plaintext_and_through_its_grace(sales, clients):
    end = MONDAY_NOON + 8 * 3600
    assert sales.entitled_labels(["li"], MONDAY_NOON) == {clients.id}
    assert sales.entitled_labels(["dana", "li"], end + 14 * 60) == {clients.id}
    assert sales.entitled_labels(["li"], end + 16 * 60) == set()
    assert sales.entitled_labels(["service:backup", "gone", "stranger", "dana"], MONDAY_NOON) == set()


def test_keys_of_secret_labels_are_never_lent():
    text = SALES.replace("labels: [clients]\n", "labels: [clients, contracts]\n")
    both = bundle(text)
    label = both.label_for("/sales/contracts/x")
    assert both.standing("li", SOFFICE, label, MONDAY_NOON).view is View.PLAINTEXT
    assert label.id not in both.entitled_labels(["li"], MONDAY_NOON)


def test_programs_lists_every_entry(sales):
    assert sorted(entry.path for entry in sales.programs) == [
        "/usr/bin/tar",
        "/usr/lib/libreoffice/program/soffice.bin",
    ]


def test_a_document_survives_json_and_equal_bundles_give_equal_documents(sales, clients):
    text = json.dumps(sales.to_document(), sort_keys=True)
    again = Bundle.from_document(json.loads(text))
    assert json.dumps(again.to_document(), sort_keys=True) == text
    assert json.dumps(bundle(SALES, *reversed(sales.people)).to_document(), sort_keys=True) == text
    assert again.standing("li", SOFFICE, clients, MONDAY_NOON) == sales.standing("li", SOFFICE, clients, MONDAY_NOON)
    assert (again.number, again.company, again.labels) == (7, "c0" * 16, sales.labels)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["format"], 2),
        (["number"], "7"),
        (["default"], "sales/nothing"),
        (["unknown"], 1),
        (["labels", 0, "id"], "AAAA"),
        (["labels", 0, "colour"], "red"),
        (["labels", 1, "folders"], ["/sales/**/x"]),
        (["labels", 1, "folders"], ["/sales/contracts/**"]),
        (["labels", 1, "unlisted"], "plaintext"),
        (["labels", 1, "name"], "contracts"),
        (["labels", 1, "lease"], float("nan")),
        (["rules", 0, "labels"], ["sales/nothing"]),
        (["rules", 0, "labels"], ["company/internal"]),
        (["rules", 0, "programs"], ["sales/nothing"]),
        (["rules", 0, "when", "zone"], "Mars/Olympus"),
        (["rules", 0, "when", "zone"], "../../etc/passwd"),
        (["rules", 0, "when", "days"], [7]),
        (["rules", 0, "when", "hours"], [[0, 0]]),
        (["rules", 0, "allow"], ["write", "read"]),
        (["rules", 1, "name"], "office-edits-clients"),
        (["programs", 0, "name"], "sales/office"),
        (["programs", 0, "entries", 0, "packages"], ["tar"]),
        (["people", 0, "name"], "li"),
        (["people", 0, "name"], "any"),
    ],
)
def test_a_document_that_was_not_written_by_us_is_refused(sales, path, value):
    document = json.loads(json.dumps(sales.to_document()))
    target = document
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(PolicyError):
        Bundle.from_document(document)


@pytest.mark.parametrize("obj", [None, 1, [], {}, "x", {"format": 1}])
def test_what_is_no_document_is_refused(obj):
    with pytest.raises(PolicyError, match="not a bundle of format 1"):
        Bundle.from_document(obj)


def test_a_label_without_an_id_is_refused_where_it_stands():
    policy = load({"sales.yaml": SALES})
    ids = preview_label_ids(policy)
    del ids["sales/clients"]
    with pytest.raises(PolicyError, match=r"^sales\.yaml:8:12: the label sales/clients has no id$"):
        Bundle.build(policy, number=1, company="", label_ids=ids, people=[])


def test_two_people_of_one_name_are_refused():
    with pytest.raises(PolicyError, match="people need names of their own"):
        bundle(SALES, LI, LI)
