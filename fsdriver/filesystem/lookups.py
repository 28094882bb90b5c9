"""LOOKUP, GETATTR, FORGET, READLINK, STATFS: what is there. Decided by the caller, never opened."""

import errno
import os
import time

from fsdriver.content.silly import is_silly
from fsdriver.errors import NodeVanished
from fsdriver.filesystem.asker import Asker
from fsdriver.filesystem.corner import STATE_DIRECTORY
from fsdriver.filesystem.drive import Drive
from fsdriver.filesystem.prefetch import LOOKED_UP
from fsdriver.nodes.inode import PLAIN, Inode
from fsdriver.protocol import events, replies


class Lookups:
    """Answers questions about names and attributes."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive

    def lookup(self, event: events.Lookup, asker: Asker) -> bytes:
        """A name as this caller sees it. A missing name is never cached for anyone."""
        drive = self._drive
        parent = drive.inodes.get(event.head.nodeid)
        name = event.name
        if (parent is drive.inodes.root and name == STATE_DIRECTORY) or is_silly(name):
            raise FileNotFoundError(errno.ENOENT, "no such name")
        above = drive.directories.descriptor(parent)
        begin = time.monotonic()
        found = os.stat(name, dir_fd=above.fd, follow_symlinks=False)
        drive.prefetch.waited(LOOKED_UP, parent, name, time.monotonic() - begin)
        if found.st_dev != drive.inodes.device:
            raise NodeVanished(f"{name!r} is another filesystem mounted in the store")
        return self.name(parent, name, found, asker)

    def name(self, parent: Inode, name: bytes, found: os.stat_result, asker: Asker) -> bytes:
        """The entry for `found`, which lies in `parent` as `name`, in the view of its asker."""
        drive = self._drive
        inode = drive.inodes.remember(parent, name, found)
        view = drive.view(asker.caller, inode) if inode.is_regular else PLAIN
        reply = drive.entry(inode, view, found)
        drive.inodes.count_lookup(inode, view)
        return reply

    def getattr(self, event: events.Getattr, asker: Asker | None) -> bytes:
        """Attributes of a node. The other view's node is stale to this caller: the kernel walks the path again."""
        drive = self._drive
        nodeid = event.head.nodeid
        inode = drive.inodes.get(nodeid)
        view = nodeid & 1
        if inode.is_regular and asker is not None and drive.view(asker.caller, inode) != view:
            raise NodeVanished("the other view's node")
        return replies.attr(drive.attributes(inode, view, drive.stat(inode)), drive.validity(inode))

    def forget(self, event: events.Forget) -> None:
        self._drive.inodes.forget(event.head.nodeid, event.nlookup)

    def batch_forget(self, event: events.BatchForget) -> None:
        for nodeid, nlookup in event.items:
            self._drive.inodes.forget(nodeid, nlookup)

    def readlink(self, event: events.Readlink) -> bytes:
        drive = self._drive
        inode = drive.inodes.get(event.head.nodeid)
        if inode.parent is None:
            raise OSError(errno.EINVAL, "not a symlink")
        above = drive.directories.descriptor(inode.parent)
        return os.readlink(inode.name, dir_fd=above.fd)

    def statfs(self, event: events.Statfs) -> bytes:
        """The store's own figures: what is sealed takes a little more room than what is written."""
        return replies.statfs(os.fstatvfs(self._drive.store), 255)
