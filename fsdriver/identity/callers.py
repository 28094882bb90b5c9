"""Who asks: the thread id of a request becomes a process, its user and the program that it runs.

`known` answers what is already known for a few microseconds and never waits; `identify` finds out, and may read and
hash files. What is known about a process is bound to its memory and to an open /proc/PID, so neither an exec nor a
reused pid inherits it. Design section 5; research R1 section 4 lists the ways round such checks that were tried.
"""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import PurePath

from fsdriver.errors import CallerRefused
from fsdriver.identity.examination import Examiner, Verdict
from fsdriver.identity.files import Files
from fsdriver.identity.packages import Dpkg, Packages
from fsdriver.identity.procfs import Namespaces, Process, Status, exe_path, own_namespaces, process_of
from fsdriver.identity.programs import Programs
from policy import ProgramEntry, ProgramFacts

_PROCESSES = 480  # remembered; two descriptors each, of the 20,000 that some machines allow
_THREADS = 256  # remembered of one process
_VALID_SECONDS = 1.0  # of one look at a process's mappings
_LOOK_SECONDS = 0.005  # of one look at a thread's users and tracer: whoever attaches later needs no longer than that
_RESOLVE_SECONDS = 10.0  # after which links in listed paths are followed again
_SWEEP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Caller:
    """One thread that asks. `start_time` in clock ticks since boot; `path` and `parent` are for records only.

    `why_unlisted` is "" exactly when the process counts as the listed program `program`; policy decides what that is
    worth. `argv_only`: the script was told by the argument vector, which its user can forge; true for every script
    until execs are recorded.
    """

    pid: int
    tid: int
    uid: int
    gid: int
    start_time: int
    program: ProgramFacts | None
    why_unlisted: str
    path: str
    sha256: str
    ppid: int
    parent: str
    argv_only: bool = False


class _Known:
    """A process that was examined, and its threads that asked."""

    __slots__ = ("process", "threads", "used", "verdict")

    def __init__(self, process: Process) -> None:
        self.process = process
        self.verdict: Verdict | None = None
        self.threads: list[int] = []
        self.used = True

    def same(self, verdict: Verdict) -> bool:
        """Whether the process is there, and still has the memory that `verdict` is about."""
        # A child of vfork keeps its parent's memory in use, after the parent's end (when the number may be given to
        # another process) and after its own exec, so ask for the process, and whether it has called exec.
        process = self.process
        return process.same_memory() and process.exists() and not (verdict.forked and not process.stat().forked)


class _Thread:
    __slots__ = ("admitted", "caller", "known", "looked_at", "seen_at", "status", "task", "uid", "verdict")

    def __init__(
        self,
        known: _Known,
        verdict: Verdict,
        status: Status,
        admitted: frozenset[Namespaces],
        caller: Caller,
        now: float,
    ) -> None:
        self.known, self.verdict, self.status, self.admitted = known, verdict, status, admitted
        self.caller, self.uid = caller, caller.uid
        # The number of a thread that ended may be given to another process while its own lives on. A process's first
        # thread has the number for as long as the process is there, which is asked about anyway.
        self.task = b"task/%d" % caller.tid if caller.tid != caller.pid else b""
        self.seen_at = self.looked_at = now


