import pytest

from policy import SAMPLES, load, read_files, run_cases
from tests.policy.samples import SALES


def complaint(case: str) -> str:
    text = SALES[: SALES.index("cases:")] + f"cases:\n  - {case}\n"
    (result,) = run_cases(load({"sales.yaml": text}))
    return result.complaint


OFFICE = "/usr/lib/libreoffice/program/soffice.bin"
ASK = f"user: li, program: {OFFICE}, file: /sales/clients/a, action: read"


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("{ask: {%s}, view: plaintext, because: office-edits-clients}", ""),
        ('{ask: {%s, at: "2026-03-06T19:59"}, view: plaintext, because: office-edits-clients}', ""),
        ('{ask: {%s, at: "2026-03-06T19:59Z"}, view: ciphertext, because: default}', ""),
        ("{ask: {%s, departments: design}, view: ciphertext, because: default}", ""),
        ("{ask: {%s, departments: design, groups: [sales]}, view: plaintext, because: office-edits-clients}", ""),
        ("{ask: {%s}, view: ciphertext, because: default}",
         "because office-edits-clients, expected default; view plaintext, expected ciphertext"),
        ("{ask: {%s}, view: plaintext, because: backup}", "because office-edits-clients, expected backup"),
        ("{ask: {%s}, view: plaintext, because: office-edits-clients, allowed: false}",
         "read allowed, expected refused"),
    ],
)  # fmt: skip
def test_a_case_passes_with_the_right_answer_for_the_right_reason(case, expected):
    zone = "company: Sample\nzone: Asia/Shanghai\n"
    text = SALES[: SALES.index("cases:")] + f"cases:\n  - {case % ASK}\n"
    (result,) = run_cases(load({"sales.yaml": text, "company.yaml": zone}))
    assert result.complaint == expected
    assert result.passed is not bool(expected)


def test_an_action_that_is_refused_must_be_expected_so():
    ask = "user: li, program: /usr/bin/cat, file: /sales/clients/a, action: write"
    assert complaint(f"{{ask: {{{ask}}}, view: ciphertext, because: default}}") == "write refused, expected allowed"
    assert complaint(f"{{ask: {{{ask}}}, view: ciphertext, because: default, allowed: false}}") == ""
    hidden = (
        "{ask: {user: li, program: /usr/bin/cat, file: /sales/contracts/a, action: read}, view: none, because: default}"
    )
    assert complaint(hidden) == ""


def test_a_program_known_by_its_digest_is_the_genuine_one():
    text = SALES.replace("programs: [office]", "programs: [archive]")
    text = text[: text.index("cases:")] + (
        "cases:\n  - ask: {user: li, program: /usr/bin/tar, file: /sales/clients/a, action: create}\n"
        "    view: plaintext\n    because: office-edits-clients\n"
    )
    assert [result.complaint for result in run_cases(load({"sales.yaml": text}))] == [""]


def test_the_samples_answer_their_own_cases():
    policy = load(read_files([SAMPLES]))
    results = run_cases(policy)
    assert [result.complaint for result in results if not result.passed] == []
    assert {case.department for case in policy.cases} == {"company", *policy.departments}
