"""The decision: who is asking, with which program, for what, when.

Pure: the answer depends on the bundle and the arguments alone. What is remembered between calls only saves time, and
holds until an hour of a rule may change the answer. Safe to use from several threads.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from policy.compile import Document, compile_policy, read_document, write_document
from policy.folders import FolderMap
from policy.hours import When
from policy.model import DEFAULT, Action, Label, Person, Policy, ProgramEntry, ProgramFacts, Rule, View

# Of the actions a rule gives this person with some program, those that the view without a rule keeps (design 4):
# so file managers work, and a stranger's rm does not.
_KEPT_WITHOUT_RULE = frozenset({Action.CREATE, Action.RENAME, Action.DELETE})
_READ = frozenset({Action.READ})
_MOST_REMEMBERED = 8192


@dataclass(frozen=True, slots=True)
class Standing:
    """What someone, with a program, may do with the files of a label. Holds until `until` (seconds since 1970)."""

    view: View
    allow: frozenset[Action]
    because: str
    """The rule's name, or "default"."""
    rule: str
    """The rule's qualified name ("sales/office-edits-clients"), or "default"."""
    until: float


@dataclass(frozen=True, slots=True)
class Decision:
    """A standing applied to one action."""

    allowed: bool
    view: View
    because: str
    rule: str


