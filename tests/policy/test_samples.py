"""What the demo and its tour rely on."""

import pytest

from policy import SAMPLES, Action, Bundle, Person, View, genuine_program, load, preview_label_ids, read_files

POLICY = load(read_files([SAMPLES]))
ME = Person("me", departments=frozenset(POLICY.departments))
BUNDLE = Bundle.build(POLICY, number=1, company="", label_ids=preview_label_ids(POLICY), people=[ME])
ANY_TIME = 1_772_000_000.0
LISTED = (
    "/usr/lib/libreoffice/program/soffice.bin",
    "/usr/bin/tar",
    "/usr/bin/git",
    "/usr/bin/rsync",
    "/usr/bin/sqlite3",
    "/usr/bin/vim.basic",
    "/usr/bin/head",
    "/usr/bin/md5sum",
)


@pytest.mark.parametrize("file", ["/a", "/unpacked/src/a.c", "/sales/clients/a.docx"])
@pytest.mark.parametrize("path", LISTED)
def test_listed_programs_do_everything_at_the_root_and_for_sales_at_any_hour(path, file):
    standing = BUNDLE.standing("me", genuine_program(POLICY, "sales", path), BUNDLE.label_for(file), ANY_TIME)
    assert (standing.view, standing.allow) == (View.PLAINTEXT, frozenset(Action))


@pytest.mark.parametrize("file", ["/a", "/sales/clients/a.docx"])
def test_cat_sees_ciphertext_and_file_managers_work(file):
    standing = BUNDLE.standing("me", genuine_program(POLICY, "sales", "/usr/bin/cat"), BUNDLE.label_for(file), ANY_TIME)
    assert (standing.view, standing.allow) == (View.CIPHERTEXT, frozenset(Action) - {Action.WRITE})


def test_one_label_is_secret_and_hides_itself():
    secret = [label for label in BUNDLE.labels if label.per_file]
    assert [(label.qualified, label.unlisted, label.root_only) for label in secret] == [
        ("finance/payroll", "none", True)
    ]


def test_every_label_can_be_backed_up_as_it_lies_on_disk():
    backup = Bundle.build(
        POLICY, number=1, company="", label_ids=preview_label_ids(POLICY), people=[Person("service:backup")]
    )
    for label in backup.labels:
        standing = backup.standing("service:backup", None, label, ANY_TIME)
        assert (standing.view, standing.allow) == (View.CIPHERTEXT, frozenset({Action.READ}))
