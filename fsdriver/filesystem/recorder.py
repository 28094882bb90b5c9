"""Records of what callers do in the drive: the one place that knows how a request becomes a canonical record.

A record is in the spool before `Recorder` returns, so a caller who answers the kernel afterwards never lets an open
succeed without one. Errors: SpoolFailed, and the request is refused.
"""

import os

from fsdriver.audit_spool import AuditSpool, path_text
from fsdriver.content import Replayed
from fsdriver.identity import Caller
from fsdriver.nodes.directories import Directories
from fsdriver.nodes.inode import Inode
from fsdriver.views import Views
from keyserver.messages import FilePath, ProgramPath

_LONGEST = 4096
"""Characters of one text. A tree can be deeper than any path can say, and a record that the log does not take would
refuse everything down there; the file id still says which file it was."""


class Recorder:
    """Turns callers and inodes into records. Thread-safe, as the spool is."""

    def __init__(self, spool: AuditSpool, directories: Directories, views: Views) -> None:
        self._spool = spool
        self._directories = directories
        self._views = views
        self._programs: dict[int, tuple[Caller, ProgramPath]] = {}

    def record(
        self,
        event: str,
        caller: Caller,
        inode: Inode | None = None,
        *,
        path: str | None = None,
        label: str = "",
        generation: int = 0,
        view: str = "",
        rule: str = "",
        bytes_read: int = 0,
        bytes_written: int = 0,
        to: str = "",
        detail: str = "",
        durable: bool = False,
    ) -> None:
        """Keep one record; with `durable` it has reached the disk on return."""
        file = None
        if path is None and inode is not None:
            path = self._directories.path(inode)
        if path is not None:
            file = FilePath(
                path=_text(path),
                id=inode.file_id.hex() if inode is not None and inode.file_id is not None else "",
                label=label,
                generation=generation,
            )
        seq = self._spool.append(
            event=event,
            user=self._views.person(caller.uid) or "",
            uid=caller.uid,
            file=file,
            program=self._program(caller),
            view=view,
            rule=rule,
            policy=self._views.policy,
            bytes_read=bytes_read,
            bytes_written=bytes_written,
            to=_text(to),
            detail=_text(detail),
        )
        if durable:
            self._spool.sync(seq)

    def note(self, event: str, detail: str = "", *, path: str | None = None, label: str = "") -> None:
        """A record of the agent itself: mount, unmount, damage found in the background."""
        file = FilePath(path=_text(path), label=label) if path is not None else None
        self._spool.append(event=event, file=file, policy=self._views.policy, detail=_text(detail))

    def replayed(self, change: Replayed) -> None:
        """What became of a change that a crash had interrupted."""
        if change.problem:
            detail = f"a change that a crash interrupted was dropped: {change.problem}"
            self.note("damaged", detail, path="/" + os.fsdecode(change.path))

    def _program(self, caller: Caller) -> ProgramPath:
        known = self._programs.get(id(caller))
        if known is not None and known[0] is caller:
            return known[1]
        program = ProgramPath(
            path=_text(caller.path), sha256=caller.sha256, pid=caller.pid, ppid=caller.ppid, parent=_text(caller.parent)
        )
        if len(self._programs) > 4096:
            self._programs.clear()
        self._programs[id(caller)] = (caller, program)
        return program


def _text(name: str) -> str:
    """A path, or a sentence with one, as records show it: names need not be UTF-8, and of a very long one they show
    both ends."""
    text = name if name.isascii() else path_text(os.fsencode(name))
    if len(text) <= _LONGEST:
        return text
    end = _LONGEST // 2 - 32
    return f"{text[:end]} ... {len(text) - 2 * end} characters ... {text[-end:]}"
