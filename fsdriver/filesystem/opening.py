"""OPEN and CREATE of regular files: who gets which handle.

The file's own header decides at OPEN, whatever its place suggested at LOOKUP; where the two differ the node is stale
and the kernel looks the name up again. The record of an open is in the spool before the open is answered.
"""

import errno
import os
import time

from fsdriver.content import Header, SealedFile
from fsdriver.errors import DAMAGE, NodeVanished, Revoked
from fsdriver.filesystem.asker import Asker
from fsdriver.filesystem.births import Births
from fsdriver.filesystem.drive import VIEW_NAMES, Drive
from fsdriver.filesystem.dropins import DropIns
from fsdriver.filesystem.filekeys import GivenKey
from fsdriver.filesystem.prefetch import OPENED
from fsdriver.identity import Caller
from fsdriver.nodes.inode import CIPHER, PLAIN, Inode
from fsdriver.nodes.openfile import Handle, OpenFile
from fsdriver.protocol import abi, events, replies
from policy import Action, Label, Standing, View


class Opening:
    """Makes handles on regular files."""

    def __init__(self, drive: Drive, births: Births, dropins: DropIns) -> None:
        self._drive = drive
        self._births = births
        self._dropins = dropins

    def open(self, event: events.Open, asker: Asker) -> bytes:
        drive = self._drive
        inode = drive.inodes.get(event.head.nodeid)
        if not inode.is_regular:
            raise OSError(errno.EINVAL, "not a regular file")
        begin = time.monotonic()
        file = drive.files.acquire(inode)
        try:
            if event.head.nodeid & 1 == PLAIN:
                return self._open_plain(event, asker, file, begin)
            return self._open_cipher(event, asker, file)
        except (*DAMAGE, OSError) as exc:
            drive.damaged(asker.caller, inode, exc)
            raise
        finally:
            drive.files.release(file)  # a handle that was made holds a reference of its own

    def _open_plain(self, event: events.Open, asker: Asker, file: OpenFile, begin: float) -> bytes:
        drive = self._drive
        inode = file.inode
        mode = event.flags & os.O_ACCMODE
        writing = mode != os.O_RDONLY or bool(event.flags & os.O_TRUNC)
        action = Action.WRITE if writing else Action.READ
        path = drive.directories.path(inode)
        label: Label
        standing: Standing

        def key_of(header: Header) -> GivenKey:
            nonlocal label, standing
            label, standing = drive.plaintext(asker.caller, inode, header)
            return drive.keys.of(header, label, asker, action, path)

        if event.flags & os.O_TRUNC:
            drive.claims.require_patience(asker)
        epoch = drive.epoch
        if (known := file.sealed) is not None:
            self._drop_stale_state(file, known, asker)
        sealed = drive.files.unlock(file, path, key_of, asker)
        if known is None and sealed.overlong and file.writable and not drive.claims.active:
            # Left by a crash. The kernel was told a size that counts it, and appends there: it has to look again.
            try:
                sealed.cut_garbage()
            except OSError:
                pass  # a full btrfs; it can be read
            else:
                raise NodeVanished("the file is shorter than it seemed")
        if known is None and inode.parent is not None:
            drive.prefetch.waited(OPENED, inode.parent, inode.name, time.monotonic() - begin)
        if mode != os.O_WRONLY and Action.READ not in standing.allow:
            drive.refuse(asker.caller, label, standing.rule, Action.READ, inode, path)
        if writing and Action.WRITE not in standing.allow:
            drive.refuse(asker.caller, label, standing.rule, Action.WRITE, inode, path)
        if mode != os.O_RDONLY:
            drive.files.require_writable(file)
        drive.recorder.record(
            "open",
            asker.caller,
            inode,
            path=path,
            label=label.qualified,
            generation=sealed.generation,
            view=VIEW_NAMES[PLAIN],
            rule=standing.rule,
            detail="truncated" if event.flags & os.O_TRUNC and sealed.size else "",
            durable=label.wait_fsync,
        )
        if event.flags & os.O_TRUNC and sealed.size:
            drive.truncate(file, 0, asker)
        handle = self._handle(file, PLAIN, asker.caller, label, standing, mode, path, epoch)
        flags = self._open_flags(file, label, event.flags)
        if handle.readable and flags & abi.FOPEN_KEEP_CACHE:
            drive.copies.reads(handle)  # what the kernel has cached is read without a word to us
        return replies.opened(handle.fh, flags)

    def _drop_stale_state(self, file: OpenFile, sealed: SealedFile, asker: Asker) -> None:
        """Somebody else may have changed the store's file: believe nothing that was kept, in the kernel or here. While
        writes of our own are under way its times say nothing."""
        inode = file.inode
        if self._drive.claims.active and self._drive.claims.look(file, may_wait=asker.may_wait):
            inode.store_ctime = os.fstat(file.fd).st_ctime_ns
        if sealed.dirty:
            return
        changed = os.fstat(file.fd).st_ctime_ns
        if inode.store_ctime != changed:
            inode.commit_cached = None
            with self._drive.claims.steady(file, may_wait=asker.may_wait):
                sealed.recheck()
            inode.store_ctime = changed

    def _open_flags(self, file: OpenFile, label: Label, opened: int) -> int:
        """How the kernel treats the handle: its pages are kept while they are those of the commit we know. `opened` are
        the flags of open(2)."""
        inode = file.inode
        assert file.sealed is not None
        # A handle that cannot write has nothing to flush; locks taken through it go with RELEASE.
        flags = abi.FOPEN_NOFLUSH if opened & os.O_ACCMODE == os.O_RDONLY else 0
        # What is appended lies where the file ends on all machines, and the kernel does not know where that is.
        appending = self._drive.claims.active and opened & os.O_APPEND
        if label.recheck == "read" or file.refused or appending:
            return flags | abi.FOPEN_DIRECT_IO
        if inode.commit_cached == (state := file.sealed.state):
            flags |= abi.FOPEN_KEEP_CACHE
        else:
            inode.commit_cached = state
        return flags

    def _open_cipher(self, event: events.Open, asker: Asker, file: OpenFile) -> bytes:
        """The sealed bytes as they lie in the store, for who may have them; O_TRUNC means a replacement."""
        drive = self._drive
        inode = file.inode
        path = drive.directories.path(inode)
        epoch = drive.epoch
        label, standing = self._cipher_standing(asker.caller, inode, file)
        if standing.view is View.PLAINTEXT:
            raise NodeVanished("the header's label gives this caller plaintext")
        mode = event.flags & os.O_ACCMODE
        if event.flags & os.O_TRUNC:
            return self._dropins.replace(event, asker, file, label)
        if mode != os.O_RDONLY:
            # The kernel appends where the sealed bytes end, which is no place in the content.
            if not event.flags & os.O_APPEND and drive.unfinished.by(inode, asker.caller):
                return self._dropins.resume(event, asker, file)
            drive.refuse(asker.caller, label, standing.rule, Action.WRITE, inode, path)
        if standing.view is View.NONE or Action.READ not in standing.allow:
            drive.refuse(asker.caller, label, standing.rule, Action.READ, inode, path)
        file.commit()  # what a listed program has written so far is sealed before it is shown
        drive.recorder.record(
            "open",
            asker.caller,
            inode,
            path=path,
            label=label.qualified if label is not None else "unknown",
            view=VIEW_NAMES[CIPHER],
            rule=standing.rule,
            durable=label is not None and label.wait_fsync,
        )
        handle = self._handle(file, CIPHER, asker.caller, label, standing, mode, path, epoch)
        return replies.opened(handle.fh, abi.FOPEN_DIRECT_IO | abi.FOPEN_NOFLUSH)

    def _cipher_standing(self, caller: Caller, inode: Inode, file: OpenFile) -> tuple[Label | None, Standing]:
        drive = self._drive
        try:
            header = drive.files.header(file)
            header.require_company(drive.files.company)
        except DAMAGE:
            assert inode.parent is not None
            label: Label | None = drive.views.child_label(inode.parent)  # the bytes may be seen, to be repaired
        else:
            inode.identify(header.label, header.file_id)
            label = drive.views.label_of(inode)
        return label, drive.views.standing(caller, label)

    def create(self, event: events.Create, asker: Asker) -> bytes:
        drive = self._drive
        parent = drive.inodes.get(event.head.nodeid)
        drive.reserve_name(parent, event.name)
        epoch = drive.epoch
        label = drive.views.child_label(parent)
        standing = drive.views.standing(asker.caller, label)
        if Action.CREATE not in standing.allow:
            path = drive.directories.child_path(parent, event.name)
            drive.refuse(asker.caller, label, standing.rule, Action.CREATE, None, path)
        try:
            if standing.view is not View.PLAINTEXT:
                return self._dropins.create(event, asker, parent, label)
            label = self._label_at_birth(asker.caller, label, parent, event.name)
            standing = drive.views.standing(asker.caller, label)
            file = self._births.plain(event.head, parent, event.name, event.mode, label, asker)
        except FileExistsError:
            if event.flags & os.O_EXCL:
                raise
            raise NodeVanished("somebody else made the file meanwhile") from None
        try:
            inode = file.inode
            path = drive.directories.path(inode)
            mode = event.flags & os.O_ACCMODE
            handle = self._handle(file, PLAIN, asker.caller, label, standing, mode, path, epoch)
        finally:
            drive.files.release(file)
        drive.inodes.count_lookup(inode, PLAIN)
        entry = drive.entry(inode, PLAIN, os.fstat(file.fd))
        flags = abi.FOPEN_DIRECT_IO if label.recheck == "read" else abi.FOPEN_KEEP_CACHE
        return replies.created(entry, handle.fh, flags)

    def _label_at_birth(self, caller: Caller, place: Label, parent: Inode, name: bytes) -> Label:
        """A new file's label: its place's, unless its maker has the plaintext of a higher one open and that label's
        `save-lower:` says that it may not sink."""
        drive = self._drive
        labels = [drive.views.bundle.label_by_id(label_id) for label_id in drive.copies.held(caller.pid)]
        held = max(filter(None, labels), key=lambda label: label.level.rank, default=None)
        if held is None or held.level.rank <= place.level.rank or held.save_lower == "record":
            return place  # what the process has read so far is told when it closes: a `copy` record
        if held.save_lower == "deny":
            path = drive.directories.child_path(parent, name)
            drive.refuse(caller, held, "save-lower", Action.CREATE, None, path)
        return held

    def _handle(
        self,
        file: OpenFile,
        view: int,
        caller: Caller,
        label: Label | None,
        standing: Standing,
        mode: int,
        path: str,
        epoch: tuple[int, int],
    ) -> Handle:
        """A handle that `Revocation` sees. `epoch` is the drive's from before the decision. Errors: Revoked."""
        drive = self._drive
        handle = Handle(
            fh=drive.next_fh(),
            file=drive.files.share(file),
            view=view,
            caller=caller,
            label=label,
            standing=standing,
            readable=mode != os.O_WRONLY,
            writable=mode != os.O_RDONLY,
            path=path,
        )
        file.handles.add(handle)
        drive.handles[handle.fh] = handle
        if view == PLAIN:
            drive.copies.opens(handle)
            drive.verifier.opened(handle)
        if view == PLAIN and drive.epoch != epoch and not self._still_given(handle):
            del drive.handles[handle.fh]
            drive.copies.closes(handle)
            file.handles.discard(handle)
            drive.files.release(file)
            raise Revoked("the right to this file was taken away while it was being opened")
        return handle

    def _still_given(self, handle: Handle) -> bool:
        """What was decided before a handle could be seen, looked at again now that `Revocation` sees it."""
        drive, label = self._drive, handle.label
        assert label is not None
        standing = drive.views.standing(handle.caller, drive.views.bundle.label_by_id(label.id))
        return standing.view is View.PLAINTEXT and (label.per_file or drive.keys.holds(label))
