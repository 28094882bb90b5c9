"""The language: what may stand in a department's file and in `company.yaml` (docs/policy-language.md).

`load` reads all files, resolves the names between them and raises one PolicyError with every problem found: first the
names of all files, their programs and labels, then the rules and cases, which refer to them.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from policy.errors import Place, PolicyError
from policy.folders import clashes, split_pattern
from policy.hours import zone_data
from policy.labels import BUILT_IN, LabelReader
from policy.model import COMPANY, DEFAULT, SERVICE, Action, Case, Policy, View
from policy.programs import ProgramReader
from policy.reader import Reader, is_login, is_name
from policy.rules import RuleReader
from policy.yamltree import Fields, Node, read_tree

_SHARED_KEYS = ("programs", "labels", "rules", "cases")
_DEPARTMENT_KEYS = ("department", *_SHARED_KEYS)
_COMPANY_KEYS = (COMPANY, "zone", "default", *_SHARED_KEYS)
_CASE_KEYS = ("ask", "view", "because", "allowed")
_ASK_KEYS = ("user", "departments", "groups", "program", "script", "file", "action", "at")
_AT = re.compile(
    r"(19[7-9]|2[0-9][0-9])[0-9]-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})?"
)


class _Sheet(NamedTuple):
    """The top level of a file."""

    place: Place
    values: Mapping[str, Node]


def load(files: Mapping[str, str]) -> Policy:
    """The policy in these files (name to YAML text). Raises PolicyError with all problems."""
    reader = Reader()
    if not files:
        reader.refuse(Place("policy"), "found no files, expected at least one department")
    sheets = _read_sheets(reader, files)
    company = sheets.get(COMPANY)
    if company is None and len(sheets) < len(files):
        # The file that could not be read may be the company's: every name it shares would seem unknown.
        raise PolicyError(*reader.problems)
    zone = "UTC"
    if company and "zone" in company.values:
        zone = reader.zone(company.values["zone"]) or zone
    programs = ProgramReader(reader)
    labels = LabelReader(reader)
    default = _default(reader, company)
    for name, sheet in sheets.items():
        programs.read(name, sheet.values.get("programs"))
        labels.read(name, _list(reader, sheet, "labels"), default)
    _check_default(reader, company, default, labels)
    was = labels.renames()
    _check_folders(reader, labels)
    rules = RuleReader(reader, labels, programs, zone)
    for name, sheet in sheets.items():
        rules.read(name, _list(reader, sheet, "rules"))
    cases = _CaseReader(reader, rules, zone)
    for name, sheet in sheets.items():
        for node in _list(reader, sheet, "cases"):
            cases.read(name, node)
    if reader.problems:
        raise PolicyError(*reader.problems)
    return Policy(
        company=reader.text(company.values[COMPANY], "a name") or "" if company else "",
        zone=zone,
        default=default,
        departments=tuple(name for name in sheets if name != COMPANY),
        labels=tuple(labels.labels[name] for name in sorted(labels.labels)),
        programs=tuple(programs.programs[name] for name in sorted(programs.programs)),
        rules=tuple(rules.rules),
        cases=tuple(cases.cases),
        was=was,
        places=labels.places,
    )


def parse_instant(text: str, zone: str) -> float:
    """Seconds since 1970 of "2026-03-02T09:00", in `zone` unless the text says Z or an offset; else ValueError."""
    if not _AT.fullmatch(text):
        raise ValueError(f"{text!r} is no date and time like 2026-03-02T09:00")
    instant = datetime.fromisoformat(text)
    return (instant if instant.tzinfo else instant.replace(tzinfo=zone_data(zone))).timestamp()


def _read_sheets(reader: Reader, files: Mapping[str, str]) -> dict[str, _Sheet]:
    """The files by department, the company's first: what they are is said by their key, whatever they are called."""
    sheets: dict[str, _Sheet] = {}
    for file, text in sorted(files.items()):
        root = read_tree(file, text, reader.problems)
        if root is None:
            continue
        is_company = isinstance(root, Fields) and any(key.text == COMPANY for key, _ in root.fields)
        what, known = (COMPANY, _COMPANY_KEYS) if is_company else ("department", _DEPARTMENT_KEYS)
        values = reader.fields(root, f"a {what}'s file", known, (what,))
        if values is None:
            continue
        node = values[what]
        name = reader.text(node, "the company's name") if is_company else reader.name(node, "a department's name")
        if not is_company and name == COMPANY:
            reader.refuse(node, "found 'company', expected another name: it is company.yaml's")
        elif name is not None:
            key = COMPANY if is_company else name
            if key in sheets:
                message = f"found the {what} {name!r}, expected one file for it (the first is {sheets[key].place.file})"
                reader.refuse(node, message)
            else:
                sheets[key] = _Sheet(root.place, values)
    return dict(sorted(sheets.items(), key=lambda item: (item[0] != COMPANY, item[0])))


