"""One open backing file, shared by all its handles of both views, and the handles themselves."""

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fsdriver.errors import FsError
from fsdriver.identity import Caller
from fsdriver.nodes.inode import Inode
from fsdriver.nodes.locks import LockTable
from policy import Label, Standing

if TYPE_CHECKING:
    from fsdriver.content import SealedFile


SHORT = 1 << 20
"""Bytes that a close may move without anybody noticing."""


class OpenFile:
    """A backing descriptor, the sealed file read through it once a key was given, and the file's locks.

    The descriptor is closed when the last reference to the object goes: a request that looks at `inode.opened` while
    another closes the file must not find the number given to another file.
    """

    __slots__ = (
        "by_listed",
        "claimed",
        "committed",
        "damage",
        "fd",
        "flock",
        "handles",
        "inode",
        "lock",
        "modified_ns",
        "posix",
        "references",
        "refused",
        "sealed",
        "settled",
        "verifying",
        "writable",
    )

    def __init__(self, inode: Inode, fd: int, *, writable: bool, committed: Callable[["SealedFile"], None]) -> None:
        """`committed` is called after each commit of a file that has a name."""
        self.inode = inode
        self.fd = fd
        self.committed = committed
        self.writable = writable
        self.lock = threading.RLock()
        """Held while the file is unlocked, committed or replaced; never while a key is asked for."""
        self.references = 0
        self.claimed = False
        """While other machines have the store: whether this one alone may change the file (`filesystem.claims`)."""
        self.sealed: SealedFile | None = None
        self.handles: set[Handle] = set()
        self.damage: FsError | None = None
        """What a verification of the whole file found: nothing of it is believed any more."""
        self.verifying = False
        self.refused = False
        """A handle whose right was taken away is still open: no page may be left where it could read it."""
        self.by_listed = False
        """A listed program has written something here: it may be plaintext of any label."""
        self.settled = False
        """Of a drop-in: its content was found to be a sealed file and took the name. Nothing more can be written."""
        self.modified_ns: int | None = None
        """When a program last wrote, if the store's own time stamp does not say so yet."""
        self.posix = LockTable()
        self.flock = LockTable(flock=True)

    def __del__(self) -> None:
        os.close(self.fd)

    def commit(self, *, durable: bool = False) -> None:
        """Everything written is in the store, under a commit; `durable`: on the disk. The time of the last write stays.

        Errors: OSError; what was not written stays dirty and is tried again.
        """
        with self.lock:
            if self.sealed is None:
                if durable:
                    os.fdatasync(self.fd)
                return
            if self.claimed and self.sealed.dirty and not self.sealed.is_newest():
                # A machine that slept for longer than its file server waits has lost its locks.
                raise OSError(errno.EIO, "another machine has changed the file under this one's claim")
            if durable:
                self.sealed.sync()
            elif self.sealed.dirty:
                self.sealed.flush()
            elif self.modified_ns is None:
                return
            if self.modified_ns is not None:
                before = os.fstat(self.fd)
                os.utime(self.fd, ns=(before.st_atime_ns, self.modified_ns))
                self.modified_ns = None
            if not self.claimed:  # else pages may be from before what was taken over, and not dropped yet
                self.inode.commit_cached = self.sealed.state
            found = os.fstat(self.fd)
            self.inode.store_ctime = found.st_ctime_ns
            if found.st_nlink and not self.inode.nameless:
                self.committed(self.sealed)


@dataclass(slots=True, eq=False)
class Handle:
    """One answered OPEN or CREATE: who asked, what was decided, what has gone through it."""

    fh: int
    file: OpenFile
    view: int
    caller: Caller
    label: Label | None
    standing: Standing
    readable: bool
    writable: bool
    path: str
    bytes_read: int = 0
    bytes_written: int = 0
    revoked: bool = False
    shows: bytes | None = None
    """The label under which its process is counted as one that has plaintext open (`filesystem.copies`)."""
    lockers: set[int] = field(default_factory=set)
    """Owners of record locks that were taken through this handle and have not closed it: open file descriptions, which
    own their locks themselves, and everybody where it cannot write, as no FLUSH tells of a close then. These locks go
    with the handle."""
    outside: set[str] = field(default_factory=set)
    """Files outside the drive that the reader had open for writing."""


@dataclass(slots=True)
class DirectoryHandle:
    directory: Inode
    names: list[tuple[bytes, int, int]] | None = None
    """(name, inode number, st_mode's type bits)."""
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True, eq=False)
class DropIn:
    """One drop-in handle. Its sealed file lies in its folder or, while it is to replace another, in the corner."""

    fh: int
    file: OpenFile
    node: Inode
    label: Label
    parent: Inode
    name: bytes
    temporary: bytes | None
    caller: Caller
    path: str
    rule: str
    replaced: OpenFile | None = None
    """The file whose name it is to take, kept open: descriptors of this handle show its inode number in /proc."""
    replaced_label: Label | None = None
    bytes_written: int = 0
    complete: bool = False
    """Its last write was followed by a close of somebody who was not killed."""
    synced: bool = False
    """fsync(2) has promised that what was written lasts."""
    given_up: str = ""
    """Why a replacement did not take its name, once that is known."""
    left_out: list[bytes] = field(default_factory=list)
    """Extended attributes that do not belong to the sealed file which it turned out to be."""

    @property
    def settled(self) -> bool:
        return self.file.settled

    @property
    def ends_late(self) -> bool:
        """Whether a close may take long: descriptors are looked for, or much content is moved."""
        sealed = self.file.sealed
        return self.temporary is not None or (sealed is not None and sealed.size > SHORT)
