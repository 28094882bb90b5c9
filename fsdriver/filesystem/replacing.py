"""A file or directory that loses its name to another one, and is still what somebody has looked up."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from fsdriver.filesystem.drive import Drive
from fsdriver.nodes.inode import Inode


@contextmanager
def replacing(drive: Drive, victim: Inode | None, parent: Inode, name: bytes) -> Iterator[None]:
    """Around the rename that takes `name` in `parent` from `victim`, which is opened before it cannot be reached."""
    if victim is None:
        yield
    elif victim.is_regular:
        with drive.files.borrowed(victim) as file:
            last = os.fstat(file.fd).st_nlink <= 1
            yield
            if os.fstat(file.fd).st_nlink == 0:  # on NFS it has a name still, and would be in its folder's way
                drive.files.linger(file)
            gone(drive, victim, parent, name, last=last)
    else:
        held = drive.directories.descriptor(victim) if victim.is_directory else None
        yield
        if held is not None:
            drive.directories.removed(victim, held)
        gone(drive, victim, parent, name, last=True)


def gone(drive: Drive, inode: Inode, parent: Inode, name: bytes, *, last: bool) -> None:
    """`inode` has lost a name; with `last` it had no other."""
    drive.inodes.unlinked(inode, parent, name, last=last)
    if inode.is_regular:
        drive.lines.gone(drive.directories.child_path(parent, name))
        if last:
            drive.files.removed(inode)
        else:  # the other names are still there, with one link less
            drive.files.moved(inode)
            drive.tell_both_views(inode)
    drive.inodes.closed(inode)
