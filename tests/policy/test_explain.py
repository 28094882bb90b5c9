from dataclasses import replace
from string import Formatter

import pytest

from policy import Action, explain
from policy.explain import _WORDS
from tests.policy.samples import CAT, MONDAY_NOON, SALES, SATURDAY_NOON, SOFFICE, bundle

FILE = "/sales/clients/a.docx"


@pytest.mark.parametrize(
    ("person", "program", "file", "action", "now", "sentence"),
    [
        ("li", SOFFICE, FILE, Action.WRITE, MONDAY_NOON,
         "li may write /sales/clients/a.docx with /usr/lib/libreoffice/program/soffice.bin and sees plaintext: "
         "rule office-edits-clients of label sales/clients decides."),
        ("service:backup", CAT, FILE, Action.WRITE, MONDAY_NOON,
         "service:backup may not write /sales/clients/a.docx with /usr/bin/cat: "
         "rule backup of label sales/clients decides, and does not allow write."),
        ("li", CAT, FILE, Action.READ, MONDAY_NOON,
         "li may read /sales/clients/a.docx with /usr/bin/cat and sees ciphertext: "
         "no rule of label sales/clients matches, so it shows ciphertext."),
        ("gone", SOFFICE, FILE, Action.READ, MONDAY_NOON,
         "gone may read /sales/clients/a.docx with /usr/lib/libreoffice/program/soffice.bin and sees ciphertext: "
         "gone is not an active person here, so label sales/clients shows ciphertext."),
        (None, None, FILE, Action.DELETE, MONDAY_NOON,
         "nobody may not delete /sales/clients/a.docx with an unknown program: "
         "no person is known to be asking, so label sales/clients shows ciphertext."),
        ("li", CAT, "/sales/contracts/1", Action.READ, MONDAY_NOON,
         "li may not read /sales/contracts/1 with /usr/bin/cat: "
         "label sales/contracts has no rules, so unlisted programs see nothing."),
    ],
)  # fmt: skip
def test_one_sentence_says_who_may_what_and_why(person, program, file, action, now, sentence):
    assert explain(bundle(), person, program, file, action, now).sentence == sentence


@pytest.mark.parametrize(
    ("person", "program", "now", "failed", "text"),
    [
        ("dana", SOFFICE, MONDAY_NOON, "user", "user: dana is none of @sales"),
        ("li", CAT, MONDAY_NOON, "program", "program: /usr/bin/cat is not listed in sales/office"),
        ("li", replace(SOFFICE, clean=False), MONDAY_NOON, "program",
         "program: /usr/lib/libreoffice/program/soffice.bin is listed in sales/office only when nothing foreign is "
         "loaded or attached"),
        ("li", SOFFICE, SATURDAY_NOON, "when",
         "when: it is Sat 2026-03-07 12:00, outside mon, tue, wed, thu, fri 08:00-20:00 Asia/Shanghai"),
    ],
)  # fmt: skip
def test_the_trace_names_the_first_condition_that_failed(person, program, now, failed, text):
    step = explain(bundle(), person, program, FILE, Action.READ, now).trace[0]
    assert (step.rule, step.reached, step.failed, step.text) == ("office-edits-clients", True, failed, text)


def test_rules_after_the_one_that_decided_are_not_reached():
    trace = explain(bundle(), "li", SOFFICE, FILE, Action.READ, MONDAY_NOON).trace
    assert [(step.rule, step.reached) for step in trace] == [("office-edits-clients", True), ("backup", False)]


SECRET = SALES.replace("level: confidential, lease: 15m, offline: 8h", "level: secret")
PROGRAM = "/usr/lib/libreoffice/program/soffice.bin"
OF_ROOT = "label sales/clients shows plaintext only in a drive that root runs, and this one a plain user runs"


@pytest.mark.parametrize(
    ("action", "allowed", "sentence"),
    [
        (Action.READ, True, f"li may read {FILE} with {PROGRAM} and sees ciphertext: {OF_ROOT}."),
        (Action.WRITE, False, f"li may not write {FILE} with {PROGRAM}: {OF_ROOT}."),
        # The drive has no key to seal a new file with.
        (Action.CREATE, False, f"li may not create {FILE} with {PROGRAM}: {OF_ROOT}."),
        (Action.DELETE, True, f"li may delete {FILE} with {PROGRAM} and sees ciphertext: {OF_ROOT}."),
    ],
)
def test_a_plain_users_drive_shows_no_plaintext_of_a_label_that_asks_for_root(action, allowed, sentence):
    found = explain(bundle(SECRET), "li", SOFFICE, FILE, action, MONDAY_NOON, user_mount=True)
    assert (found.sentence, found.decision.allowed) == (sentence, allowed)
    assert (found.decision.view, found.decision.because) == ("ciphertext", "default")
    first = found.trace[0]
    assert (first.rule, first.failed) == ("office-edits-clients", "machine")
    assert first.text == "machine: a plain user runs the drive, and label sales/clients asks for root"


def test_a_plain_users_drive_is_the_reason_only_where_root_would_make_a_difference():
    for program, policy in ((CAT, SECRET), (SOFFICE, SALES)):
        said = [
            explain(bundle(policy), "li", program, FILE, Action.READ, MONDAY_NOON, user_mount=user_mount)
            for user_mount in (False, True)
        ]
        assert said[0] == said[1]


def test_the_same_in_chinese():
    found = explain(bundle(), "li", CAT, FILE, Action.READ, MONDAY_NOON, language="zh")
    assert found.sentence == (
        "li可以用/usr/bin/cat对/sales/clients/a.docx执行“读取”,看到密文:标签 sales/clients 没有匹配的规则,只给出密文。"
    )
    found = explain(bundle(SECRET), "li", SOFFICE, FILE, Action.WRITE, MONDAY_NOON, language="zh", user_mount=True)
    assert found.sentence == (
        f"li不能用{PROGRAM}对{FILE}执行“写入”:"
        "标签 sales/clients 只在由 root 运行的驱动器中给出明文,而这个驱动器由普通用户运行。"
    )
    assert found.trace[0].text == "机器:驱动器由普通用户运行,而标签 sales/clients 要求由 root 运行"


def test_both_languages_say_the_same_things():
    def fields(text: str) -> set[str | None]:
        return {name for _, name, _, _ in Formatter().parse(text) if name}

    english, chinese = _WORDS["en"], _WORDS["zh"]
    assert {key: fields(text) for key, text in english.items()} == {key: fields(text) for key, text in chinese.items()}
