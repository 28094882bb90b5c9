"""Folder patterns: `/sales/clients/**` is a folder and all below it; `*` stands for one whole folder name.

Patterns may nest, and the deepest wins; patterns that overlap otherwise are refused by `clash`, so that a path never
has two answers.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations

_ONE = "*"
_TREE = "**"
_RESERVED = frozenset("*?[]{}\\")


def split_pattern(pattern: str) -> tuple[str, ...]:
    """The folder names of a pattern, "/sales/clients/**" -> ("sales", "clients"). ValueError says what it should be."""
    first, *names, last = pattern.split("/") if "/" in pattern else (pattern, "")
    if first or last != _TREE:
        raise ValueError("expected a folder of the drive and all below it, written like /sales/clients/**")
    for name in names:
        if name in ("", ".", ".."):
            raise ValueError(f"expected folder names between the slashes, not {name!r}")
        if name != _ONE and not _RESERVED.isdisjoint(name):
            raise ValueError("expected plain folder names; * stands for one whole name, ** for everything at the end")
        if name != name.strip(" "):
            raise ValueError("expected folder names that neither begin nor end with a space")
        if len(name.encode(errors="surrogateescape")) > 255:
            raise ValueError("expected folder names of at most 255 bytes")
    return tuple(names)


def clashes(patterns: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """Pairs of keys whose patterns overlap without one lying inside the other. Equal patterns are not looked for."""
    # Without a wildcard two trees are apart or nested, so only pairs with one can clash.
    wild = {key: names for key, names in patterns.items() if _ONE in names}
    plain = [(key, names) for key, names in patterns.items() if _ONE not in names]
    pairs = [*combinations(wild.items(), 2), *((left, right) for left in wild.items() for right in plain)]
    for (left, left_names), (right, right_names) in pairs:
        if _overlap(left_names, right_names) and not (
            _inside(left_names, right_names) or _inside(right_names, left_names)
        ):
            yield left, right


def _overlap(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    return all(a == b or _ONE in (a, b) for a, b in zip(left, right, strict=False))


def _inside(inner: tuple[str, ...], outer: tuple[str, ...]) -> bool:
    return len(inner) >= len(outer) and all(b in (a, _ONE) for a, b in zip(inner, outer, strict=False))


class _Folder:
    __slots__ = ("below", "label")

    def __init__(self) -> None:
        self.below: dict[str, _Folder] = {}
        self.label: str | None = None


class FolderMap:
    """Patterns to labels' names, for paths of the drive ("/sales/clients/a.docx")."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        """`labels`: pattern to label name. ValueError for a pattern that is none."""
        self._root = _Folder()
        for pattern, label in labels.items():
            folder = self._root
            for name in split_pattern(pattern):
                folder = folder.below.setdefault(name, _Folder())
            folder.label = label

    def label_for(self, path: str) -> str | None:
        """The label of the deepest matching folder above `path`; None if no pattern matches."""
        found = self._root.label
        folders = [self._root]
        for name in _names(path)[:-1]:
            folders = _step(folders, name)
            # The more literal pattern comes first (see _step), and is the one inside the other.
            found = next((folder.label for folder in folders if folder.label is not None), found)
        return found

    def is_boundary(self, directory: str) -> bool:
        """Whether a pattern names this directory or a place below it."""
        folders = [self._root]
        for name in _names(directory):
            folders = _step(folders, name)
        return any(folder.below or folder.label is not None for folder in folders)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def _step(folders: list[_Folder], name: str) -> list[_Folder]:
    return [found for folder in folders for key in (name, _ONE) if (found := folder.below.get(key)) is not None]