class Callers:
    """Everybody who asks. Thread-safe.

    `drive` is the mount point: files below it are never looked at. `now` is a clock in seconds that only goes forward.
    """

    def __init__(
        self,
        *,
        packages: Packages | None = None,
        drive: PurePath | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = Files()
        self._packages = packages or Dpkg()
        self._examiner = Examiner(self._files, self._packages, now)
        self._drive = drive
        self._now = now
        self._programs = Programs((), self._files, drive)
        self._own = own_namespaces()
        self._admitted: frozenset[Namespaces] = frozenset({self._own})
        self._lock = threading.Lock()
        self._processes: dict[int, _Known] = {}
        self._threads: dict[int, _Thread] = {}
        self._resolved_at = self._swept_at = now()

    def close(self) -> None:
        """Forget everybody and end the threads."""
        self._examiner.close()
        with self._lock:
            self._processes.clear()
            self._threads.clear()

    def set_programs(self, entries: Iterable[ProgramEntry]) -> None:
        """Make these the listed programs. Hashes their files first; until it is done the earlier list holds."""
        programs = Programs(entries, self._files, self._drive)
        with self._lock:
            self._programs = programs

    def warm(self) -> None:
        """Hash the libraries of the listed packages, so that the first open by a large program need not wait for it.

        Takes seconds; made for a thread of its own.
        """
        for package in dict.fromkeys(name for entry in self._programs.entries for name in entry.packages):
            for path in self._packages.files(package):
                if b".so" in path:
                    with contextlib.suppress(OSError):
                        self._files.facts(path)

    def admit(self, pid: int) -> Callable[[], None]:
        """Let processes in the namespaces of `pid`, which the daemon itself has started there, count as listed ones.

        Returns the function that ends it. Raises OSError if there is no such process.
        """
        process = Process(pid, pid)
        held = process.hold_namespaces(pid)  # else the kernel could give their numbers to others
        namespaces = process.namespaces(pid)
        with self._lock:
            self._admitted |= {namespaces}

        def dismiss() -> None:
            with self._lock:
                self._admitted -= {namespaces} - {self._own}
            while held:
                os.close(held.pop())

        return dismiss

    def known(self, tid: int, uid: int, *, thorough: bool = False, recent: float = 0.0) -> Caller | None:
        """The caller, if nothing about it has changed, else None: it must be identified. Never waits.

        Whether the process has called exec is looked at anew each time, unless that was done within the last `recent`
        seconds: enough for what shows no content. `thorough` is for what opens or creates: it also sees another user,
        a tracer, a changed program file or newly loaded code, of which one look holds for some milliseconds (a second
        for the mappings).
        """
        thread = self._threads.get(tid)
        if thread is None or thread.uid != uid:
            return None
        known, verdict = thread.known, thread.verdict
        if known.verdict is not verdict or verdict.programs is not self._programs:
            return None
        if thread.admitted is not self._admitted:
            return None
        now = self._now()
        if not thorough and now - thread.seen_at < recent:
            return thread.caller
        try:
            if not known.same(verdict):
                return None
            if thread.task:
                os.stat(thread.task, dir_fd=known.process.directory)
            if thorough and verdict.program is not None and now - thread.looked_at >= _LOOK_SECONDS:
                if not self._unchanged(thread):
                    return None
                thread.looked_at = now
        except OSError:
            return None
        thread.seen_at = now
        known.used = True
        return thread.caller

    def identify(self, tid: int, uid: int) -> Caller:
        """The caller. Raises CallerRefused for pid 0, a kernel thread, or a thread that is gone.

        To be called where waiting is allowed: it takes milliseconds, or seconds while libraries are hashed for the
        first time. The thread must be blocked in the request it is asked for, so that its id cannot change hands.
        """
        if tid == 0:
            raise CallerRefused("the request names no process")
        try:
            return self._identify(tid, uid)
        except OSError as exc:
            if exc.errno in (errno.ESRCH, errno.ENOENT):
                raise CallerRefused(f"thread {tid} is gone, or belongs to the kernel") from exc
            if exc.errno in (errno.EACCES, errno.EPERM):
                return _outsider(tid, uid, process_of(tid), "the kernel hides it from the drive")
            raise

    def _identify(self, tid: int, uid: int) -> Caller:
        pid = process_of(tid)
        if pid == os.getpid():
            # Decided before any lock: a thread of ours that hashes a program may hold it and wait for this answer.
            return _outsider(tid, uid, pid, "it is the drive's own daemon")
        known = self._remembered(pid, tid) or _Known(Process(pid, tid))
        process, programs, admitted = known.process, self._current_programs(), self._admitted
        if process.stat().kernel:
            raise CallerRefused(f"thread {tid} belongs to the kernel")
        now = self._now()
        status = process.status(tid)
        verdict = known.verdict
        if verdict is None or verdict.programs is not programs or not self._holds(verdict, process, tid, status):
            verdict = self._examiner.examine(process, tid, status.code_kb, programs, verdict)
        caller = _caller(tid, uid, status, verdict, _unfit(process, tid, uid, status, admitted))
        if not known.same(verdict):
            raise CallerRefused(f"process {pid} became another program while it was examined")
        self._remember(known, _Thread(known, verdict, status, admitted, caller, now))
        return caller

    def _remembered(self, pid: int, tid: int) -> _Known | None:
        known = self._processes.get(pid)
        if known is None or known.verdict is None:
            return None
        try:
            known.process.status(tid)  # the number may have been given to another process since
            return known if known.same(known.verdict) else None
        except OSError:
            return None

    def _holds(self, verdict: Verdict, process: Process, tid: int, status: Status) -> bool:
        if verdict.program is None:
            return process.exe_link(tid) == verdict.link
        fresh = self._now() - verdict.examined_at < _VALID_SECONDS
        return fresh and status.code_kb == verdict.code_kb and process.exe(tid) == verdict.exe

    def _unchanged(self, thread: _Thread) -> bool:
        process, tid = thread.known.process, thread.caller.tid
        status = process.status(tid)
        return status[2:] == thread.status[2:] and self._holds(thread.verdict, process, tid, status)

    def _current_programs(self) -> Programs:
        programs = self._programs
        if self._now() - self._resolved_at >= _RESOLVE_SECONDS:
            self._resolved_at = self._now()
            fresh = programs.resolved_anew()
            with self._lock:
                if self._programs is programs:
                    self._programs = fresh
        return self._programs

    def _remember(self, known: _Known, thread: _Thread) -> None:
        pid, tid = thread.caller.pid, thread.caller.tid
        with self._lock:
            other = self._processes.get(pid)
            if other is not None and other is not known:
                self._forget(pid)
            known.verdict = thread.verdict
            self._processes[pid] = known
            self._threads[tid] = thread
            if tid not in known.threads:
                known.threads.append(tid)
                if len(known.threads) > _THREADS:
                    self._threads.pop(known.threads.pop(0), None)
            if self._now() - self._swept_at >= _SWEEP_SECONDS:
                self._swept_at = self._now()
                for dead in [pid for pid, known in self._processes.items() if not known.process.same_memory()]:
                    self._forget(dead)
            while len(self._processes) > _PROCESSES:
                oldest, candidate = next(iter(self._processes.items()))
                if candidate.used:  # asked since it was last at the head: back to the tail
                    candidate.used = False
                    self._processes[oldest] = self._processes.pop(oldest)
                else:
                    self._forget(oldest)

    def _forget(self, pid: int) -> None:
        for tid in self._processes.pop(pid).threads:
            self._threads.pop(tid, None)


def _unfit(process: Process, tid: int, uid: int, status: Status, admitted: frozenset[Namespaces]) -> str:
    """Why the thread cannot stand for its program now, "" if it can."""
    if set(status.uids) != {uid}:
        return "its real, effective, saved and filesystem user differ"
    if status.tracer:
        return f"process {status.tracer} is tracing it"
    if process.namespaces(tid) not in admitted:
        return "it runs in another user, pid or mount namespace than the drive"
    return ""


def _caller(tid: int, uid: int, status: Status, verdict: Verdict, unfit: str) -> Caller:
    program = verdict.program
    if unfit and program is not None:
        program = replace(program, packages=frozenset(), script="", script_sha256="", clean=False)
    return Caller(
        pid=status.pid,
        tid=tid,
        uid=uid,
        gid=status.gid,
        start_time=verdict.start_time,
        program=program,
        why_unlisted=verdict.why_unlisted or unfit,
        path=os.fsdecode(verdict.link),
        sha256=program.sha256 if program else "",
        ppid=status.ppid,
        parent=exe_path(status.ppid),
        argv_only=verdict.argv_only,
    )


def _outsider(tid: int, uid: int, pid: int, why: str) -> Caller:
    """A caller that cannot, or need not, be looked at."""
    process = Process(pid, tid)
    status = process.status(tid)
    return Caller(
        pid=pid,
        tid=tid,
        uid=uid,
        gid=status.gid,
        start_time=process.stat().start_time,
        program=None,
        why_unlisted=why,
        path=exe_path(pid),
        sha256="",
        ppid=status.ppid,
        parent=exe_path(status.ppid),
    )
