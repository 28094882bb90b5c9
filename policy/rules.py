"""`rules:`: who, with which programs, may do what with which labels, seen how, when."""

from collections.abc import Callable

from policy.hours import When
from policy.labels import LabelReader
from policy.model import ANY, DEFAULT, SERVICE, Action, Rule, View
from policy.programs import ProgramReader
from policy.reader import Reader, is_login, is_name
from policy.yamltree import Items, Node, Scalar

_KEYS = ("name", "users", "programs", "labels", "allow", "view", "when")
_WHEN_KEYS = ("days", "hours", "zone")
_USER = "a person, @group, service:NAME or any"


class RuleReader:
    """Reads the rules of one file after the other; all labels and programs are known by then."""

    def __init__(self, reader: Reader, labels: LabelReader, programs: ProgramReader, zone: str) -> None:
        self._reader = reader
        self._labels = labels
        self._programs = programs
        self._zone = zone
        self.names: dict[str, set[str]] = {}
        self.rules: list[Rule] = []

    def read(self, department: str, nodes: tuple[Node, ...]) -> None:
        """All rules of a department, in their order."""
        self.names[department] = set()
        for node in nodes:
            self._rule(department, node)

    def _rule(self, department: str, node: Node) -> None:
        reader = self._reader
        values = reader.fields(node, "a rule", _KEYS, _KEYS[:-1])
        if values is None:
            return
        name = reader.name(values["name"], "a rule's name")
        if name == DEFAULT:
            reader.refuse(values["name"], "found 'default', expected another name: it says that no rule matched")
        elif name is not None and name in self.names[department]:
            message = f"found the rule {name!r} a second time, expected each name once in a department"
            reader.refuse(values["name"], message)
        elif name is not None:
            self.names[department].add(name)
        users = self._users(values["users"])
        programs = self._program_names(department, values["programs"])
        labels = self._list(values["labels"], "names of labels", lambda item: self._label(department, item))
        allow = self._actions(values["allow"])
        view = reader.choice(values["view"], "a view", View)
        when = self._when(values["when"]) if "when" in values else None
        if view is View.NONE and allow and (seen := sorted(allow & {Action.READ, Action.WRITE})):
            message = f"found {seen[0].value!r} with view none, expected neither read nor write: nothing is seen"
            reader.refuse(values["allow"], message)
        if name and users and programs and labels and allow is not None and view is not None:
            listed = None if ANY in programs else programs
            self.rules.append(Rule(name, department, users, listed, labels, allow, view, when))

    def _users(self, node: Node) -> tuple[str, ...] | None:
        users = (ANY,) if _is_any(node) else self._list(node, "users", self._user)
        if users and ANY in users and isinstance(node, Items):
            for item in node.items:
                if isinstance(item, Scalar) and item.text != ANY and not item.text.startswith(SERVICE):
                    message = f"found {item.text!r} beside any, expected one of them: any is every person"
                    self._reader.refuse(item, message)
        return users

    def _user(self, node: Node) -> str | None:
        text = self._reader.text(node, _USER)
        if text is None:
            return None
        if text.startswith("@"):
            good = is_name(text[1:]) and text[1:] != ANY
        else:
            good = text == ANY or is_login(text.removeprefix(SERVICE))
        if not good:
            self._reader.refuse_value(node, _USER)
        return text if good else None

    def _program_names(self, department: str, node: Node) -> tuple[str, ...] | None:
        if _is_any(node):
            return (ANY,)
        names = self._list(node, "names of programs", lambda item: self._programs.qualified(department, item))
        if names and ANY in names and len(names) > 1:
            message = "found names beside any, expected one of them: any is every program"
            self._reader.refuse(node, message)
        return names

    def _label(self, department: str, node: Node) -> str | None:
        name = self._reader.text(node, "the name of a label")
        if name is None:
            return None
        if f"{department}/{name}" in self._labels.labels or name in self._labels.names[department]:
            return f"{department}/{name}"
        bare = name.rpartition("/")[2]
        owner = next(
            (other for other, names in self._labels.names.items() if other != department and bare in names), ""
        )
        hint = f" ({bare!r} is {owner}'s: only {owner}'s rules decide on it)" if owner else ""
        self._reader.refuse_value(node, f"a label of this file{hint}", self._labels.names[department])
        return None

    def _list(self, node: Node, what: str, one: Callable[[Node], str | None]) -> tuple[str, ...] | None:
        """A list of names, each once; None if none is left."""
        nodes = self._reader.items(node, what)
        if nodes == ():
            self._reader.refuse_value(node, f"at least one of the {what}")
        names: list[str] = []
        for item in nodes or ():
            name = one(item)
            if name is not None and name in names:
                self._reader.refuse_value(item, "each name once")
            elif name is not None:
                names.append(name)
        return tuple(names) or None

    def _actions(self, node: Node) -> frozenset[Action] | None:
        what = f"actions ({', '.join(Action)})"
        nodes = self._reader.items(node, what)
        if nodes is None:
            return None
        actions: set[Action] = set()
        for item in nodes:
            action = self._reader.choice(item, "an action", Action)
            if action in actions:
                self._reader.refuse_value(item, "each action once")
            elif action is not None:
                actions.add(action)
        return frozenset(actions)

    def _when(self, node: Node) -> When | None:
        reader = self._reader
        values = reader.fields(node, "a when", _WHEN_KEYS, ())
        if values is None:
            return None
        if "days" not in values and "hours" not in values:
            reader.refuse(node, "found a when without days and hours, expected at least one of them")
            return None
        days = reader.days(values["days"]) if "days" in values else ()
        hours = reader.hours(values["hours"]) if "hours" in values else ()
        zone = reader.zone(values["zone"]) if "zone" in values else self._zone
        return None if days is None or hours is None or zone is None else When(days, hours, zone)


def _is_any(node: Node) -> bool:
    return isinstance(node, Scalar) and node.kind == "text" and node.text == ANY