def _list(reader: Reader, sheet: _Sheet, key: str) -> tuple[Node, ...]:
    node = sheet.values.get(key)
    return (reader.items(node, key) or ()) if node is not None else ()


def _default(reader: Reader, company: _Sheet | None) -> str:
    """Qualified name of the label of files that no folder claims."""
    name = None
    if company and "default" in company.values:
        name = reader.name(company.values["default"], "the name of a label of this file")
    return f"{COMPANY}/{name or BUILT_IN}"


def _check_default(reader: Reader, company: _Sheet | None, default: str, labels: LabelReader) -> None:
    own = labels.names.get(COMPANY, set())
    node = company.values.get("default") if company else None
    if default in labels.labels:
        if labels.labels[default].retired:
            place = node.place if node else labels.places[default]
            reader.refuse(place, "found a retired label as default, expected one in use")
    elif default.partition("/")[2] not in own:
        if node is None:
            labels.add_built_in()
        else:
            reader.refuse_value(node, "a label of this file", own)


def _check_folders(reader: Reader, labels: LabelReader) -> None:
    for pair in clashes({pattern: split_pattern(pattern) for pattern in labels.folders}):
        first, second = sorted(pair, key=lambda pattern: labels.folders[pattern])
        there = labels.folders[first]
        message = f"which overlaps {first!r} ({there.file}:{there.line}), expected one inside the other or apart"
        reader.refuse(labels.folders[second], f"found {second!r}, {message}")


class _CaseReader:
    def __init__(self, reader: Reader, rules: RuleReader, zone: str) -> None:
        self._reader = reader
        self._rules = rules
        self._zone = zone
        self.cases: list[Case] = []

    def read(self, department: str, node: Node) -> None:
        reader = self._reader
        values = reader.fields(node, "a case", _CASE_KEYS, ("ask", "view", "because"))
        if values is None:
            return
        view = reader.choice(values["view"], "a view", View)
        because = self._because(department, values["because"])
        allowed = reader.truth(values["allowed"]) if "allowed" in values else view is not View.NONE
        ask = reader.fields(values["ask"], "a question", _ASK_KEYS, ("user", "program", "file", "action"))
        if ask is None:
            return
        user = self._user(ask["user"])
        program = reader.path(ask["program"])
        script = reader.path(ask["script"]) if "script" in ask else ""
        file = reader.path(ask["file"])
        action = reader.choice(ask["action"], "an action", Action)
        at = self._instant(ask["at"]) if "at" in ask else None
        groups = reader.several(ask["groups"], "a group's name", is_name) if "groups" in ask else ()
        # Whoever a file asks about is one of the department, unless the question says otherwise.
        departments: tuple[str, ...] = () if department == COMPANY else (department,)
        if "departments" in ask:
            departments = reader.several(ask["departments"], "a department's name", is_name)
        if not (view and because and user and program and file and action) or script is None or allowed is None:
            return
        self.cases.append(
            Case(
                place=node.place,
                department=department,
                user=user,
                departments=frozenset(departments),
                groups=frozenset(groups),
                program=program,
                script=script,
                file=file,
                action=action,
                at=at,
                view=view,
                because=because,
                allowed=allowed,
            )
        )

    def _because(self, department: str, node: Node) -> str | None:
        name = self._reader.text(node, "the name of a rule, or default")
        if name is None or name == DEFAULT or any(name in names for names in self._rules.names.values()):
            return name
        self._reader.refuse_value(node, "the name of a rule, or default", self._rules.names[department] | {DEFAULT})
        return None

    def _user(self, node: Node) -> str | None:
        user = self._reader.text(node, "a person or service:NAME")
        if user is None or is_login(user.removeprefix(SERVICE)):
            return user
        self._reader.refuse_value(node, "a person or service:NAME")
        return None

    def _instant(self, node: Node) -> float | None:
        expected = "a date and time like 2026-03-02T09:00, in the company's zone unless it says Z or +08:00"
        text = self._reader.text(node, expected)
        try:
            return None if text is None else parse_instant(text, self._zone)
        except ValueError:
            self._reader.refuse_value(node, expected)
            return None
