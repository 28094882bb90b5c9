"""What any directory on Linux does: one list, run by `test_posix` on a plain directory and on a drive.

Needs root and nothing but the standard library, as a listed interpreter runs it. Every `check_*` gets a directory and
a process of its own; one line of JSON each on stdout.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.mounted.posix import (
    attributes,
    coherence,
    content,
    depth,
    locks,
    mappings,
    names,
    privileges,
    ranges,
    sizes,
    times,
    xattrs,
)
from tests.mounted.posix.support import ended

CHECKS: dict[str, Callable[[Path], None]] = {
    name.removeprefix("check_"): function
    for part in (
        content,
        sizes,
        names,
        depth,
        attributes,
        privileges,
        times,
        xattrs,
        locks,
        ranges,
        mappings,
        coherence,
    )
    for name, function in vars(part).items()
    if name.startswith("check_")
}
CHECK_SECONDS = 120


def _too_long(*_: object) -> None:
    raise TimeoutError(f"took more than {CHECK_SECONDS} seconds")


def main() -> None:
    top = Path(sys.argv[1])
    for name in sys.argv[2:] or CHECKS:
        folder = top / name
        folder.mkdir()
        # A child for each, so that nothing one of them leaves (locks, handlers, a hang) reaches the next.
        reading, writing = os.pipe()
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGALRM, _too_long)
            signal.alarm(CHECK_SECONDS)
            os.dup2(writing, 2)
            os.close(reading)
            try:
                CHECKS[name](folder)
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as pipe:
            trouble = pipe.read().decode()
        code = ended(pid)
        if code:
            trouble += f"ended with {code}"
        print(json.dumps({"check": name, "trouble": trouble, "seconds": time.monotonic() - started}), flush=True)
