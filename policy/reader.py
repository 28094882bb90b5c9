"""Reading values out of a YAML tree: every method returns the value, or None after it reported what is wrong.

So one pass finds all problems. Messages have one form: what was found, what was expected, the nearest name.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import TypeVar

from policy.errors import Place, Problem
from policy.hours import DAYS, MINUTES_A_DAY, zone_names
from policy.yamltree import Fields, Items, Node, Scalar

_NAME = re.compile(r"[A-Za-z0-9\u0080-\U0010ffff][A-Za-z0-9._\u0080-\U0010ffff-]{0,62}")
_DURATION = re.compile(r"(0|[1-9][0-9]{0,8})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|(24):(00))")
_KINDS = {"bool": "true or false", "number": "a number", "null": "nothing", "other": "a date or special value"}

Choice = TypeVar("Choice", bound=StrEnum)


class Reader:
    """Collects `problems` while it reads."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def refuse(self, at: Node | Place, message: str) -> None:
        place = at if isinstance(at, Place) else at.place
        self.problems.append(Problem(*place, message))

    def refuse_value(self, node: Node, expected: str, among: Iterable[str] = ()) -> None:
        """Reports the value at `node`; `among` are the names it might have meant."""
        if isinstance(node, Scalar) and node.kind == "refused":
            return
        self.refuse(node, f"found {_found(node)}, expected {expected}{_nearest(node, among)}")

    def fields(
        self, node: Node, what: str, known: Collection[str], required: Collection[str]
    ) -> Mapping[str, Node] | None:
        """The values of a mapping by key. Unknown keys and missing ones are reported; None if a required one is not
        there, or it is no mapping."""
        if not isinstance(node, Fields):
            self.refuse_value(node, f"{what}: a mapping with {_listed(required)}")
            return None
        values: dict[str, Node] = {}
        for key, value in node.fields:
            if key.text in known:
                values[key.text] = value
            else:
                self.refuse(
                    key, f"found the key {key.text!r}, expected one of {', '.join(known)}{_nearest(key, known)}"
                )
        missing = [name for name in required if name not in values]
        if missing:
            self.refuse(
                node, f"found {what} without {_listed(missing)}, expected {'it' if len(missing) == 1 else 'them'}"
            )
        return None if missing else values

    def items(self, node: Node, what: str) -> tuple[Node, ...] | None:
        """The nodes of a list."""
        if isinstance(node, Items):
            return node.items
        self.refuse_value(node, f"a list of {what}")
        return None

    def text(self, node: Node, expected: str) -> str | None:
        """Text. A plain word that YAML reads as a number, a truth value, a date ... wants quotes."""
        if not isinstance(node, Scalar) or node.kind == "null" or not node.text.strip():
            self.refuse_value(node, expected)
        elif node.kind == "text":
            return node.text
        elif node.kind != "refused":
            self.refuse(
                node, f"found {node.text}, which YAML reads as {_KINDS[node.kind]}, expected {expected}: quote it"
            )
        return None

    def name(self, node: Node, what: str) -> str | None:
        """A name: letters, digits, ".", "_" and "-", at most 63, starting with a letter or digit; any script."""
        text = self.text(node, what)
        if text is None:
            return None
        if not is_name(text):
            self.refuse_value(node, f"{what}: letters, digits, '.', '_', '-', at most 63, a letter or digit first")
            return None
        return text

    def path(self, node: Node) -> str | None:
        """An absolute path in its shortest form."""
        text = self.text(node, "an absolute path")
        if text is None or is_path(text):
            return text
        self.refuse_value(node, "an absolute path, without ., .., * or a slash at the end")
        return None

    def several(self, node: Node, expected: str, good: Callable[[str], object]) -> tuple[str, ...]:
        """One text or a list of at least one, each `good`; () when there is none."""
        nodes = (node,) if isinstance(node, Scalar) else self.items(node, expected)
        if nodes == ():
            self.refuse_value(node, expected)
        found: list[str] = []
        for item in nodes or ():
            text = self.text(item, expected)
            if text is not None and good(text):
                found.append(text)
            elif text is not None:
                self.refuse_value(item, expected)
        return tuple(found)

    def one_of(self, node: Node, what: str, choices: Collection[str]) -> str | None:
        """One of the words in `choices`."""
        text = self.text(node, f"{what} ({', '.join(choices)})")
        if text is None or text in choices:
            return text
        self.refuse_value(node, f"{what} ({', '.join(choices)})", choices)
        return None

    def choice(
        self, node: Node, what: str, kind: type[Choice], among: Collection[Choice] | None = None
    ) -> Choice | None:
        """A member of an enumeration, by its value."""
        text = self.one_of(node, what, [member.value for member in among or kind])
        return None if text is None else kind(text)

    def truth(self, node: Node) -> bool | None:
        """`true` or `false`, and no other spelling."""
        if isinstance(node, Scalar) and node.kind == "bool" and node.text in ("true", "false"):
            return node.text == "true"
        self.refuse_value(node, "true or false")
        return None

    def seconds(self, node: Node, what: str, least: int, most: int) -> float | None:
        """A duration with its unit ("15m", "8h"), within bounds; a plain 0 needs no unit."""
        expected = f"{what}, a whole number with its unit s, m, h or d, like 15m"
        if isinstance(node, Scalar) and node.kind in ("text", "number"):
            found = _DURATION.fullmatch("0s" if node.text == "0" else node.text)
            if found is not None:
                seconds = int(found[1]) * _SECONDS[found[2]]
                if least <= seconds <= most:
                    return float(seconds)
                expected = f"{what} from {_duration(least)} to {_duration(most)}"
        self.refuse_value(node, expected)
        return None

    def zone(self, node: Node) -> str | None:
        """The name of a zone that the pinned data knows."""
        text = self.text(node, "a zone like Asia/Shanghai")
        if text is None or text in zone_names():
            return text
        self.refuse_value(node, "a zone like Asia/Shanghai", zone_names())
        return None

    def days(self, node: Node) -> tuple[int, ...] | None:
        """`mon`, `mon-fri`, `sat-mon`, or a list of these; sorted, Monday is 0."""
        expected = "a day or days (mon, tue, wed, thu, fri, sat, sun), like mon-fri or [mon, wed]"
        days: set[int] = set()
        good = True
        for part in node.items if isinstance(node, Items) else (node,):
            text = self.text(part, expected)
            first, dash, last = (text or "").partition("-")
            if text is None or first not in DAYS or (dash and last not in DAYS):
                if text is not None:
                    self.refuse_value(part, expected, DAYS)
                good = False
                continue
            start, end = DAYS.index(first), DAYS.index(last or first)
            days.update(day % 7 for day in range(start, end + 1 if end >= start else end + 8))
        if good and not days:
            self.refuse_value(node, expected)
        return tuple(sorted(days)) if good and days else None

    def hours(self, node: Node) -> tuple[tuple[int, int], ...] | None:
        """`08:00-20:00`, or a list of these, in minutes of the day."""
        expected = "hours like 08:00-20:00 (22:00-06:00 runs past midnight, 24:00 ends the day)"
        spans: list[tuple[int, int]] = []
        good = True
        for part in node.items if isinstance(node, Items) else (node,):
            text = self.text(part, expected)
            found = _HOURS.fullmatch(text or "")
            start, end = _minutes(found) if found else (0, 0)
            if start == end:
                if text is not None:
                    self.refuse_value(part, expected)
                good = False
            else:
                spans.append((start, end))
        if good and not spans:
            self.refuse_value(node, expected)
        return tuple(sorted(set(spans))) if good and spans else None


