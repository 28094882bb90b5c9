"""Whether a running interpreter runs a listed script, started through the script's own #! line.

Limit: the argument vector is the only trace of a script in /proc, and a process can write what it likes there, so this
holds against mistakes, not against a user who forges it. Only a record of the exec itself proves more.
"""

import os
import re
import stat
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

from fsdriver.identity.files import Files

# -I: no PYTHON* variables, no user site, no script directory in sys.path. Other interpreters have nothing like it.
_ISOLATED = re.compile(rb"#! ?(/\S*/python3?(?:\.\d+)?) (-[sSEbBu]*I[sSEbBu]*)")


class Script(NamedTuple):
    """A script that runs: where it lies, and its SHA-256."""

    path: str
    sha256: str


def running(arguments: Sequence[str], interpreter: bytes, listed: Sequence[str], files: Files) -> Script:
    """The one of the `listed` scripts that `arguments` name, run by the program file `interpreter`.

    Raises ValueError with the reason if it is none of them or was not started as its #! line says.
    """
    if len(arguments) < 3 or arguments[2] not in listed:
        raise ValueError("it does not run a listed script through its #! line")
    path = arguments[2]
    try:
        for folder in PurePath(path).parents:
            if not _root_only(os.stat(folder, follow_symlinks=False)):
                raise ValueError(f"others than root can change {folder}, where its script lies")
        facts = files.facts(path)
    except OSError as exc:
        raise ValueError(f"its script cannot be read: {exc.strerror or exc}") from exc
    if not facts.root_only:
        raise ValueError("others than root can change its script")
    line = _ISOLATED.fullmatch(facts.first_line.rstrip())
    if line is None:
        raise ValueError("its script's first line is not a Python interpreter with -I")
    if os.path.realpath(line[1]) != interpreter or arguments[:2] != [os.fsdecode(line[1]), os.fsdecode(line[2])]:
        raise ValueError("its script was not started through its #! line")
    return Script(path, facts.sha256)


def _root_only(found: os.stat_result) -> bool:
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    return found.st_uid == 0 and (bool(sticky) or not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
