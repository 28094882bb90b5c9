"""YAML text to a tree whose every node knows its place. Refuses whatever can be misread.

Only YAML events are used, so nothing is ever constructed and an alias never expands. No anchors, aliases, tags, merge
keys, duplicate keys or second documents. A plain scalar that YAML 1.1 reads as something other than text (`on`, `no`,
`20:30`, `1e3`, a date) keeps its `kind`, so that a reader that wants text can ask for quotes instead of guessing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import yaml
from yaml.reader import Reader as YamlReader

from policy.errors import Place, Problem

MOST_CHARACTERS = 4 << 20
_DEEPEST = 20
_TOO_DEEP = f"found more than {_DEEPEST} levels of nesting, expected at most four"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER = yaml.resolver.Resolver()
_KINDS: dict[str, "Kind"] = {"str": "text", "bool": "bool", "int": "number", "float": "number", "null": "null"}
_UNREADABLE = YamlReader.NON_PRINTABLE
# Characters that change the order in which a line is shown, so that it reads as something it is not.
_MISLEADING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

Kind = Literal["text", "bool", "number", "null", "other", "refused"]


@dataclass(frozen=True, slots=True)
class Scalar:
    """`kind` is what YAML 1.1 makes of it; "refused": a problem was already reported here."""

    place: Place
    text: str
    kind: Kind = "text"


@dataclass(frozen=True, slots=True)
class Items:
    place: Place
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Fields:
    place: Place
    fields: tuple[tuple[Scalar, "Node"], ...]


Node = Scalar | Items | Fields


def read_tree(file: str, text: str, problems: list[Problem]) -> Node | None:
    """The one document of `text`, or None. What is wrong is appended to `problems`."""
    text = text.removeprefix("\ufeff")
    if len(text) > MOST_CHARACTERS:
        problems.append(Problem(file, 0, 0, f"found {len(text)} characters, expected at most {MOST_CHARACTERS}"))
        return None
    for pattern, what in ((_UNREADABLE, "cannot stand in YAML"), (_MISLEADING, "changes how the line reads")):
        if bad := pattern.search(text):
            line = text.count("\n", 0, bad.start()) + 1
            column = bad.start() - text.rfind("\n", 0, bad.start())
            problems.append(Problem(file, line, column, f"found the character U+{ord(bad[0]):04X}, which {what}"))
            return None
    try:
        return _Builder(file, problems).document(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        problems.append(Problem(*place, _yaml_message(exc, text)))
    except yaml.YAMLError as exc:
        problems.append(Problem(file, 0, 0, f"not YAML: {exc}"))
    except _TooDeep as exc:
        problems.append(Problem(*exc.place, _TOO_DEEP))
    return None


def _yaml_message(exc: yaml.MarkedYAMLError, text: str) -> str:
    if exc.problem_mark is not None:
        line = text.splitlines()[exc.problem_mark.line : exc.problem_mark.line + 1]
        if line and "\t" in line[0][: exc.problem_mark.column + 1]:
            return "found a tab, expected spaces: YAML indents with spaces only"
    if "nesting depth" in (exc.problem or ""):
        return _TOO_DEEP  # PyYAML since 6.0.4 reads ahead, and has a limit of its own far beyond ours
    return "not YAML: " + ", ".join(part for part in (exc.context, exc.problem) if part)


class _TooDeep(Exception):
    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.place = place


class _Builder:
    def __init__(self, file: str, problems: list[Problem]) -> None:
        self._file = file
        self._problems = problems

    def document(self, events: Iterator[yaml.Event]) -> Node | None:
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self._refuse(event, "found a second document (---), expected one per file")
                    break
                root = self._node(next(events), events, 0)
        if root is None:
            self._problems.append(Problem(self._file, 1, 1, "found an empty file, expected a department"))
        return root

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        return Place(self._file, mark.line + 1, mark.column + 1) if mark else Place(self._file)

    def _refuse(self, event: yaml.Event, message: str) -> Scalar:
        place = self._place(event)
        self._problems.append(Problem(*place, message))
        return Scalar(place, "", "refused")

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
        if depth > _DEEPEST:
            raise _TooDeep(self._place(event))
        if isinstance(event, yaml.AliasEvent):
            return self._refuse(event, f"found the alias *{event.anchor}, expected it written out")
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        refused = False
        if event.anchor is not None:
            self._refuse(
                event, f"found the anchor &{event.anchor}, expected none: nothing may be repeated by reference"
            )
            refused = True
        if event.tag is not None:
            self._refuse(event, f"found the tag {event.tag}, expected none: types follow from the key")
            refused = True
        if isinstance(event, yaml.SequenceStartEvent):
            return self._items(event, events, depth)
        if isinstance(event, yaml.MappingStartEvent):
            return self._fields(event, events, depth)
        assert isinstance(event, yaml.ScalarEvent)
        return Scalar(self._place(event), event.value, "refused" if refused else _kind(event))

    def _items(self, start: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Items:
        items: list[Node] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(self._node(event, events, depth + 1))
        return Items(self._place(start), tuple(items))

    def _fields(self, start: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Fields:
        fields: dict[str, tuple[Scalar, Node]] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self._node(event, events, depth + 1)
            value = self._node(next(events), events, depth + 1)
            if not isinstance(key, Scalar):
                self._problems.append(Problem(*key.place, "found a list or mapping as a key, expected a word"))
            elif key.kind == "other" and key.text == "<<":
                self._problems.append(Problem(*key.place, "found a merge (<<), expected the fields written out"))
            elif key.text in fields:
                first = fields[key.text][0].place
                message = f"found {key.text!r} a second time, expected it once (first in line {first.line})"
                self._problems.append(Problem(*key.place, message))
            elif key.kind != "refused":
                fields[key.text] = (key, value)
        return Fields(self._place(start), tuple(fields.values()))


def _kind(event: yaml.ScalarEvent) -> Kind:
    if event.style not in (None, ""):
        return "text"
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, event.value, (True, False))  # type: ignore[no-untyped-call]
    return _KINDS.get(tag.rpartition(":")[2], "other")
