import hashlib
import threading
from pathlib import Path

import pytest

from fsdriver.identity import Callers, Dpkg, mappings
from policy import ProgramEntry
from tests.fsdriver.identity.processes import FOREVER, LISTED, TAIL, ask, is_listed, running

pytestmark = pytest.mark.root


def test_a_memory_map_that_cannot_be_read_in_time(dpkg: Dpkg, monkeypatch: pytest.MonkeyPatch):
    now, lock = [0.0], threading.Event()
    scan = mappings.scan

    def locked(*arguments: object) -> mappings.Mapped:
        lock.wait()
        return scan(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(mappings, "scan", locked)
    callers = Callers(packages=dpkg, now=lambda: now[0])
    callers.set_programs(LISTED)
    with running(FOREVER) as process:
        caller = ask(callers, process.pid)
        assert caller.why_unlisted == "its memory map cannot be read while it waits for a page"
        lock.set()
        now[0] = 1.0
        assert is_listed(ask(callers, process.pid))
    callers.close()


def test_a_library_listed_by_digest_does_for_a_program_listed_by_digest(place: Path, dpkg: Dpkg):
    tool, library = place / "tool", place / "libours.so"
    tool.write_bytes(Path(TAIL).read_bytes() + b"ours")
    library.write_bytes(Path("/usr/lib/x86_64-linux-gnu/libm.so.6").read_bytes() + b"ours")
    for path in (tool, library):
        path.chmod(0o755)
    entries = [ProgramEntry(str(path), sha256=(_sha256(path),)) for path in (tool, library)]
    callers = Callers(packages=dpkg)
    with running([tool, "-f", "/dev/null"], env={"LD_PRELOAD": str(library)}) as process:
        for listed, expected in ((entries, True), (entries[:1], False)):
            callers.set_programs(listed)
            caller = ask(callers, process.pid)
            assert is_listed(caller) == expected
            assert caller.program is not None
            assert entries[0].matches(caller.program) == expected
    callers.close()


def test_a_packaged_program_with_a_library_listed_by_digest_is_not_its_packages(place: Path, dpkg: Dpkg):
    library = place / "libours.so"
    library.write_bytes(Path("/usr/lib/x86_64-linux-gnu/libm.so.6").read_bytes() + b"ours")
    library.chmod(0o755)
    callers = Callers(packages=dpkg)
    callers.set_programs([*LISTED, ProgramEntry(str(library), sha256=(_sha256(library),))])
    with running(FOREVER, env={"LD_PRELOAD": str(library)}) as process:
        caller = ask(callers, process.pid)
    assert caller.program is not None
    assert caller.program.packages == frozenset()
    assert not LISTED[0].matches(caller.program)
    callers.close()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
