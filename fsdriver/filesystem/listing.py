"""OPENDIR, READDIR, READDIRPLUS, RELEASEDIR, FSYNCDIR: names in a directory, the same for everybody.

A listing is one snapshot, taken anew where reading starts at the top (rewinddir). READDIRPLUS brings directories along;
regular files come as bare names, because their node depends on who asks and would have to be looked up again anyway.
"""

import os
import stat

from fsdriver.content.silly import is_silly
from fsdriver.errors import NodeVanished
from fsdriver.filesystem.corner import STATE_DIRECTORY
from fsdriver.filesystem.drive import Drive
from fsdriver.nodes.inode import PLAIN
from fsdriver.nodes.openfile import DirectoryHandle
from fsdriver.protocol import DirectoryEntries, abi, events, replies


def _type_bits(entry: "os.DirEntry[str]") -> int:
    """The file type readdir(3) told; 0 where the backing filesystem does not say, which READDIR allows."""
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFREG if entry.is_file(follow_symlinks=False) else 0


class Listing:
    """Directory handles and what is read through them."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive

    def opendir(self, event: events.Opendir) -> bytes:
        drive = self._drive
        directory = drive.inodes.get(event.head.nodeid)
        fh = drive.next_fh()
        drive.handles[fh] = DirectoryHandle(directory)
        drive.prefetch.listed(directory)
        # While no other machine has the store, what is listed changes only through this mount, and the kernel drops its
        # copy when it does.
        return replies.opened(fh, 0 if drive.claims.active else abi.FOPEN_CACHE_DIR | abi.FOPEN_KEEP_CACHE)

    def releasedir(self, event: events.Releasedir) -> bytes:
        self._drive.handles.pop(event.fh, None)
        return replies.EMPTY

    def fsyncdir(self, event: events.Fsyncdir) -> bytes:
        above = self._drive.directories.descriptor(self._drive.inodes.get(event.head.nodeid))
        os.fsync(above.fd)
        return replies.EMPTY

    def readdir(self, event: events.Readdir) -> bytes:
        names = self._names(event.fh, fresh=event.offset == 0)
        entries = DirectoryEntries(event.size)
        for offset in range(event.offset, len(names)):
            name, ino, mode = names[offset]
            if not entries.add(name, ino, offset + 1, mode):
                break
        return entries.body()

    def readdirplus(self, event: events.Readdirplus) -> bytes:
        drive = self._drive
        names = self._names(event.fh, fresh=event.offset == 0)
        handle = drive.handles[event.fh]
        assert isinstance(handle, DirectoryHandle)
        above = drive.directories.descriptor(handle.directory)
        entries = DirectoryEntries(event.size)
        for offset in range(event.offset, len(names)):
            name, ino, mode = names[offset]
            if not stat.S_ISDIR(mode) or name in (b".", b".."):
                if not entries.add(name, ino, offset + 1, mode, DirectoryEntries.NO_NODE):
                    break
                continue
            try:
                found = os.stat(name, dir_fd=above.fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed since the snapshot
            inode = drive.inodes.remember(handle.directory, name, found)
            if not entries.add(name, ino, offset + 1, mode, drive.entry(inode, PLAIN, found)):
                drive.inodes.closed(inode)
                break
            drive.inodes.count_lookup(inode, PLAIN)
        return entries.body()

    def _names(self, fh: int, *, fresh: bool) -> list[tuple[bytes, int, int]]:
        drive = self._drive
        handle = drive.handles.get(fh)
        if not isinstance(handle, DirectoryHandle):
            raise NodeVanished(f"directory handle {fh} is not open")
        with handle.lock:
            if handle.names is None or fresh:
                directory = handle.directory
                above = drive.directories.descriptor(directory)
                parent = directory.parent if directory.parent is not None else directory
                names = [(b".", directory.ino, stat.S_IFDIR), (b"..", parent.ino, stat.S_IFDIR)]
                hidden = STATE_DIRECTORY if directory is drive.inodes.root else None
                with above.listed() as found:
                    names += [
                        (name, entry.inode(), _type_bits(entry))
                        for entry in found
                        if (name := os.fsencode(entry.name)) != hidden and not is_silly(name)
                    ]
                handle.names = names
            return handle.names
