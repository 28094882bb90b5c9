"""The JSON Schemas say yes and no where the parser does."""

from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings

from policy import SAMPLES, PolicyError, load
from policy.files import editor_schema
from tests.policy.samples import SALES
from tests.policy.strategies import as_files, policies

VALIDATORS = {which: jsonschema.Draft202012Validator(editor_schema(which)) for which in ("department", "company")}


def schema_takes(document: Any) -> bool:
    which = "company" if isinstance(document, dict) and "company" in document else "department"
    return bool(VALIDATORS[which].is_valid(document))


def parser_takes(text: str) -> bool:
    try:
        load({"x.yaml": text})
    except PolicyError:
        return False
    return True


@pytest.mark.parametrize("which", ["department", "company"])
def test_the_schemas_are_schemas(which):
    jsonschema.Draft202012Validator.check_schema(editor_schema(which))


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_samples_are_valid(path):
    document = yaml.safe_load(path.read_text())
    assert [
        error.message
        for error in VALIDATORS["company" if "company" in document else "department"].iter_errors(document)
    ] == []


GOOD = [
    ("lease: 15m", "lease: 90s"),
    ("offline: 8h", "offline: 0"),
    ("level: confidential, lease: 15m, offline: 8h", "level: secret, offline: 0s"),
    ("unlisted: none", "machines: any, wait-fsync: false, rollback: record, grace: 0"),
    ("unlisted: none", "was: sales/deals"),
    ("folders: [/sales/contracts/**]", "folders: []"),
    ("folders: [/sales/contracts/**]", "retired: true"),
    ("/sales/contracts/**", "/**"),
    ("/sales/contracts/**", "/*/contracts/**"),
    ("/sales/contracts/**", "/.hidden/..x/**"),
    ('users: ["@sales"]', "users: any"),
    ('users: ["@sales"]', "users: [any, 'service:x']"),
    ('users: ["@sales"]', "users: [li, dana@example.org, '李']"),
    ("programs: [office]", "programs: [any]"),
    ("days: mon-fri, ", ""),
    ("days: mon-fri", "days: [mon, wed-thu]"),
    ('"08:00-20:00"', "22:00-06:00"),
    ("allow: [read]", "allow: []"),
    ("action: read}", "action: read, departments: [a], groups: b, script: /s.py, at: '2026-01-01T10:00+08:00'}"),
    ("because: default", "because: default, allowed: true"),
]
BAD = [
    ("department: sales", "department: company"),
    ("department: sales", "department: -sales"),
    ("department: sales", "departments: sales"),
    ("jit: true", "jit: 'true'"),
    ("jit: true", "jit: true, hash: x"),
    ("jit: true", "script-sha256: " + "0" * 63 + "a"),
    ("/usr/bin/tar", "/usr/bin//tar"),
    ("/usr/bin/tar", "/usr/bin/*"),
    ("/usr/bin/tar", "tar"),
    ("sha256: [9f", "sha256: [9"),
    ("package: [libreoffice-core, libreoffice-core-nogui]", "package: []"),
    ("package: [libreoffice-core, libreoffice-core-nogui], ", ""),
    ("archive:", "any:"),
    ("level: secret,", ""),
    ("level: secret", "level: top"),
    ("unlisted: none", "unlisted: plaintext"),
    ("unlisted: none", "lease: 1h"),
    ("unlisted: none", "offline: 1h"),
    ("unlisted: none", "retired: true"),
    ("unlisted: none", "grace: 15"),
    ("unlisted: none", "grace: 015m"),
    ("unlisted: none", "was: a/b/c"),
    ("folders: [/sales/contracts/**], ", ""),
    ("/sales/contracts/**", "/sales/contracts"),
    ("/sales/contracts/**", "/sales/**/**"),
    ("/sales/contracts/**", "/sales /contracts/**"),
    ("/sales/contracts/**", "/sales/c*/**"),
    ("name: office-edits-clients", "name: default"),
    ('users: ["@sales"]', "users: li"),
    ('users: ["@sales"]', "users: []"),
    ('users: ["@sales"]', "users: ['@any']"),
    ('users: ["@sales"]', "users: ['service:any']"),
    ('users: ["@sales"]', "users: [li, li]"),
    ("programs: [office]", "programs: [office, any]"),
    ("labels: [clients]\n", "labels: clients\n"),
    ("allow: [read]", "allow: [read, read]"),
    ("allow: [read]", "allow: read"),
    ("view: plaintext", "view: none"),
    ("view: plaintext", "view: clear"),
    ("    view: plaintext\n", ""),
    ("days: mon-fri", "days: weekdays"),
    ("days: mon-fri", "days: []"),
    ('days: mon-fri, hours: "08:00-20:00", ', ""),
    ('"08:00-20:00"', "8-20"),
    ('"08:00-20:00"', "08:00-24:30"),
    ("action: read}", "action: open}"),
    ("action: read}", "action: read, at: noon}"),
    ("because: default", "reason: default"),
]


@pytest.mark.parametrize(("old", "new"), GOOD)
def test_both_take(old, new):
    assert old in SALES
    text = SALES.replace(old, new, 1)
    assert (schema_takes(yaml.safe_load(text)), parser_takes(text)) == (True, True)


@pytest.mark.parametrize(("old", "new"), BAD)
def test_both_refuse(old, new):
    assert old in SALES
    text = SALES.replace(old, new, 1)
    assert (schema_takes(yaml.safe_load(text)), parser_takes(text)) == (False, False)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("company: Sample\n", True),
        ("company: Sample\ndefault: public\nlabels: [{name: public, level: internal}]\n", True),
        ("company: ''\n", False),
        ("company: Sample\ndefault: a b\n", False),
        ("company: Sample\nhome: x\n", False),
    ],
)
def test_both_agree_on_the_company(text, good):
    assert (schema_takes(yaml.safe_load(text)), parser_takes(text)) == (good, good)


@settings(max_examples=40, deadline=None)
@given(policies())
def test_whatever_is_drawn_for_the_parser_is_valid(said):
    assert all(schema_takes(document) for document in said.values())
    load(as_files(said))
