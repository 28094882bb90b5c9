"""`labels:`: what a file is. A level sets a label's defaults; names and folders are taken once in the whole policy."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from policy.errors import Place
from policy.folders import split_pattern
from policy.model import COMPANY, Label, Level, View
from policy.reader import Reader, is_name
from policy.yamltree import Node

BUILT_IN = "internal"
"""Name of the label that stands in where company.yaml has no `default`."""
_KEYS = (
    "name",
    "folders",
    "level",
    "lease",
    "offline",
    "unlisted",
    "recheck",
    "save-lower",
    "rollback",
    "grace",
    "machines",
    "wait-fsync",
    "was",
    "retired",
)
_HOUR = 3600
_DAY = 24 * _HOUR
_LEASE = (1, 7 * _DAY)
_OFFLINE = (0, 90 * _DAY)
_GRACE = (0, _DAY)

_BASE = Label(
    id=b"",
    name="",
    department="",
    level=Level.INTERNAL,
    folders=(),
    lease=float(_HOUR),
    offline=0.0,
    unlisted=View.CIPHERTEXT,
    recheck="open",
    save_lower="record",
    rollback="record",
    grace=_HOUR / 4,
    per_file=False,
    root_only=False,
    wait_fsync=False,
)
DEFAULTS: Mapping[Level, Label] = {
    Level.INTERNAL: _BASE,
    Level.CONFIDENTIAL: replace(_BASE, level=Level.CONFIDENTIAL, lease=_HOUR / 4),
    # The keys of secret files stay on the server: there is nothing to lend, and nothing to keep while offline.
    Level.SECRET: replace(
        _BASE,
        level=Level.SECRET,
        lease=0.0,
        recheck="read",
        save_lower="raise",
        rollback="refuse",
        per_file=True,
        root_only=True,
        wait_fsync=True,
    ),
}
"""What a level means."""


@dataclass(frozen=True, slots=True)
class _Was:
    place: Place
    old: str


class LabelReader:
    """Reads the labels of one file after the other and remembers what they took."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.names: dict[str, set[str]] = {}
        """Label names by department, those with other faults included: rules may name them."""
        self.labels: dict[str, Label] = {}
        self.places: dict[str, Place] = {}
        self.folders: dict[str, Place] = {}
        """Every pattern, and where it is written."""
        self.owners: dict[str, str] = {}
        """Pattern to qualified label."""
        self._was: dict[str, _Was] = {}

    def read(self, department: str, nodes: tuple[Node, ...], default: str) -> None:
        """All labels of a department. `default` is the qualified name of the one that needs no folders."""
        self.names[department] = set()
        for node in nodes:
            self._label(department, node, default)

    def add_built_in(self) -> None:
        """The label of a company that says nothing about its default."""
        label = replace(_BASE, name=BUILT_IN, department=COMPANY)
        self.labels[label.qualified] = label
        self.places[label.qualified] = Place("company.yaml")

    def renames(self) -> dict[str, str]:
        """Qualified label to the name it had. Refuses names that are still in use, or claimed twice."""
        claimed: dict[str, str] = {}
        for label, was in self._was.items():
            department, _, name = was.old.partition("/")
            if name in self.names.get(department, ()):
                self._reader.refuse(
                    was.place, f"found was: {was.old}, which is still a label, expected a name given up"
                )
            elif was.old in claimed:
                message = f"found was: {was.old}, which {claimed[was.old]} says too, expected it once"
                self._reader.refuse(was.place, message)
            claimed[was.old] = label
        return {label: was.old for label, was in self._was.items()}

    def _label(self, department: str, node: Node, default: str) -> None:
        reader = self._reader
        values = reader.fields(node, "a label", _KEYS, ("name", "level"))
        if values is None:
            return
        name = reader.name(values["name"], "a label's name")
        level = reader.choice(values["level"], "a level", Level)
        if name is None:
            return
        qualified = f"{department}/{name}"
        if name in self.names[department]:
            reader.refuse(
                values["name"], f"found the label {name!r} a second time, expected each name once in a department"
            )
            return
        self.names[department].add(name)
        self.places[qualified] = values["name"].place
        retired = bool(reader.truth(values["retired"])) if "retired" in values else False
        folders = self._folders(qualified, node, values, retired, needed=qualified != default)
        if "was" in values:
            self._was_called(qualified, department, values["was"])
        # With a level that was refused the rest is still read, for the problems in it.
        defaults = DEFAULTS[level or Level.CONFIDENTIAL]
        label = replace(defaults, name=name, department=department, folders=folders, retired=retired)
        self.labels[qualified] = self._settings(label, values)

    def _settings(self, label: Label, values: Mapping[str, Node]) -> Label:
        """The label with what it says itself in place of its level's defaults."""
        reader = self._reader
        said: dict[str, Any] = {}
        if "lease" in values:
            if label.per_file:
                reader.refuse(values["lease"], "found lease on a secret label, expected none: its keys are never lent")
            else:
                said["lease"] = reader.seconds(values["lease"], "a lease", *_LEASE)
        if "offline" in values:
            said["offline"] = reader.seconds(values["offline"], "an offline term", *_OFFLINE)
            if label.per_file and said["offline"]:
                reader.refuse_value(values["offline"], "0 on a secret label: its keys are never lent")
        if "grace" in values:
            said["grace"] = reader.seconds(values["grace"], "a grace", *_GRACE)
        if "unlisted" in values:
            among = (View.CIPHERTEXT, View.NONE)
            said["unlisted"] = reader.choice(values["unlisted"], "the view of unlisted programs", View, among)
        for key, what, choices in (
            ("recheck", "when a caller is checked", ("open", "read")),
            ("save-lower", "what a save into a lower folder does", ("record", "raise", "deny")),
            ("rollback", "what an old copy at its path is", ("record", "refuse")),
        ):
            if key in values:
                said[key.replace("-", "_")] = reader.one_of(values[key], what, choices)
        if "machines" in values:
            machines = reader.one_of(values["machines"], "the machines it may be open on", ("root", "any"))
            said["root_only"] = machines and machines == "root"
        if "wait-fsync" in values:
            said["wait_fsync"] = reader.truth(values["wait-fsync"])
        # A value that was refused stays at its default: the policy is not handed out anyway.
        return replace(label, **{key: value for key, value in said.items() if value is not None})

    def _folders(
        self, qualified: str, node: Node, values: Mapping[str, Node], retired: bool, *, needed: bool
    ) -> tuple[str, ...]:
        reader = self._reader
        if "folders" not in values:
            if needed and not retired:
                message = "found a label without 'folders', expected them ([] for one that only relabel gives)"
                reader.refuse(node, message)
            return ()
        nodes = reader.items(values["folders"], "folders like /sales/clients/**") or ()
        if retired and nodes:
            reader.refuse(
                values["folders"], "found folders on a retired label, expected none: nothing new is born with it"
            )
        patterns: list[str] = []
        for item in nodes:
            pattern = reader.text(item, "a folder like /sales/clients/**")
            if pattern is None:
                continue
            try:
                split_pattern(pattern)
            except ValueError as exc:
                reader.refuse(item, f"found {pattern!r}, {exc}")
                continue
            if pattern in self.folders:
                first = self.folders[pattern]
                message = f"found {pattern!r} a second time, expected one label (first in {first.file}:{first.line})"
                reader.refuse(item, message)
                continue
            self.folders[pattern] = item.place
            self.owners[pattern] = qualified
            patterns.append(pattern)
        return tuple(patterns)

    def _was_called(self, qualified: str, department: str, node: Node) -> None:
        old = self._reader.text(node, "the label's old name, like sales/clients")
        if old is None:
            return
        first, slash, second = old.partition("/")
        if not is_name(first) or (slash and not is_name(second)):
            self._reader.refuse_value(node, "the label's old name, like sales/clients")
        else:
            self._was[qualified] = _Was(node.place, old if slash else f"{department}/{old}")
