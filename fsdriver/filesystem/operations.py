"""The drive's handler: which operation answers which request, and who is asking.

Requests that carry a pid are decided by their caller. A caller that is not known yet, or a key that has to come from
the key server, sends the request to the pool as a `Later`, so that a reader or ring thread never waits.
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fsdriver.device import Answer, Later
from fsdriver.errors import CallerRefused, NotSupported
from fsdriver.filesystem.asker import Asker, MustWait
from fsdriver.filesystem.attributes import SIZE, Attributes
from fsdriver.filesystem.drive import Drive
from fsdriver.filesystem.files import Files
from fsdriver.filesystem.listing import Listing
from fsdriver.filesystem.locking import Locking
from fsdriver.filesystem.lookups import Lookups
from fsdriver.filesystem.names import Names
from fsdriver.filesystem.opening import Opening
from fsdriver.filesystem.xattrs import Xattrs
from fsdriver.nodes.inode import CIPHER
from fsdriver.nodes.openfile import DropIn
from fsdriver.protocol import Event, abi, events, replies

Simple = Callable[[Any], bytes | Later | None]
Asked = Callable[[Any, Asker], bytes]
Operation = Callable[[Any, memoryview], Answer]

RECENT = 0.001
"""Seconds for which a caller is taken to be the program it was, where only names and attributes are at stake: an exec
takes a good part of that, and whatever gives or takes content looks anew."""


class Operations:
    """Call it with an event and the reply buffer; it answers, raises FsError or OSError, or returns a Later."""

    def __init__(
        self,
        drive: Drive,
        lookups: Lookups,
        listing: Listing,
        names: Names,
        attributes: Attributes,
        opening: Opening,
        files: Files,
        locking: Locking,
        xattrs: Xattrs,
    ) -> None:
        self._known = drive.callers.known
        self._identify = drive.callers.identify
        self._lookups = lookups
        self._files = files
        self._handles = drive.handles
        quick, thorough, plain, waiting = self._quick, self._thorough, _plain, _waiting
        self._get_user_xattr = thorough(xattrs.get)
        self._set_plain_xattr, self._set_sealed_xattr = thorough(xattrs.set), self._long(xattrs.set)
        self._set_size, self._set_attributes = thorough(attributes.setattr), quick(attributes.setattr)
        self._operations: dict[type[Any], Operation] = {
            events.Lookup: quick(lookups.lookup),
            events.Forget: plain(lookups.forget),
            events.BatchForget: plain(lookups.batch_forget),
            events.Getattr: self._getattr,
            events.Setattr: self._setattr,
            events.Readlink: plain(lookups.readlink),
            events.Statfs: plain(lookups.statfs),
            events.Opendir: plain(listing.opendir),
            events.Readdir: plain(listing.readdir),
            events.Readdirplus: plain(listing.readdirplus),
            events.Releasedir: plain(listing.releasedir),
            events.Fsyncdir: waiting(listing.fsyncdir),
            events.Mkdir: quick(names.mkdir),
            events.Rmdir: quick(names.rmdir),
            events.Symlink: quick(names.symlink),
            events.Mknod: thorough(names.mknod),
            events.Link: quick(names.link),
            events.Unlink: quick(names.unlink),
            events.Rename: quick(names.rename),
            events.Open: thorough(opening.open),
            events.Create: thorough(opening.create),
            events.Read: self._read,
            events.Write: self._write,
            events.Flush: self._closing(files.flush),
            events.Fsync: waiting(files.fsync),
            events.Release: self._closing(files.release),
            events.Fallocate: thorough(files.fallocate),
            events.Lseek: quick(files.lseek),
            events.CopyFileRange: self._long(files.copy_file_range),
            events.Getlk: plain(locking.getlk),
            events.Setlk: plain(locking.setlk),
            events.Setlkw: plain(locking.setlkw),
            events.Setxattr: self._setxattr,
            events.Getxattr: self._getxattr,
            events.Listxattr: plain(xattrs.list),
            events.Removexattr: thorough(xattrs.remove),
            events.Access: plain(lambda event: replies.EMPTY),
            events.Ioctl: _refused(errno.ENOTTY),
            events.Tmpfile: _refused(errno.EOPNOTSUPP),
        }

    def __call__(self, event: Event, out: memoryview) -> Answer:
        operation = self._operations.get(event.__class__)
        if operation is None:
            raise OSError(errno.ENOSYS, "not known here")
        return operation(event, out)

    def _quick(self, handler: Asked) -> Operation:
        """By a caller whose program is known to be the same as before."""
        return self._by_caller(handler, thorough=False)

    def _thorough(self, handler: Asked) -> Operation:
        """By a caller whose tracer, users and mappings are looked at again: what gives access."""
        return self._by_caller(handler, thorough=True)

    def _by_caller(self, handler: Asked, *, thorough: bool) -> Operation:
        known, identify = self._known, self._identify

        def operation(event: Any, out: memoryview) -> Answer:
            head = event[0]
            caller = known(head.pid, head.uid, thorough=thorough, recent=RECENT)
            if caller is None:
                return Later(lambda: handler(event, Asker(identify(head.pid, head.uid), True)))
            try:
                return handler(event, Asker(caller, False))
            except MustWait:
                return Later(lambda: handler(event, Asker(caller, True)))

        return operation

    def _closing(self, handler: Callable[[Any], bytes]) -> Operation:
        """The end of a drop-in may take as long as its content is: in the pool, unless it is short."""

        def operation(event: Any, out: memoryview) -> Answer:
            handle = self._handles.get(event.fh)
            if handle.__class__ is DropIn and handle.ends_late:
                return Later(lambda: handler(event))
            return handler(event)

        return operation

    def _long(self, handler: Asked) -> Operation:
        """By its caller, in the pool: takes long whatever happens."""
        identify = self._identify

        def operation(event: Any, out: memoryview) -> Answer:
            return Later(lambda: handler(event, Asker(identify(event.head.pid, event.head.uid), True)))

        return operation

    def _setattr(self, event: events.Setattr, out: memoryview) -> Answer:
        """A size is content, the rest are names' like."""
        return (self._set_size if event.valid & SIZE else self._set_attributes)(event, out)

    def _getattr(self, event: events.Getattr, out: memoryview) -> Answer:
        head = event.head
        if head.pid == 0:  # the kernel's own question, from no process
            return self._lookups.getattr(event, None)
        caller = self._known(head.pid, head.uid, recent=RECENT)
        if caller is None:
            return Later(lambda: self._lookups.getattr(event, Asker(self._identify(head.pid, head.uid), True)))
        return self._lookups.getattr(event, Asker(caller, False))

    def _setxattr(self, event: events.Setxattr, out: memoryview) -> Answer:
        """One of a drop-in waits while that becomes the file that is in it."""
        return (self._set_sealed_xattr if event.head.nodeid & 1 == CIPHER else self._set_plain_xattr)(event, out)

    def _getxattr(self, event: events.Getxattr, out: memoryview) -> Answer:
        if not event.name.startswith(b"user."):
            # Asked at the first write to every file and by every `ls -l`: answered before anything else is looked at.
            raise NotSupported("only user attributes are kept")
        return self._get_user_xattr(event, out)

    def _read(self, event: events.Read, out: memoryview) -> Answer:
        head = event.head
        caller = self._known(head.pid, head.uid)
        if caller is not None:
            with suppress(MustWait):
                return self._files.read(event, Asker(caller, False), out)

        def later() -> bytes:
            buffer = memoryview(bytearray(event.size))
            done = self._files.read(event, Asker(self._identify(head.pid, head.uid), True), buffer)
            return bytes(buffer[:done])

        return Later(later)

    def _write(self, event: events.Write, out: memoryview) -> Answer:
        head = event.head
        cached = bool(event.write_flags & abi.WRITE_CACHE)
        if head.pid == 0 and not cached:
            raise CallerRefused("a write that names no process")
        caller = self._known(head.pid, head.uid) if not cached else None
        if cached or caller is not None:
            # Dirty pages of a shared mapping: the kernel writes them when it likes, for the handle's opener.
            asker = Asker(caller, False) if caller is not None else None
            with suppress(MustWait):
                return self._files.write(event, asker, may_wait=False)
        copied = event._replace(data=memoryview(bytes(event.data)))  # the transport's buffer goes to the next request

        def later() -> bytes:
            asker = Asker(self._identify(head.pid, head.uid), True) if not cached else None
            return self._files.write(copied, asker, may_wait=True)

        return Later(later)


def _plain(handler: Simple) -> Operation:
    """Decided without a caller."""

    def operation(event: Any, out: memoryview) -> Answer:
        answer = handler(event)
        return b"" if answer is None else answer

    return operation


def _waiting(handler: Callable[[Any], bytes]) -> Operation:
    """Waits for a disk, so it does that in the pool."""
    return lambda event, out: Later(lambda: handler(event))


def _refused(number: int) -> Operation:
    def operation(event: Any, out: memoryview) -> Answer:
        raise OSError(number, os.strerror(number))

    return operation