def is_name(text: str) -> bool:
    """Whether `text` can name a department, label, rule, program list or group."""
    if not _NAME.fullmatch(text) or unicodedata.normalize("NFC", text) != text:
        return False
    return all(char.isascii() or unicodedata.category(char)[0] in "LMN" for char in text)


def is_login(text: str) -> bool:
    """Whether `text` can be a person's name: a name that may contain "@" and "+" as well."""
    return text[:1] not in ("@", "+") and text != "any" and is_name(re.sub("[@+]", "_", text))


def is_path(text: str) -> bool:
    """Whether `text` is an absolute path in its shortest form, and no pattern."""
    names = text.split("/")[1:]
    return text.startswith("/") and "*" not in text and not any(name in ("", ".", "..") for name in names)


def nearest(text: str, among: Iterable[str]) -> str:
    """'; did you mean ...?' for the closest of `among`, or ''."""
    close = get_close_matches(text, sorted(among), 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close and close[0] != text else ""


def _nearest(node: Node, among: Iterable[str]) -> str:
    return nearest(node.text, among) if isinstance(node, Scalar) and len(node.text) <= 200 else ""


def _minutes(found: re.Match[str]) -> tuple[int, int]:
    hour, minute = found[3] or found[5], found[4] or found[6]
    start, end = int(found[1]) * 60 + int(found[2]), int(hour) * 60 + int(minute)
    if start and not end:
        end = MINUTES_A_DAY  # 20:00-00:00 ends with the day; 00:00-00:00 is refused, as nothing or all day
    return start, end


def _found(node: Node) -> str:
    if isinstance(node, Items):
        return "a list" if node.items else "an empty list"
    if isinstance(node, Fields):
        return "a mapping"
    if node.kind == "null" or not node.text:
        return "nothing"
    return repr(node.text if len(node.text) <= 80 else node.text[:77] + "...")


def _listed(names: Collection[str]) -> str:
    return ", ".join(repr(name) for name in names) if names else "its keys"


def _duration(seconds: int) -> str:
    for unit in "dhm":
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds // _SECONDS[unit]}{unit}"
    return f"{seconds}s"
