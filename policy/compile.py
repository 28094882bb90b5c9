"""What agents and server decide with: the compiled policy as one plain document.

A bundle's document is JSON-able and canonical: equal bundles give equal documents. `read_document` takes nothing that
`write_document` would not have written, so an unknown field, version or reference is refused, never skipped.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from policy.errors import Place, PolicyError, Problem
from policy.folders import split_pattern
from policy.model import ANY, Label, Person, Policy, Programs, Rule, View

ID_BYTES = 16
_BUNDLE = "bundle"


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a bundle; its fields are the document's."""

    format: Literal[1]
    number: int
    company: str
    """The company's id, hex."""
    default: str
    """Qualified name of the label of files that no folder claims."""
    labels: tuple[Label, ...]
    programs: tuple[Programs, ...]
    rules: tuple[Rule, ...]
    """In their order within a department; departments in the order of their names."""
    people: tuple[Person, ...]


def compile_policy(
    policy: Policy, *, number: int, company: str, label_ids: Mapping[str, bytes], people: Iterable[Person]
) -> Document:
    """The document of a policy. PolicyError if a label has no id (or not 16 bytes, or another's), or a person comes
    twice."""
    without = [name for name in (label.qualified for label in policy.labels) if name not in label_ids]
    if without:
        raise PolicyError(
            *(Problem(*policy.places.get(name, Place(name)), f"the label {name} has no id") for name in without)
        )
    document = Document(
        format=1,
        number=number,
        company=company,
        default=policy.default,
        labels=tuple(replace(label, id=label_ids[label.qualified]) for label in policy.labels),
        programs=policy.programs,
        rules=policy.rules,
        people=tuple(sorted(people, key=lambda person: person.name)),
    )
    _check(document)
    return document


def write_document(document: Document) -> dict[str, Any]:
    """JSON-able and deterministic; bytes are base64, sets are sorted lists."""
    obj: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(document, order="deterministic"))
    return obj


def read_document(obj: object) -> Document:
    """The document that `write_document` made; PolicyError for anything else."""
    try:
        document = msgspec.convert(obj, Document)
    except (msgspec.ValidationError, RecursionError) as exc:
        raise _refused(f"not a bundle of format 1: {exc}") from None
    if write_document(document) != obj:
        raise _refused("not a bundle of format 1: it has unknown fields, or values in another form than ours")
    _check(document)
    return document


def _refused(message: str) -> PolicyError:
    return PolicyError(Problem(*Place(_BUNDLE), message))


def _check(document: Document) -> None:
    """What the types do not say: ids, names and references."""
    labels = {label.qualified for label in document.labels}
    programs = {programs.name for programs in document.programs}
    ids = {label.id for label in document.labels}
    people = {person.name for person in document.people}
    if len(labels) != len(document.labels) or len(ids) != len(labels) or any(len(id_) != ID_BYTES for id_ in ids):
        raise _refused(f"labels need names of their own, and ids of their own of {ID_BYTES} bytes")
    if len(programs) != len(document.programs):
        raise _refused("programs need names of their own")
    if len({rule.qualified for rule in document.rules}) != len(document.rules):
        raise _refused("rules need names of their own")
    if len(people) != len(document.people) or ANY in people:
        raise _refused("people need names of their own, and none of them 'any'")
    if document.default not in labels:
        raise _refused(f"the default label {document.default} is none of its labels")
    for rule in document.rules:
        if not labels.issuperset(rule.labels) or not programs.issuperset(rule.programs or ()):
            raise _refused(f"the rule {rule.qualified} names a label or program that is not there")
        if any(name.partition("/")[0] != rule.department for name in rule.labels):
            raise _refused(f"the rule {rule.qualified} decides on another department's label")
    patterns = [pattern for label in document.labels for pattern in label.folders]
    if len(set(patterns)) != len(patterns):
        raise _refused("a folder has two labels")
    try:
        for pattern in patterns:
            split_pattern(pattern)
    except ValueError as exc:
        raise _refused(f"not a folder: {exc}") from None
    if any(label.unlisted is View.PLAINTEXT for label in document.labels):
        raise _refused("a label shows plaintext to unlisted programs")
