"""The files that policy lists as programs, found and hashed before anybody asks.

A process is compared with these by the path, then the inode, of its executable, so nothing ever has to be opened to
tell that a program is not listed. An entry whose file is missing takes effect when the file appears.
"""

import os
from collections.abc import Iterable
from pathlib import PurePath
from typing import NamedTuple

from fsdriver.identity.files import FileFacts, Files
from fsdriver.identity.mappings import FileId
from policy import ProgramEntry

_MOST_LINKS = 40  # as the kernel


class Listed(NamedTuple):
    """A file that policy lists. `path` is the file's own; `name` is what the entries call it (they may use a link)."""

    path: bytes
    name: str
    entries: tuple[ProgramEntry, ...]


class Programs:
    """The listed files at one moment; never changes, apart from digests that are taken again when a file changes."""

    def __init__(self, entries: Iterable[ProgramEntry], files: Files, drive: PurePath | None = None) -> None:
        self.entries = tuple(dict.fromkeys(entries))
        self._files = files
        self._drive = drive
        self.by_path = self._resolve()
        for listed in self.by_path.values():
            self.facts(listed)

    def resolved_anew(self) -> "Programs":
        """Itself, or its successor if a path now leads to another file (installed, or a link that was changed)."""
        fresh = Programs.__new__(Programs)
        fresh.entries, fresh._files, fresh._drive = self.entries, self._files, self._drive
        fresh.by_path = fresh._resolve()
        return self if fresh.by_path == self.by_path else fresh

    def facts(self, listed: Listed) -> FileFacts | None:
        """The listed file as it is now; None if it is missing, or no plain file."""
        try:
            return self._files.facts(listed.path)
        except OSError:
            return None

    def listed_digests(self) -> dict[FileId, str]:
        """Mapping id and SHA-256 of the files that lie where an entry says and have one of its digests."""
        found: dict[FileId, str] = {}
        for listed in self.by_path.values():
            facts = self.facts(listed)
            if facts and facts.root_only and any(facts.sha256 in entry.sha256 for entry in listed.entries):
                found[facts.mapped] = facts.sha256
        return found

    def _resolve(self) -> dict[bytes, Listed]:
        entries: dict[str, list[ProgramEntry]] = {}
        for entry in self.entries:
            entries.setdefault(entry.path, []).append(entry)
        paths = {name: self._path(name) for name in entries}
        found: dict[bytes, Listed] = {}
        # A name that is the file's own path comes last and wins over links to it: a caller has one path in policy.
        for name in sorted(paths, key=lambda name: paths[name] == name):
            path = paths[name]
            if path is not None:
                found[os.fsencode(path)] = Listed(os.fsencode(path), name, tuple(entries[name]))
        return found

    def _path(self, name: str) -> str | None:
        """The path without links, None if it leads onto the drive: to look at a file there is to ask ourselves."""
        path, rest, links = PurePath("/"), [*reversed(PurePath(name).parts)], 0
        while rest:
            step = rest.pop()
            path = path.parent if step == ".." else path / step  # a step "/" begins again at the root
            if self._drive is not None and path.is_relative_to(self._drive):
                return None
            try:
                target = os.readlink(path)
            except OSError:
                continue  # no link, or not there (yet)
            links += 1
            if links > _MOST_LINKS:
                return None
            path = path.parent
            rest.extend(reversed(PurePath(target).parts))
        return str(path)
