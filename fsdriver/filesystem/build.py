"""Puts a drive together: the one place that knows which part needs which."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath

from fsdriver.audit_spool import AuditSpool
from fsdriver.filesystem.attributes import Attributes
from fsdriver.filesystem.births import Births
from fsdriver.filesystem.claims import Claims
from fsdriver.filesystem.copies import Copies
from fsdriver.filesystem.drive import Drive
from fsdriver.filesystem.dropins import DropIns
from fsdriver.filesystem.filekeys import FileKeys
from fsdriver.filesystem.files import Files
from fsdriver.filesystem.incoming import Incoming
from fsdriver.filesystem.kernel import KernelLink
from fsdriver.filesystem.linebook import Linebook
from fsdriver.filesystem.lines import Lines
from fsdriver.filesystem.listing import Listing
from fsdriver.filesystem.locking import Locking
from fsdriver.filesystem.lookups import Lookups
from fsdriver.filesystem.names import Names
from fsdriver.filesystem.openfiles import OpenFiles
from fsdriver.filesystem.opening import Opening
from fsdriver.filesystem.operations import Operations
from fsdriver.filesystem.prefetch import Prefetch
from fsdriver.filesystem.recorder import Recorder
from fsdriver.filesystem.revocation import Revocation
from fsdriver.filesystem.sealed_xattrs import SealedXattrs
from fsdriver.filesystem.sharing import Sharing
from fsdriver.filesystem.store import Store
from fsdriver.filesystem.verifier import Verifier
from fsdriver.filesystem.xattrs import Xattrs
from fsdriver.identity import Callers
from fsdriver.keyclient import KeyClient
from fsdriver.leases import Leases
from fsdriver.nodes.directories import Directories
from fsdriver.nodes.inode import InodeTable
from fsdriver.views import Views
from keyserver.messages import Mode


@dataclass(frozen=True, slots=True)
class Built:
    """A drive, ready to be served by `device.Session`."""

    drive: Drive
    operations: Operations
    revocation: Revocation
    sharing: Sharing
    incoming: Incoming

    def close(self) -> None:
        """After the session has ended."""
        self.drive.prefetch.stop()
        self.drive.verifier.stop()
        self.sharing.stop()
        self.incoming.close()
        self.drive.lines.stop()
        self.drive.callers.close()


def build(
    store: Store,
    mount_point: PurePath,
    *,
    company: bytes,
    mode: Mode,
    leases: Leases,
    grants: KeyClient,
    spool: AuditSpool,
    states: Path,
    now: Callable[[], float],
) -> Built:
    """A drive over an opened store; `states` is where it remembers what it left of each file. Before it serves,
    `Revocation.decide_anew` must have given it a bundle."""
    root = os.fstat(store.top)
    inodes = InodeTable(root)
    directories = Directories(inodes.root, store.top)
    inodes.on_directory_moved = directories.renamed
    views = Views(directories, mode, now)
    recorder = Recorder(spool, directories, views)
    for change in store.replayed:
        recorder.replayed(change)
    store.peers.on_replayed = recorder.replayed
    book = Linebook(states)
    if book.begun_anew:
        recorder.note("damaged", f"what this machine left of its files is not known: {book.begun_anew}")
    lines = Lines(book, store.top, recorder, views, lambda: bool(store.peers.known))
    claims = Claims(store.peers, store.redo)
    files = OpenFiles(inodes, directories, views, company, store.redo, claims, lines)
    drive = Drive(
        store=store.top,
        inodes=inodes,
        directories=directories,
        views=views,
        callers=Callers(drive=mount_point),
        keys=FileKeys(leases, grants, views, company, now),
        files=files,
        claims=claims,
        lines=lines,
        recorder=recorder,
        copies=Copies(str(mount_point)),
        prefetch=Prefetch(directories, store.top),
        verifier=Verifier(files, claims, recorder),
        kernel=KernelLink(),
        now=now,
    )
    drive.prefetch.start()
    drive.verifier.start()
    drive.lines.start()
    locking = Locking(drive)
    births = Births(drive, company, store.redo)
    incoming = Incoming(store.corner, store.machine)
    dropins = DropIns(drive, births, incoming)
    handles = Files(drive, dropins, locking)
    operations = Operations(
        drive,
        Lookups(drive),
        Listing(drive),
        Names(drive, births),
        Attributes(drive, handles, dropins),
        Opening(drive, births, dropins),
        handles,
        locking,
        Xattrs(drive, handles, SealedXattrs(drive, dropins)),
    )
    sharing = Sharing(drive, store.peers, locking, store.redo, shared=store.shared)
    sharing.start()
    return Built(drive, operations, Revocation(drive), sharing, incoming)
