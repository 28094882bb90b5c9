"""What programs without the plaintext view may do to extended attributes: bring sealed values back, where they may
bring the whole file back (docs/decisions/0033).

A restore sets them at any time: after mknod and before there is content, beside the content, or when the sealed file
has taken its name. Before that they are part of the drop-in and are sealed around as its content is (`unpacking`);
after that a value is taken only if it opens under the file's own key, so nobody gives a file a value it never had.
"""

import errno
import os

from fsdriver.content import HEADER_SIZE, Header, xattrs
from fsdriver.errors import FileDamaged, Revoked
from fsdriver.filesystem.asker import Asker
from fsdriver.filesystem.drive import VIEW_NAMES, Drive
from fsdriver.filesystem.dropins import DropIns
from fsdriver.nodes.inode import CIPHER, Inode
from fsdriver.nodes.openfile import OpenFile
from fsdriver.protocol import events


class SealedXattrs:
    """SETXATTR and REMOVEXATTR in the ciphertext view."""

    def __init__(self, drive: Drive, dropins: DropIns) -> None:
        self._drive = drive
        self._dropins = dropins

    def set(self, event: events.Setxattr, asker: Asker, inode: Inode) -> None:
        """Errors: ViewRefused; OSError EINVAL for what is not a sealed value of this file and this name."""
        if self._set_inside(event, asker, inode):
            return
        inode = self._dropins.settled(inode)
        with self._drive.files.borrowed(inode) as file:
            self._require_may_replace(inode, asker)
            self._require_own_value(file, event.name, event.value)
            self._record(inode, asker, event.name, "set")
            os.setxattr(file.fd, event.name, event.value, event.flags)

    def remove(self, event: events.Removexattr, asker: Asker, inode: Inode) -> None:
        """Errors: ViewRefused; OSError, as the store has it."""
        inode = self._dropins.settled(inode)
        if (coming := self._dropins.under_way(inode, asker.caller)) is not None:
            os.removexattr(coming.fd, event.name)
            return
        with self._drive.files.borrowed(inode) as file:
            if not self._drive.unfinished.by(inode, asker.caller):
                self._require_may_replace(inode, asker)
                os.getxattr(file.fd, event.name)  # ENODATA is not worth a record
                self._record(inode, asker, event.name, "removed")
            os.removexattr(file.fd, event.name)

    def _set_inside(self, event: events.Setxattr, asker: Asker, inode: Inode) -> bool:
        """Whether it is an attribute of what comes, and is set."""
        if (coming := self._dropins.under_way(inode, asker.caller)) is not None:
            return self._seal_around(coming, event)
        if self._drive.unfinished.by(inode, asker.caller) is None:
            return False
        with self._drive.files.borrowed(inode) as file:
            self._dropins.unlocked(file, asker)
            return self._seal_around(file, event)

    @staticmethod
    def _seal_around(file: OpenFile, event: events.Setxattr) -> bool:
        with file.lock:  # which is held while a drop-in becomes the file that was in it
            if file.settled:
                return False
            if file.sealed is None:
                raise Revoked("the key of this file was taken away")
            os.setxattr(file.fd, event.name, file.sealed.seal_xattr(event.name, event.value), event.flags)
            return True

    def _require_may_replace(self, inode: Inode, asker: Asker) -> None:
        self._dropins.require_may_replace(inode, asker, self._drive.files.label(inode))

    def _require_own_value(self, file: OpenFile, name: bytes, value: bytes) -> None:
        """Where the key is not here only the form can be judged: who may replace the file may spoil it anyway."""
        try:
            if len(value) < xattrs.OVERHEAD:
                raise FileDamaged("too short to be sealed")
            if file.sealed is not None:
                file.sealed.open_xattr(name, value)
                return
            head = os.pread(file.fd, HEADER_SIZE, 0)
            header = Header.parse(head)
            if (key := self._drive.keys.lent(header)) is not None:
                xattrs.open_sealed(header.check(head, key), header.file_id, name, value)
        except FileDamaged as exc:
            raise OSError(errno.EINVAL, f"not a sealed value of this file: {exc}") from exc

    def _record(self, inode: Inode, asker: Asker, name: bytes, what: str) -> None:
        drive = self._drive
        label = drive.files.label(inode)
        drive.recorder.record(
            "write",
            asker.caller,
            inode,
            label=label.qualified if label is not None else "unknown",
            view=VIEW_NAMES[CIPHER],
            rule=drive.views.standing(asker.caller, label).rule,
            detail=f"sealed attribute {name.decode(errors='replace')} {what}",
        )
