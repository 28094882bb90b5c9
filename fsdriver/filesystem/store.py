"""The store's own corner, `.grantfs`: whose store it is, which daemons have it, and the redo logs."""

import json
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, Self

from fsdriver.content import CHUNK_SIZE, RedoLog, Replayed, works
from fsdriver.filesystem.corner import REDO, STATE_DIRECTORY
from fsdriver.filesystem.peers import Peers

FORMAT = 1
MARK = "store.json"
_KNOWN = {"format", "company", "chunk_size"}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REPLAY_SECONDS = 10.0
_ASKED_EVERY = 0.02


class StoreRefused(Exception):
    """The directory cannot be used as this company's store; the message says why and what to do."""


class StoreInUse(StoreRefused):
    """A daemon of this machine has the store already."""


class Store:
    """An opened store. `top` and `corner` are descriptors; `redo` has been replayed."""

    def __init__(
        self,
        top: int,
        corner: int,
        machine: str,
        redo: RedoLog,
        peers: Peers,
        shared: bool,
        replayed: Sequence[Replayed],
        resources: ExitStack,
    ) -> None:
        self.top = top
        self.corner = corner
        self.machine = machine
        self.redo = redo
        self.peers = peers
        self.shared = shared
        """Whether other machines had the store when this one came."""
        self.replayed = replayed
        """What a crash had left in the logs, and what became of it; more comes when another machine dies."""
        self._resources = resources

    @classmethod
    def open(cls, path: str, company: bytes, machine: str) -> Self:
        """The store at `path`, made one of `company` if it is empty.

        Errors: StoreRefused (another company's, a newer format, or files that are no store; another machine has it
        and does not answer), StoreInUse, OSError.
        """
        with ExitStack() as undo:
            top = os.open(path, _DIRECTORY)
            undo.callback(os.close, top)
            corner = _corner(top, path)
            undo.callback(os.close, corner)
            _check_mark(corner, company, path)
            with suppress(FileExistsError):
                os.mkdir(REDO, 0o700, dir_fd=corner)
            replayed: list[Replayed] = []
            peers = Peers(top, corner, machine.encode(), replayed.append)
            # INVARIANT: the log is empty before nobody is kept out any more: who is alone looks at no logs.
            undo.callback(peers.close)
            redo = _redo_log(top, machine, path)
            undo.callback(redo.close)
            replayed += redo.replay()
            redo.announce()
            try:
                shared = peers.join()
            except TimeoutError as exc:
                raise StoreRefused(f"{path}: {exc}; see `fsdriver status` there, and try again") from exc
            return cls(top, corner, machine, redo, peers, shared, replayed, undo.pop_all())

    def close(self) -> None:
        """Let go of everything; another daemon may take the store."""
        self._resources.close()


def reachable_by_others(path: str) -> bool:
    """Whether users other than its owner can walk to the store. Its own mode is what the drive's top shows, so a folder
    above it has to keep them out; who gets past reads and removes sealed files without a record."""
    at = os.path.realpath(path)
    while at != "/":
        at = os.path.dirname(at)
        if not os.stat(at).st_mode & 0o011:
            return False
    return True


def _corner(top: int, path: str) -> int:
    """`.grantfs`, made if the store is empty: a folder with files in it is imported, never taken over."""
    try:
        return os.open(STATE_DIRECTORY, _DIRECTORY, dir_fd=top)
    except FileNotFoundError:
        pass
    found = os.listdir(top)
    if set(found) - {"lost+found", os.fsdecode(STATE_DIRECTORY)}:  # which another machine may have begun just now
        raise StoreRefused(
            f"{path} holds files but is no GrantFS store: give an empty directory, and bring files in with "
            "`fsdriver import`"
        )
    with suppress(FileExistsError):
        os.mkdir(STATE_DIRECTORY, 0o700, dir_fd=top)
    return os.open(STATE_DIRECTORY, _DIRECTORY, dir_fd=top)


def read_mark(corner: int) -> dict[str, Any]:
    """What the mark in `.grantfs` says; it has "format", "company" and "chunk_size". Raises ValueError for what is no
    mark, and OSError."""
    fd = os.open(MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=corner)
    with open(fd, "rb") as mark:
        try:
            facts = json.loads(mark.read(65536))
        except RecursionError:
            raise ValueError("nested too deep") from None
    if not isinstance(facts, dict) or not facts.keys() >= _KNOWN or not isinstance(facts["company"], str):
        raise ValueError("not the mark of a store")
    return facts


def _check_mark(corner: int, company: bytes, path: str) -> None:
    try:
        try:
            facts = read_mark(corner)
        except FileNotFoundError:
            _write_mark(corner, company)
            facts = read_mark(corner)  # another machine may have begun the same store just now
    except ValueError:
        raise StoreRefused(f"{path}: its mark .grantfs/{MARK} is damaged") from None
    if facts["format"] != FORMAT or facts["chunk_size"] != CHUNK_SIZE or facts.keys() - _KNOWN:
        raise StoreRefused(f"{path}: the store has format {facts['format']}, which this program does not know")
    if facts["company"] != company.hex():
        raise StoreRefused(f"{path}: the store belongs to another company ({facts['company']})")


def _write_mark(corner: int, company: bytes) -> None:
    """Written beside and renamed, so that a crash leaves a mark or none."""
    temporary = f"{MARK}.{secrets.token_hex(4)}"
    data = json.dumps({"format": FORMAT, "company": company.hex(), "chunk_size": CHUNK_SIZE}).encode()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=corner)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, MARK, src_dir_fd=corner, dst_dir_fd=corner)
    os.fsync(corner)


def _redo_log(top: int, machine: str, path: str) -> RedoLog:
    """This machine's redo log. Its lock keeps a second daemon away: two would not see each other's open files."""
    name = b"/".join((STATE_DIRECTORY, REDO, machine.encode()))
    end = time.monotonic() + _REPLAY_SECONDS
    while True:
        try:
            return RedoLog(top, name)
        except BlockingIOError:
            # Another machine may be placing what this one has left.
            if _is_at_work(top, name) or time.monotonic() > end:
                raise StoreInUse(f"{path} is mounted on this machine already; see `fsdriver status`") from None
        time.sleep(_ASKED_EVERY)


def _is_at_work(top: int, name: bytes) -> bool:
    fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        return works(fd)
    finally:
        os.close(fd)
