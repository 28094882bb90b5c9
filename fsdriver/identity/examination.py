"""What a process is: its executable and every file that its code comes from, compared with policy and the packages.

The outcome holds for a process's memory, so for all its threads and until exec; who its user is and what may change
from one request to the next (tracer, namespaces) is the business of `callers`.
"""

import os
import time
from collections.abc import Callable, Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from fsdriver.identity import mappings, scripts
from fsdriver.identity.files import FileFacts, Files
from fsdriver.identity.mappings import FileId, Mapped, without_deleted
from fsdriver.identity.packages import Packages
from fsdriver.identity.procfs import Process, Signature
from fsdriver.identity.programs import Listed, Programs
from fsdriver.identity.vouching import Untrusted, Vouching
from policy import ProgramFacts

_SCAN_SECONDS = 0.5
_SCAN_LOOKS = 5


class Verdict(NamedTuple):
    """`program` is None for a program that policy does not list; `why_unlisted` is "" when it counts as listed.

    `link`, `exe`, `code_kb` and `forked` are what has to be as it was for the verdict to hold; `vouched` are the files
    its code came from; `argv_only` as in `Caller`.
    """

    programs: Programs
    link: bytes
    forked: bool
    start_time: int
    examined_at: float
    exe: Signature | None = None
    code_kb: int = 0
    program: ProgramFacts | None = None
    why_unlisted: str = ""
    argv_only: bool = False
    vouched: frozenset[FileId] = frozenset()


class Examiner:
    """Examines processes. Thread-safe; reads and hashes files, so no request that others wait for should call it."""

    def __init__(self, files: Files, packages: Packages, now: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._vouching = Vouching(files, packages)
        self._now = now
        self._scanners = ThreadPoolExecutor(4, "scan-mappings")

    def close(self) -> None:
        """End the threads; nothing can be examined afterwards."""
        self._scanners.shutdown(wait=False)

    def examine(self, process: Process, tid: int, code_kb: int, programs: Programs, before: Verdict | None) -> Verdict:
        """Examine `process` through its thread `tid`; `before` is an earlier verdict on the same memory.

        Raises OSError if the process is gone, or hidden from us.
        """
        stat, link = process.stat(), process.exe_link(tid)
        verdict = Verdict(programs, link, stat.forked, stat.start_time, self._now(), code_kb=code_kb)
        path, deleted = without_deleted(link)
        listed = programs.by_path.get(path)
        if listed is None:
            return verdict._replace(why_unlisted="policy lists no such program")
        exe, facts = process.exe(tid), programs.facts(listed)
        verdict = verdict._replace(exe=exe)
        trusted_before = before.vouched if before else frozenset()
        try:
            if deleted and before and before.program and before.program.clean:
                # Upgraded while it runs: its old file is what we vouched for, and can no longer be opened for writing.
                mapped = self._scan(process, tid)
                own = self._check(mapped, mapped.files, programs, trusted_before)
                program = replace(before.program, jit=mapped.anonymous)
                program = program if own else replace(program, packages=frozenset())
                return verdict._replace(
                    program=program, argv_only=before.argv_only, vouched=trusted_before | frozenset(mapped.files)
                )
            if facts is None or deleted or facts.signature != exe:
                raise Untrusted("its program file was replaced since it started")
            return self._listed(process, tid, verdict, listed, facts, trusted_before)
        except Untrusted as why:
            sha256 = facts.sha256 if facts and facts.signature == exe else ""
            return verdict._replace(program=ProgramFacts(listed.name, sha256), why_unlisted=str(why))

    def _listed(
        self, process: Process, tid: int, verdict: Verdict, listed: Listed, facts: FileFacts, before: frozenset[FileId]
    ) -> Verdict:
        packages = self._vouching.owners(listed.path, facts.digests) if facts.root_only else frozenset()
        if not packages and not any(facts.sha256 in entry.sha256 for entry in listed.entries):
            raise Untrusted("its program file is neither a listed one nor as its package installed it")
        mapped = self._scan(process, tid)
        if facts.mapped not in mapped.files:
            raise Untrusted("the code it runs is not that of its program file")
        libraries = [file for file in mapped.files if file != facts.mapped]
        if not self._check(mapped, libraries, verdict.programs, before):
            packages = frozenset()
        script, why = self._script(process, tid, listed) if packages else (None, "its interpreter is no package's own")
        if script is None and all(entry.script is not None for entry in listed.entries):
            raise Untrusted(why)
        program = ProgramFacts(
            path=listed.name,
            sha256=facts.sha256,
            packages=packages,
            script=script.path if script else "",
            script_sha256=script.sha256 if script else "",
            clean=True,
            jit=mapped.anonymous,
        )
        return verdict._replace(program=program, argv_only=script is not None, vouched=frozenset(mapped.files))

    def _check(self, mapped: Mapped, files: Iterable[FileId], programs: Programs, before: frozenset[FileId]) -> bool:
        """Whether packages vouch for all of `files`; false if listed digests do for some. Raises Untrusted."""
        digests: dict[FileId, str] | None = None
        all_packaged = True
        for file in files:
            try:
                self._vouching.check(file, mapped.files[file], before)
            except Untrusted:
                digests = programs.listed_digests() if digests is None else digests
                if file not in digests:
                    raise
                all_packaged = False
        return all_packaged

    def _script(self, process: Process, tid: int, listed: Listed) -> tuple[scripts.Script | None, str]:
        wanted = [entry.script for entry in listed.entries if entry.script is not None]
        if not wanted:
            return None, ""
        try:
            return scripts.running(process.arguments(tid), listed.path, wanted, self._files), ""
        except ValueError as why:
            return None, str(why)

    def _scan(self, process: Process, tid: int) -> Mapped:
        mapped = self._scan_once(process, tid, self._vouching.known)
        if self._vouching.forget_changed(file for file, path in mapped.files.items() if not path):
            mapped = self._scan_once(process, tid, self._vouching.known)
        return mapped

    def _scan_once(self, process: Process, tid: int, known: Container[FileId]) -> Mapped:
        fd = process.open_maps(tid)
        scan = self._scanners.submit(mappings.scan, fd, known)
        scan.add_done_callback(lambda _: os.close(fd))
        try:
            # In several looks, so that a machine that stands still for longer refuses nobody.
            for _ in range(_SCAN_LOOKS):
                with suppress(NotInTime):
                    return scan.result(_SCAN_SECONDS / _SCAN_LOOKS)
            # A page fault holds the lock and waits for us. Refused it lets go, and the scan ends by itself.
            raise Untrusted("its memory map cannot be read while it waits for a page")
        except ProcessLookupError:
            raise
        except OSError as exc:
            raise Untrusted(f"its memory map cannot be read: {exc.strerror}") from exc
