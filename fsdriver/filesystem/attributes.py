"""SETATTR: mode, owner, times and size. Modes, owners and times are POSIX's to allow; a size is content."""

import errno
import os
import stat
import time

from fsdriver.filesystem.asker import Asker
from fsdriver.filesystem.drive import Drive, without_setid
from fsdriver.filesystem.dropins import DropIns
from fsdriver.filesystem.files import Files
from fsdriver.nodes.inode import Inode
from fsdriver.protocol import events, replies

# FATTR_* of <linux/fuse.h>, as plain numbers: this is asked for every file of an unpacked archive.
_MODE, _UID, _GID, SIZE, _ATIME, _MTIME, _FH, _ATIME_NOW, _MTIME_NOW = (1 << bit for bit in range(9))
_KILL_SUIDGID = 1 << 11


class Attributes:
    """Changes attributes of the backing file, through its descriptor where it is open."""

    def __init__(self, drive: Drive, files: Files, dropins: DropIns) -> None:
        self._drive = drive
        self._files = files
        self._dropins = dropins

    def setattr(self, event: events.Setattr, asker: Asker) -> bytes:
        drive = self._drive
        named = drive.inodes.get(event.head.nodeid)
        inode = self._dropins.settled(named)
        if (coming := self._dropins.under_way(inode, asker.caller)) is not None:
            inode = coming.inode  # a descriptor of a replacement has the node of the file that is to be replaced
        view = event.head.nodeid & 1
        valid = event.valid
        if valid & SIZE:
            if not inode.is_regular:
                raise OSError(errno.EINVAL, "only regular files have a size to set")
            self._files.truncate(named, event.fh if valid & _FH else None, event.size, asker)
        if valid & (_UID | _GID):
            self._chown(inode, event.uid if valid & _UID else -1, event.gid if valid & _GID else -1)
        if valid & _MODE:
            self._chmod(inode, stat.S_IMODE(event.mode))
        if valid & _KILL_SUIDGID:
            mode = stat.S_IMODE(drive.stat(inode).st_mode)
            if (dropped := without_setid(mode)) != mode:
                self._chmod(inode, dropped)
        if valid & (_ATIME | _MTIME | _ATIME_NOW | _MTIME_NOW):
            self._utimes(event, inode)
        found = drive.stat(inode)
        drive.tell_other_view_attributes(inode, view)
        return replies.attr(drive.attributes(named, view, found), drive.validity(inode))

    def _chown(self, inode: Inode, uid: int, gid: int) -> None:
        if (file := inode.opened) is not None:
            os.fchown(file.fd, uid, gid)
        else:
            name, directory = self._place(inode)
            os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)

    def _chmod(self, inode: Inode, mode: int) -> None:
        if (file := inode.opened) is not None:
            os.fchmod(file.fd, mode)
        elif inode.parent is None:
            os.fchmod(self._drive.store, mode)
        else:
            # chmod(2) would follow a link that somebody has put there.
            name, directory = self._place(inode)
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                if stat.S_ISLNK(os.fstat(fd).st_mode):
                    raise OSError(errno.EOPNOTSUPP, "a symlink has no mode")
                os.chmod(f"/proc/self/fd/{fd}", mode)
            finally:
                os.close(fd)

    def _utimes(self, event: events.Setattr, inode: Inode) -> None:
        valid = event.valid
        file = inode.opened
        if file is not None:
            # The commit comes first: written after this, it would put its own time in the place of the one asked for.
            file.commit()
        now = time.time_ns()
        found = self._drive.stat(inode)
        atime = now if valid & _ATIME_NOW else event.atime_ns if valid & _ATIME else found.st_atime_ns
        mtime = now if valid & _MTIME_NOW else event.mtime_ns if valid & _MTIME else found.st_mtime_ns
        if file is not None:
            os.utime(file.fd, ns=(atime, mtime))
        elif inode.parent is None:
            os.utime(self._drive.store, ns=(atime, mtime))
        else:
            name, directory = self._place(inode)
            os.utime(name, ns=(atime, mtime), dir_fd=directory, follow_symlinks=False)

    def _place(self, inode: Inode) -> tuple[bytes, int]:
        """Name and directory of an inode that is not open."""
        if inode.parent is None:
            return b".", self._drive.store
        self._drive.stat(inode)  # the name must still be this file
        return inode.name, self._drive.directories.descriptor(inode.parent).fd