class _Clock:
    """A `when`, and what is known of it: (from, until, holds)."""

    __slots__ = ("known", "when")

    def __init__(self, when: When) -> None:
        self.when = when
        self.known = (0.0, 0.0, False)

    def state(self, now: float) -> tuple[bool, float]:
        since, until, holds = self.known
        if not since <= now < until:
            holds, until = self.when.state(now)
            self.known = (now, until, holds)
        return holds, until


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A rule of one label that names one person."""

    rule: Rule
    programs: frozenset[str] | None
    clock: _Clock | None
    kept: frozenset[Action]

    def state(self, now: float | None) -> tuple[bool, float]:
        return (True, math.inf) if self.clock is None or now is None else self.clock.state(now)


class Bundle:
    """A compiled policy with the people it speaks of."""

    def __init__(self, document: Document) -> None:
        """Takes a checked document: use `build` or `from_document`."""
        self._document = document
        self._labels = {label.id: label for label in document.labels}
        self._by_name = {label.qualified: label for label in document.labels}
        self._default = self._by_name[document.default]
        self._folders = FolderMap({folder: label.qualified for label in document.labels for folder in label.folders})
        self._people = {person.name: person.answers_to() for person in document.people}
        self._entries: dict[str, list[tuple[str, ProgramEntry]]] = {}
        for programs in document.programs:
            for entry in programs.entries:
                self._entries.setdefault(entry.path, []).append((programs.name, entry))
        clocks: dict[When, _Clock] = {}
        self._rules: dict[bytes, list[_Candidate]] = {label.id: [] for label in document.labels}
        for rule in document.rules:
            clock = None if rule.when is None else clocks.setdefault(rule.when, _Clock(rule.when))
            programs_named = None if rule.programs is None else frozenset(rule.programs)
            candidate = _Candidate(rule, programs_named, clock, rule.allow & _KEPT_WITHOUT_RULE)
            for name in rule.labels:
                self._rules[self._by_name[name].id].append(candidate)
        self._candidates: dict[tuple[str, bytes], tuple[_Candidate, ...]] = {}
        self._programs: dict[ProgramFacts, frozenset[str]] = {}
        self._standings: dict[tuple[str | None, ProgramFacts | None, bytes, bool], tuple[float, Standing]] = {}

    @classmethod
    def build(
        cls, policy: Policy, *, number: int, company: str, label_ids: Mapping[str, bytes], people: Iterable[Person]
    ) -> "Bundle":
        """`company`: its id, hex. `label_ids`: qualified label name to 16 bytes, all labels of the policy.
        Raises PolicyError."""
        return cls(compile_policy(policy, number=number, company=company, label_ids=label_ids, people=people))

    @classmethod
    def from_document(cls, obj: object) -> "Bundle":
        """The bundle that `to_document` wrote; PolicyError for anything else."""
        return cls(read_document(obj))

    def to_document(self) -> dict[str, Any]:
        """JSON-able; equal bundles give equal documents."""
        return write_document(self._document)

    @property
    def number(self) -> int:
        return self._document.number

    @property
    def company(self) -> str:
        return self._document.company

    @property
    def labels(self) -> tuple[Label, ...]:
        return self._document.labels

    @property
    def rules(self) -> tuple[Rule, ...]:
        """In evaluation order within a label."""
        return self._document.rules

    @property
    def people(self) -> tuple[Person, ...]:
        return self._document.people

    @property
    def programs(self) -> tuple[ProgramEntry, ...]:
        """All entries of all departments, each once."""
        return tuple(dict.fromkeys(entry for programs in self._document.programs for entry in programs.entries))

    @property
    def default_label(self) -> Label:
        return self._default

    def label_for(self, path: str) -> Label:
        """The label a file born at `path` of the drive gets: the deepest matching folder's, else the default."""
        name = self._folders.label_for(path)
        return self._default if name is None else self._by_name[name]

    def label_by_id(self, id: bytes) -> Label | None:
        """The label of a header; None for an id this bundle does not know."""
        return self._labels.get(id)

    def is_boundary(self, directory: str) -> bool:
        """Whether a label's folder is this directory or lies below it: it cannot be renamed or removed."""
        return self._folders.is_boundary(directory)

    def listed_as(self, program: ProgramFacts | None) -> frozenset[str]:
        """Qualified names of the programs that this one is; empty for an unlisted one."""
        if program is None:
            return frozenset()
        known = self._programs.get(program)
        if known is None:
            entries = self._entries.get(program.path, ())
            known = frozenset(name for name, entry in entries if entry.matches(program))
            _remember(self._programs, program, known)
        return known

    def standing(
        self,
        person: str | None,
        program: ProgramFacts | None,
        label: Label,
        now: float | None,
        *,
        plaintext: bool = True,
    ) -> Standing:
        """What `person` (None: nobody) may do with files of `label` with `program` (None: an unlisted one).

        `now`: seconds since 1970; None takes every `when` to hold (for `cases` that name no time). `plaintext` False:
        the rules that show it do not count, for callers and machines that get none whatever a rule says."""
        key = (person, program, label.id, plaintext)
        if now is not None:
            known = self._standings.get(key)
            if known is not None and known[0] <= now < known[1].until:
                return known[1]
        standing = self._decide(person, program, label, now, plaintext)
        if now is not None:
            _remember(self._standings, key, (now, standing))
        return standing

    def decide(
        self,
        person: str | None,
        program: ProgramFacts | None,
        label: Label,
        action: Action,
        now: float | None,
        *,
        plaintext: bool = True,
    ) -> Decision:
        """`standing`, asked about one action."""
        standing = self.standing(person, program, label, now, plaintext=plaintext)
        return Decision(action in standing.allow, standing.view, standing.because, standing.rule)

    def entitled_labels(self, persons: Iterable[str], now: float) -> set[bytes]:
        """Ids of the labels whose keys may be lent to a machine of these persons: some rule shows one of them
        plaintext, now or at most the label's `grace` ago. Labels whose keys are never lent (`per_file`) are left out.
        """
        names = tuple(persons)
        return {
            label.id
            for label in self.labels
            if not label.per_file
            and any(
                candidate.rule.view is View.PLAINTEXT
                and candidate.rule.allow
                and (candidate.clock is None or candidate.clock.when.held_within(now, label.grace))
                for name in names
                for candidate in self._candidates_for(name, label.id)
            )
        }

    def _candidates_for(self, person: str | None, label_id: bytes) -> tuple[_Candidate, ...]:
        """The label's rules that name this person, in order."""
        if person is None:
            return ()
        key = (person, label_id)
        known = self._candidates.get(key)
        if known is None:
            means = self._people.get(person, frozenset())
            known = tuple(each for each in self._rules.get(label_id, ()) if not means.isdisjoint(each.rule.users))
            _remember(self._candidates, key, known)
        return known

    def _decide(
        self, person: str | None, program: ProgramFacts | None, label: Label, now: float | None, plaintext: bool
    ) -> Standing:
        candidates = self._candidates_for(person, label.id)
        listed = self.listed_as(program)
        until = math.inf
        for candidate in candidates:
            if candidate.programs is not None and candidate.programs.isdisjoint(listed):
                continue
            if not plaintext and candidate.rule.view is View.PLAINTEXT:
                continue
            holds, flips = candidate.state(now)
            until = min(until, flips)
            if holds:
                rule = candidate.rule
                return Standing(rule.view, rule.allow, rule.name, rule.qualified, until)
        allow = frozenset() if label.unlisted is View.NONE else _READ
        for candidate in candidates:
            if candidate.kept:
                holds, flips = candidate.state(now)
                until = min(until, flips)
                if holds:
                    allow |= candidate.kept
        return Standing(label.unlisted, allow, DEFAULT, DEFAULT, until)


def _remember(table: dict[Any, Any], key: object, value: object) -> None:
    # Whoever runs many programs must not fill the memory: forgetting all costs one slow answer each.
    if len(table) >= _MOST_REMEMBERED:
        table.clear()
    table[key] = value
