"""The language: what is read, and what is refused with which words at which place."""

import re

import pytest

from policy import Action, Level, PolicyError, View, load
from policy.hours import When
from tests.policy.samples import SALES, bundle

COMPANY = "company: Sample\nzone: Asia/Shanghai\ndefault: public\nlabels:\n  - {name: public, level: internal}\n"


def problems(text: str, **more: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load({"sales.yaml": text, **{f"{name}.yaml": each for name, each in more.items()}})
    return str(caught.value).splitlines()


def test_the_example_of_the_design_is_read():
    policy = load({"sales.yaml": SALES})
    assert policy.departments == ("sales",)
    assert [label.qualified for label in policy.labels] == ["company/internal", "sales/clients", "sales/contracts"]
    clients, contracts = policy.labels[1:]
    assert (clients.level, clients.lease, clients.offline, clients.unlisted) == (
        Level.CONFIDENTIAL,
        900,
        28_800,
        View.CIPHERTEXT,
    )
    assert contracts.unlisted is View.NONE
    edits, backup = policy.rules
    assert (edits.users, edits.programs, edits.labels) == (("@sales",), ("sales/office",), ("sales/clients",))
    assert edits.when == When((0, 1, 2, 3, 4), ((480, 1200),), "Asia/Shanghai")
    assert (backup.programs, backup.allow, backup.view) == (None, frozenset({Action.READ}), View.CIPHERTEXT)
    assert policy.programs[1].entries[0].jit
    assert policy.cases[0].departments == {"sales"}


def test_the_company_shares_programs_zone_and_default():
    company = COMPANY + "programs: {viewer: [{path: /usr/bin/head, package: coreutils}]}\n"
    text = SALES.replace("programs: [office]", "programs: [office, viewer]").replace(", zone: Asia/Shanghai", "")
    policy = load({"b.yaml": company, "a.yaml": text})
    assert policy.company == "Sample"
    assert policy.default == "company/public"
    edits = policy.rules[0]
    assert edits.programs == ("sales/office", "company/viewer")
    assert edits.when is not None
    assert edits.when.zone == "Asia/Shanghai"


def test_all_problems_are_reported_at_once_in_reading_order():
    found = problems(
        SALES.replace("confidential", "confidental").replace("view: plaintext", "view: plain").replace("15m", "15")
    )
    assert found == [
        "sales.yaml:8:62: found 'confidental', expected a level (internal, confidential, secret); "
        "did you mean 'confidential'?",
        "sales.yaml:8:82: found '15', expected a lease, a whole number with its unit s, m, h or d, like 15m",
        "sales.yaml:16:11: found 'plain', expected a view (plaintext, ciphertext, none); did you mean 'plaintext'?",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("department: sales", "departement: sales", "1:1: found the key 'departement', expected one of department, "
         "programs, labels, rules, cases; did you mean 'department'?"),
        ("department: sales", "department: 'sal es'", "1:13: found 'sal es', expected a department's name: letters, "
         "digits, '.', '_', '-', at most 63, a letter or digit first"),
        ("department: sales", "department: on", "1:13: found on, which YAML reads as true or false, expected "
         "a department's name: quote it"),
        ("department: sales", "department: &a sales", "1:13: found the anchor &a, expected none: nothing may be "
         "repeated by reference"),
        ("department: sales", "department: !!str sales", "1:13: found the tag tag:yaml.org,2002:str, expected none: "
         "types follow from the key"),
        ("department: sales", "department:", "1:12: found nothing, expected a department's name"),
        ("department: sales", "department: []", "1:13: found an empty list, expected a department's name"),
        ("jit: true", "jit: yes", "4:114: found 'yes', expected true or false"),
        ("jit: true", "jot: true", "4:109: found the key 'jot', expected one of path, package, sha256, script, "
         "script-sha256, jit; did you mean 'jit'?"),
        ("/usr/bin/tar", "usr/bin/tar", "6:14: found 'usr/bin/tar', expected an absolute path"),
        ("/usr/bin/tar", "/usr/bin/../tar", "6:14: found '/usr/bin/../tar', expected an absolute path"),
        ("9f9f9f", "9F9F9F", "6:37: found '9F9F9F9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f', expected "
         "a SHA-256: 64 lower-case hex digits"),
        ("name: clients,  ", "name: clients, lable: x,", "8:21: found the key 'lable', expected one of name, folders, "
         "level, lease, offline, unlisted, recheck, save-lower, rollback, grace, machines, wait-fsync, was, retired"),
        ("/sales/clients/**", "/sales/clients", "8:33: found '/sales/clients', expected a folder of the drive and all "
         "below it, written like /sales/clients/**"),
        ("/sales/clients/**", "/sales/c*/**", "8:33: found '/sales/c*/**', expected plain folder names; * stands for "
         "one whole name, ** for everything at the end"),
        ("/sales/clients/**", "/sales/../**", "8:33: found '/sales/../**', expected folder names between the slashes, "
         "not '..'"),
        ("/sales/clients/**", "/sales/contracts/**", "9:33: found '/sales/contracts/**' a second time, expected one "
         "label (first in sales.yaml:8)"),
        ("lease: 15m", "lease: 15", "8:83: found '15', expected a lease, a whole number with its unit s, m, h or d, "
         "like 15m"),
        ("lease: 15m", "lease: 1.5h", "8:83: found '1.5h', expected a lease, a whole number with its unit"),
        ("lease: 15m", "lease: 0", "8:83: found '0', expected a lease from 1s to 7d"),
        ("lease: 15m", "grace: 25h", "8:83: found '25h', expected a grace from 0s to 1d"),
        ("lease: 15m", "recheck: always", "8:85: found 'always', expected when a caller is checked (open, read)"),
        ("unlisted: none", "unlisted: plaintext", "9:80: found 'plaintext', expected the view of unlisted programs "
         "(ciphertext, none)"),
        ("unlisted: none", "lease: 1h", "9:77: found lease on a secret label, expected none: its keys are never lent"),
        ("unlisted: none", "offline: 1h", "9:79: found '1h', expected 0 on a secret label: its keys are never lent"),
        ("unlisted: none", "retired: true", "9:32: found folders on a retired label, expected none: nothing new is "
         "born with it"),
        ("unlisted: none", "was: clients", "9:75: found was: sales/clients, which is still a label, expected a name "
         "given up"),
        ("unlisted: none", "unlisted: none, unlisted: none", "9:86: found 'unlisted' a second time, expected it once "
         "(first in line 9)"),
        ("name: office-edits-clients", "name: default", "11:11: found 'default', expected another name: it says that "
         "no rule matched"),
        ("name: backup", "name: office-edits-clients", "18:12: found the rule 'office-edits-clients' a second time, "
         "expected each name once in a department"),
        ('users: ["@sales"]', "users: []", "12:12: found an empty list, expected at least one of the users"),
        ('users: ["@sales"]', "users: li", "12:12: found 'li', expected a list of users"),
        ('users: ["@sales"]', "users: ['@']", "12:13: found '@', expected a person, @group, service:NAME or any"),
        ('users: ["@sales"]', "users: [any, li]", "12:18: found 'li' beside any, expected one of them: any is every "
         "person"),
        ("programs: [office]", "programs: [ofice]", "13:16: found 'ofice', expected any, or programs named in this "
         "file (company.yaml is not among the files read); did you mean 'office'?"),
        ("programs: [office]", "programs: [office, office]", "13:24: found 'office', expected each name once"),
        ("programs: [office]", "programs: [office, any]", "13:15: found names beside any, expected one of them: any is "
         "every program"),
        ("labels: [clients]", "labels: [client]", "14:14: found 'client', expected a label of this file; "
         "did you mean 'clients'?"),
        ("labels: [clients]", "labels: [internal]", "14:14: found 'internal', expected a label of this file"),
        ("allow: [read, write", "allow: [read, wirte", "15:19: found 'wirte', expected an action (read, write, create, "
         "rename, delete); did you mean 'write'?"),
        ("allow: [read, write", "allow: [read, read", "15:19: found 'read', expected each action once"),
        ("view: plaintext", "view: none", "15:12: found 'read' with view none, expected neither read nor write: "
         "nothing is seen"),
        ("    view: plaintext\n", "", "11:5: found a rule without 'view', expected it"),
        ("days: mon-fri", "days: monday", "17:18: found 'monday', expected a day or days (mon, tue, wed, thu, fri, "
         "sat, sun), like mon-fri or [mon, wed]; did you mean 'mon'?"),
        ('"08:00-20:00"', '"8-20"', "17:34: found '8-20', expected hours like 08:00-20:00 (22:00-06:00 runs past "
         "midnight, 24:00 ends the day)"),
        ('"08:00-20:00"', "20:00", "17:34: found 20:00, which YAML reads as a number, expected hours like 08:00-20:00 "
         "(22:00-06:00 runs past midnight, 24:00 ends the day): quote it"),
        ('"08:00-20:00"', "00:00-00:00", "17:34: found '00:00-00:00', expected hours like 08:00-20:00 (22:00-06:00 "
         "runs past midnight, 24:00 ends the day)"),
        ("Asia/Shanghai", "Asia/Shanghia", "17:55: found 'Asia/Shanghia', expected a zone like Asia/Shanghai; did you "
         "mean 'Asia/Shanghai'?"),
        ("when: {days", "when: {on: x, days", "17:12: found the key 'on', expected one of days, hours, zone"),
        ("action: read}", "action: open}", "20:82: found 'open', expected an action (read, write, create, rename, "
         "delete)"),
        ("because: default", "because: office-edit-clients", "21:15: found 'office-edit-clients', expected the name "
         "of a rule, or default; did you mean 'office-edits-clients'?"),
        ("user: li", "user: '@sales'", "20:18: found '@sales', expected a person or service:NAME"),
        ("user: li", "user: li, at: 2026-03-02", "20:26: found 2026-03-02, which YAML reads as a date or special "
         "value, expected a date and time like 2026-03-02T09:00, in the company's zone unless it says Z or "
         "+08:00: quote it"),
        ("user: li", "user: li, at: 2026-13-02T10:00", "20:26: found '2026-13-02T10:00', expected a date and time "
         "like 2026-03-02T09:00, in the company's zone unless it says Z or +08:00"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_where_it_stands(old, new, message):
    assert old in SALES
    text = SALES.replace(old, new, 1)
    found = problems(text)
    assert found[0].startswith(f"sales.yaml:{message}"), found
    line, column, words = message.split(":", 2)
    if quoted := re.match(r" found (?:the key )?'([^']*)'", words):
        there = text.splitlines()[int(line) - 1][int(column) - 1 :]
        assert there.lstrip("'\"[").startswith(quoted[1])


def test_a_file_is_a_department_or_the_company():
    assert problems("labels: []\n") == ["sales.yaml:1:1: found a department's file without 'department', expected it"]
    assert problems("- a\n") == [
        "sales.yaml:1:1: found a list, expected a department's file: a mapping with 'department'"
    ]
    assert problems("") == ["sales.yaml:1:1: found an empty file, expected a department"]
    assert problems("department: company\n") == [
        "sales.yaml:1:13: found 'company', expected another name: it is company.yaml's"
    ]
    with pytest.raises(PolicyError, match="found no files, expected at least one department"):
        load({})


def test_a_department_and_the_company_come_once():
    assert problems(SALES, zz=SALES)[0] == (
        "zz.yaml:1:13: found the department 'sales', expected one file for it (the first is sales.yaml)"
    )
    assert "expected one file for it (the first is a.yaml)" in problems(SALES, a=COMPANY, b=COMPANY)[0]


def test_names_of_a_company_file_that_cannot_be_read_are_not_called_unknown():
    text = SALES.replace("programs: [office]", "programs: [viewer]")
    assert problems(text, company=COMPANY + "programs: {") == [
        "company.yaml:7:1: not YAML: while parsing a flow node, did not find expected node content"
    ]


def test_the_default_label_is_one_of_the_companys_and_in_use():
    assert problems(SALES, company=COMPANY.replace("name: public", "name: pubic")) == [
        "company.yaml:3:10: found 'public', expected a label of this file; did you mean 'pubic'?",
        "company.yaml:5:5: found a label without 'folders', expected them ([] for one that only relabel gives)",
    ]
    assert problems(SALES, company=COMPANY.replace("level: internal", "level: internal, retired: true")) == [
        "company.yaml:3:10: found a retired label as default, expected one in use"
    ]


def test_a_company_that_names_no_default_gets_an_internal_label():
    policy = load({"c.yaml": "company: Sample\n", "s.yaml": SALES})
    assert (policy.default, policy.labels[0].level, policy.labels[0].folders) == ("company/internal", "internal", ())


def test_a_department_does_not_redefine_what_the_company_shares():
    company = COMPANY + "programs: {office: [{path: /usr/bin/head, package: coreutils}]}\n"
    assert problems(SALES, company=company) == [
        "sales.yaml:3:3: found 'office', expected another name: company.yaml shares programs of this name"
    ]


def test_the_order_and_names_of_files_mean_nothing():
    other = "department: design\nlabels:\n  - {name: drafts, folders: [/design/**], level: internal}\n"
    one = load({"a.yaml": COMPANY, "b.yaml": SALES, "c.yaml": other})
    two = load({"b.yaml": COMPANY, "a.yaml": other, "c.yaml": SALES})
    assert bundle(one).to_document() == bundle(two).to_document()


def test_rules_decide_on_labels_of_their_own_department_only():
    other = "department: design\nlabels:\n  - {name: drafts, folders: [/design/**], level: internal}\n"
    assert problems(SALES.replace("labels: [clients]", "labels: [drafts]", 1), other=other) == [
        "sales.yaml:14:14: found 'drafts', expected a label of this file ('drafts' is design's: only design's rules "
        "decide on it)"
    ]


def test_folders_that_overlap_must_nest():
    text = SALES.replace("/sales/clients/**", "/*/clients/**").replace("/sales/contracts/**", "/sales/*/old/**")
    assert problems(text) == [
        "sales.yaml:9:33: found '/sales/*/old/**', which overlaps '/*/clients/**' (sales.yaml:8), expected one inside "
        "the other or apart"
    ]


def test_a_name_given_up_is_taken_over_once():
    text = SALES.replace("lease: 15m", "was: old").replace("unlisted: none", "was: sales/old")
    assert problems(text) == ["sales.yaml:9:75: found was: sales/old, which sales/clients says too, expected it once"]


def test_names_may_be_of_any_script():
    policy = load({"销售.yaml": SALES.replace("clients", "客户").replace('"@sales"', '"@管理层", 李')})
    assert policy.rules[0].users == ("@管理层", "李")
    assert problems(SALES.replace("clients", "cli\u200bents", 1)) != []


@pytest.mark.parametrize(
    ("spelled", "seconds"), [("1s", 1), ("90s", 90), ("15m", 900), ("8h", 28_800), ("7d", 604_800)]
)
def test_durations(spelled, seconds):
    assert load({"s.yaml": SALES.replace("lease: 15m", f"lease: {spelled}")}).labels[1].lease == seconds


@pytest.mark.parametrize("spelled", ["0", "0s", "'0'"])
def test_zero_needs_no_unit(spelled):
    assert load({"s.yaml": SALES.replace("offline: 8h", f"offline: {spelled}")}).labels[1].offline == 0


@pytest.mark.parametrize(
    ("days", "numbers"),
    [("mon", (0,)), ("sat-mon", (0, 5, 6)), ("[wed, mon-tue]", (0, 1, 2)), ("sun-sat", (0, 1, 2, 3, 4, 5, 6))],
)
def test_days(days, numbers):
    when = load({"s.yaml": SALES.replace("days: mon-fri", f"days: {days}")}).rules[0].when
    assert when is not None
    assert when.days == numbers


@pytest.mark.parametrize(
    ("hours", "minutes"),
    [
        ("22:00-06:00", ((1320, 360),)),
        ("20:00-24:00", ((1200, 1440),)),
        ("20:00-00:00", ((1200, 1440),)),
        ('["13:00-17:00", "08:00-12:00"]', ((480, 720), (780, 1020))),
    ],
)
def test_hours(hours, minutes):
    when = load({"s.yaml": SALES.replace('"08:00-20:00"', hours)}).rules[0].when
    assert when is not None
    assert when.hours == minutes


def test_one_path_of_a_list_is_one_entry():
    text = SALES.replace("path: /usr/bin/tar", "path: [/usr/bin/tar, /usr/bin/bsdtar]")
    assert [entry.path for entry in load({"s.yaml": text}).programs[0].entries] == ["/usr/bin/tar", "/usr/bin/bsdtar"]


def test_a_program_is_known_by_package_or_digest_never_by_path_alone():
    assert problems(SALES.replace(", sha256: [%s]" % ("9f" * 32), "")) == [
        "sales.yaml:6:7: found a program without package or sha256, expected one of them: a path alone proves nothing"
    ]
    assert problems(SALES.replace("sha256: [", "package: tar, sha256: ["))[0].startswith(
        "sales.yaml:6:50: found sha256 beside package, expected one of them"
    )
