"""What a running drive answers on its control socket: status, why, umount, and the two ends of import and export."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import msgspec

from fsdriver.content import Header, SealedFile
from fsdriver.control import Answer, ControlError, Method, Peer
from fsdriver.device import Session
from fsdriver.errors import Revoked
from fsdriver.exitcodes import ExitCode
from fsdriver.filesystem import Built
from fsdriver.filesystem.asker import Asker
from fsdriver.filesystem.corner import STATE_DIRECTORY
from fsdriver.filesystem.filekeys import GivenKey
from fsdriver.identity import Caller
from fsdriver.keyclient import KeyClient
from fsdriver.machine import MachineConfig
from fsdriver.nodes.inode import Inode
from fsdriver.nodes.openfile import OpenFile
from policy import Action, Label, ProgramFacts, View, explain

_BLOCK = 1 << 20
EXPORT_PROGRAM = "fsdriver export"
"""What an export counts as: it needs a rule that gives its person plaintext with any program."""


class Requests:
    """The methods of one mounted drive."""

    def __init__(
        self, config: MachineConfig, built: Built, keys: KeyClient, session: Session, stop: Callable[[], None]
    ) -> None:
        self._config = config
        self._drive = built.drive
        self._sharing = built.sharing
        self._keys = keys
        self._session = session
        self._stop = stop
        self._since = time.time()

    def methods(self) -> dict[str, Method]:
        return {
            "status": self.status,
            "why": self.why,
            "digest": self.digest,
            "export": self.export,
            "accept": self.accept,
            "umount": self.umount,
        }

    def status(self, request: dict[str, Any], peer: Peer) -> Answer:
        keys = self._keys.status()
        drive = self._drive
        holders: dict[str, int] = {}
        for handle in list(drive.handles.values()):
            caller = getattr(handle, "caller", None)
            if caller is not None:
                name = f"{caller.path} ({caller.pid})"
                holders[name] = holders.get(name, 0) + 1
        return {
            "pid": os.getpid(),
            "drive": self._config.drive,
            "store": self._config.store,
            "shared_with": self._sharing.others,
            "company": self._config.company_name,
            "machine": self._config.machine,
            "mode": self._config.mode,
            "note": self._config.note,
            "transport": self._session.transport,
            "since": self._since,
            "server": {"url": keys.server, "state": keys.state, "problem": keys.problem, "synced": keys.synced},
            "policy": keys.policy,
            "leases": msgspec.to_builtins(keys.leases),
            "spool": {"waiting": keys.spool_waiting, "problem": keys.spool_problem},
            "certificate_expires": keys.certificate_expires,
            "clock_rolled_back": keys.clock_rolled_back,
            "log_problem": keys.log_problem,
            "nodes": len(drive.inodes),
            "holders": holders,
        }, None

    def umount(self, request: dict[str, Any], peer: Peer) -> Answer:
        self._stop()
        return "ending", None

    def why(self, request: dict[str, Any], peer: Peer) -> Answer:
        """Who decides about a file, for a program and a person, and why: as the policy has it, whoever runs now."""
        bundle = self._drive.views.bundle
        path = self._inside(str(request.get("file", "")))
        person = request.get("user") or self._drive.views.person(peer.uid)
        program = self._as_listed(str(request["program"])) if request.get("program") else None
        action = Action(request.get("action", "read"))
        label = None
        inode = self._find(path)
        if inode is not None and inode.is_regular:
            label = self._drive.files.label(inode)
        language: Literal["en", "zh"] = "zh" if request.get("language") == "zh" else "en"
        explanation = explain(
            bundle,
            person,
            program,
            path,
            action,
            self._drive.now(),
            label=label,
            language=language,
            user_mount=self._config.mode == "user",
        )
        return {
            "sentence": explanation.sentence,
            "allowed": explanation.decision.allowed,
            "view": explanation.decision.view.value,
            "because": explanation.decision.because,
            "label": explanation.label,
            "trace": [{"rule": step.rule, "failed": step.failed, "text": step.text} for step in explanation.trace],
        }, None

    def _as_listed(self, path: str) -> ProgramFacts:
        """The program at `path` as the policy lists it: what its entries ask for taken to be true."""
        entries = [entry for entry in self._drive.views.bundle.programs if entry.path == os.path.realpath(path)]
        entries = entries or [entry for entry in self._drive.views.bundle.programs if entry.path == path]
        return ProgramFacts(
            path=entries[0].path if entries else path,
            sha256=next((digest for entry in entries for digest in entry.sha256), ""),
            packages=frozenset(package for entry in entries for package in entry.packages),
            clean=True,
        )

    def digest(self, request: dict[str, Any], peer: Peer) -> Answer:
        """SHA-256 of a file's content, for `fsdriver import` to compare with what it brought. Shows no content, and
        answers only about files that the peer may replace."""
        path = self._inside(str(request.get("file", "")))
        digest = hashlib.sha256()
        caller = self._caller(peer, "fsdriver import")
        with self._opened(path, caller) as (file, sealed, label):
            self._drive.require(caller, label, Action.DELETE, file.inode, path)
            for block in _content(file, sealed):
                digest.update(block)
            return {"sha256": digest.hexdigest(), "size": sealed.size, "label": label.qualified}, None

    def accept(self, request: dict[str, Any], peer: Peer) -> Answer:
        """What lies at a path, and below it, is what this machine goes on from. For who may replace these files."""
        drive = self._drive
        caller = self._caller(peer, "fsdriver accept")
        accepted = []
        for path in drive.lines.remembered(self._inside(str(request.get("file", "")))):
            inode = self._find(path)
            if inode is None or not inode.is_regular:
                drive.lines.accept(path)  # no file is left there
                continue
            label = drive.files.label(inode)
            drive.require(caller, label, Action.DELETE, inode, path)
            drive.recorder.record(
                "accept",
                caller,
                inode,
                path=path,
                label=label.qualified if label is not None else "unknown",
                rule=drive.views.standing(caller, label).rule,
                detail=drive.lines.accept(path),
                durable=True,
            )
            accepted.append(path)
        return accepted, None

    def export(self, request: dict[str, Any], peer: Peer) -> Answer:
        """A file's plaintext, for who may have it with any program. Recorded before the first byte goes."""
        path = self._inside(str(request.get("file", "")))
        caller = self._caller(peer, EXPORT_PROGRAM)
        with ExitStack() as opening:
            file, sealed, label = opening.enter_context(self._opened(path, caller))
            standing = self._drive.views.standing(caller, label)
            if standing.view is not View.PLAINTEXT or Action.READ not in standing.allow:
                self._drive.refuse(caller, label, standing.rule, Action.READ, file.inode, path)
            self._drive.recorder.record(
                "export",
                caller,
                file.inode,
                path=path,
                label=label.qualified,
                generation=sealed.generation,
                view=View.PLAINTEXT.value,
                rule=standing.rule,
                bytes_read=sealed.size,
                to=str(request.get("to", "")),
                durable=True,
            )
            held = opening.pop_all()

        def blocks() -> Iterator[bytes]:
            with held:
                for block in _content(file, sealed):
                    now = self._drive.views.standing(caller, self._drive.views.bundle.label_by_id(label.id))
                    if now.view is not View.PLAINTEXT or Action.READ not in now.allow:
                        raise Revoked("the right to this file was taken away while it was exported")
                    yield block

        return sealed.size, blocks()

    def _caller(self, peer: Peer, program: str) -> Caller:
        return Caller(
            pid=peer.pid,
            tid=peer.pid,
            uid=peer.uid,
            gid=peer.gid,
            start_time=0,
            program=ProgramFacts(path=program, clean=True),
            why_unlisted="",
            path=program,
            sha256="",
            ppid=0,
            parent="",
        )

    def _inside(self, path: str) -> str:
        """A path in the drive, "/" its top. Errors: ControlError."""
        top = self._config.drive.rstrip("/")
        if path != top and not path.startswith(top + "/"):
            raise ControlError(f"{path} is not in the drive {top}", ExitCode.USAGE)
        return os.path.normpath("/" + path[len(top) :].lstrip("/"))

    def _find(self, path: str) -> Inode | None:
        """The inode of a path of the drive, found in the store; None where there is nothing."""
        inode = self._drive.inodes.root
        for name in filter(None, os.fsencode(path).split(b"/")):
            if inode is self._drive.inodes.root and name == STATE_DIRECTORY:
                return None
            try:
                above = self._drive.directories.descriptor(inode)
                found = os.stat(name, dir_fd=above.fd, follow_symlinks=False)
            except OSError:
                return None
            inode = self._drive.inodes.remember(inode, name, found)
        return inode

    @contextmanager
    def _opened(self, path: str, caller: Caller) -> Iterator[tuple[OpenFile, SealedFile, Label]]:
        """A file of the drive, opened for a command; its key is asked for in the caller's name where it must be."""
        drive = self._drive
        inode = self._find(path)
        if inode is None or not inode.is_regular:
            raise ControlError(f"{path} is not a file of the drive", ExitCode.NOT_FOUND)
        label = drive.files.label(inode)
        if label is None:
            raise ControlError(f"{path}: no policy knows its label", ExitCode.DENIED)

        asker = Asker(caller, True)

        def key_of(header: Header) -> GivenKey:
            return drive.keys.of(header, label, asker, Action.READ, path)

        with drive.files.borrowed(inode) as file:
            yield file, drive.files.unlock(file, drive.directories.path(inode), key_of, asker), label


def _content(file: OpenFile, sealed: SealedFile) -> Iterator[bytes]:
    """All of a file, whole blocks of it. Errors: Revoked, when the file's key was taken away meanwhile."""
    done = 0
    while block := sealed.read(done, _BLOCK):
        if file.sealed is not sealed:
            raise Revoked("the key of this file was taken away while it was read")
        done += len(block)
        yield block
