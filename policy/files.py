"""Policy files on disk. The only reading this package does."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from policy.errors import PolicyError, Problem
from policy.yamltree import MOST_CHARACTERS

SAMPLES = Path(__file__).parent / "samples"
"""The departments that `fsdriver demo` starts with."""
_SCHEMAS = Path(__file__).parent / "schema"
_SUFFIXES = frozenset({".yaml", ".yml"})


def read_files(paths: Iterable[Path]) -> dict[str, str]:
    """Name to text of these files, and of the YAML files of these folders (not of folders below them; hidden files are
    left out). OSError for what cannot be read, PolicyError for what is not UTF-8."""
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    for path in paths:
        found = [path]
        if path.is_dir():
            found = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES and each.name[0] != ".")
        for file in found:
            with file.open("rb") as opened:
                data = opened.read(4 * MOST_CHARACTERS)
            try:
                texts[str(file)] = data.decode("utf-8")
            except UnicodeDecodeError as exc:
                line = data.count(b"\n", 0, exc.start) + 1
                column = exc.start - data.rfind(b"\n", 0, exc.start)
                message = f"found the byte 0x{data[exc.start]:02x}, expected UTF-8"
                problems.append(Problem(str(file), line, column, message))
    if problems:
        raise PolicyError(*problems)
    return texts


def editor_schema(which: str) -> dict[str, Any]:
    """The JSON Schema of "department" or "company" files, complete in itself."""
    text = (_SCHEMAS / f"{which}.json").read_text(encoding="utf-8").replace("department.json#/", "#/")
    schema: dict[str, Any] = json.loads(text)
    if "$defs" not in schema:
        schema["$defs"] = editor_schema("department")["$defs"]
    return schema
