"""`programs:`: named lists of executables, each trusted by its package or by its digest, never by its path alone."""

import re
from collections.abc import Mapping

from policy.model import ANY, COMPANY, ProgramEntry, Programs
from policy.reader import Reader, is_path
from policy.yamltree import Fields, Node

_KEYS = ("path", "package", "sha256", "script", "script-sha256", "jit")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._:-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = "a SHA-256: 64 lower-case hex digits"


class ProgramReader:
    """Reads the programs of one file after the other; `company.yaml` first, whose programs all departments may name."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.names: dict[str, set[str]] = {}
        """Names by department, those with other faults included: rules may name them."""
        self.programs: dict[str, Programs] = {}

    def read(self, department: str, node: Node | None) -> None:
        """All programs of a department; None if its file has none."""
        names = self.names[department] = set()
        if node is None:
            return
        if not isinstance(node, Fields):
            self._reader.refuse_value(node, "names of programs, each with a list of entries")
            return
        for key, value in node.fields:
            name = self._reader.name(key, "a name for programs")
            if name is None:
                continue
            names.add(name)
            if name == ANY:
                self._reader.refuse(key, "found 'any', expected another name: any means every program")
            elif department != COMPANY and name in self.names.get(COMPANY, ()):
                message = f"found {name!r}, expected another name: company.yaml shares programs of this name"
                self._reader.refuse(key, message)
            nodes = self._reader.items(value, "programs")
            if nodes == ():
                self._reader.refuse_value(value, "at least one program")
            entries = tuple(entry for item in nodes or () for entry in self._entries(item))
            qualified = f"{department}/{name}"
            self.programs[qualified] = Programs(qualified, entries)

    def qualified(self, department: str, node: Node) -> str | None:
        """What a rule of `department` means by this name: its own programs, or the company's. `any` is itself."""
        name = self._reader.text(node, "a name of programs, or any")
        if name is None or name == ANY:
            return name
        for owner in (department, COMPANY):
            if name in self.names.get(owner, ()):
                return f"{owner}/{name}"
        known = {ANY, *self.names.get(department, ()), *self.names.get(COMPANY, ())}
        shared = "or company.yaml" if COMPANY in self.names else "(company.yaml is not among the files read)"
        self._reader.refuse_value(node, f"any, or programs named in this file {shared}", known)
        return None

    def _entries(self, node: Node) -> tuple[ProgramEntry, ...]:
        """One entry for each path."""
        reader = self._reader
        values = reader.fields(node, "a program", _KEYS, ("path",))
        if values is None:
            return ()
        paths = reader.several(values["path"], "an absolute path", is_path)
        packages = self._optional(values, "package", "a package's name", _PACKAGE)
        digests = self._optional(values, "sha256", _DIGEST, _SHA256)
        script_digests = self._optional(values, "script-sha256", _DIGEST, _SHA256)
        script = reader.path(values["script"]) if "script" in values else None
        jit = reader.truth(values["jit"]) if "jit" in values else False
        if "package" in values and "sha256" in values:
            message = "found sha256 beside package, expected one of them: what is the program known by?"
            reader.refuse(values["sha256"], message)
            return ()
        if "package" not in values and "sha256" not in values:
            message = "found a program without package or sha256, expected one of them: a path alone proves nothing"
            reader.refuse(node, message)
        if "script-sha256" in values and "script" not in values:
            reader.refuse(values["script-sha256"], "found script-sha256 without script, expected both")
        if not packages and not digests:
            return ()
        return tuple(ProgramEntry(path, packages, digests, script, script_digests, bool(jit)) for path in paths)

    def _optional(self, values: Mapping[str, Node], key: str, what: str, form: re.Pattern[str]) -> tuple[str, ...]:
        return self._reader.several(values[key], what, form.fullmatch) if key in values else ()
