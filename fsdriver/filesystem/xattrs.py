"""SETXATTR, GETXATTR, LISTXATTR, REMOVEXATTR: `user.` attributes of regular files, sealed under the file's key.

The plaintext view reads and writes values; the ciphertext view lists and reads what is stored, so that a backup carries
it along, and takes it back (`sealed_xattrs`). Directories and special files have no key, so they have no attributes.
`user.grantfs.info`, the header's facts, is an answer of the drive itself and stored nowhere.
"""

import errno
import json
import os
from typing import Any

from fsdriver.content.backing import user_names
from fsdriver.content.facts import describe
from fsdriver.errors import NotSupported
from fsdriver.filesystem.asker import Asker
from fsdriver.filesystem.drive import Drive
from fsdriver.filesystem.files import Files
from fsdriver.filesystem.sealed_xattrs import SealedXattrs
from fsdriver.nodes.inode import CIPHER, Inode
from fsdriver.nodes.openfile import OpenFile
from fsdriver.protocol import events, replies
from policy import Action

INFO = b"user.grantfs.info"
_USER = b"user."


class Xattrs:
    """Extended attributes of both views."""

    def __init__(self, drive: Drive, files: Files, sealed: SealedXattrs) -> None:
        self._drive = drive
        self._files = files
        self._sealed = sealed

    def get(self, event: events.Getxattr, asker: Asker) -> bytes:
        inode = self._kept_for(event.head.nodeid, event.name)
        if not inode.is_regular:
            raise OSError(errno.ENODATA, "no attributes here")
        with self._drive.files.borrowed(inode) as file:
            if event.name == INFO:
                value = json.dumps(self._facts(file)).encode()
            else:
                value = os.getxattr(file.fd, event.name)
                if event.head.nodeid & 1 != CIPHER:
                    value = self._files.unlocked(inode, file, asker, Action.READ).open_xattr(event.name, value)
        return _sized(value, event.size)

    def list(self, event: events.Listxattr) -> bytes:
        inode = self._drive.inodes.get(event.head.nodeid)
        if not inode.is_regular:
            return _sized(b"", event.size)
        with self._drive.files.borrowed(inode) as file:
            names = user_names(file.fd)
        return _sized(b"".join(name + b"\0" for name in names), event.size)

    def set(self, event: events.Setxattr, asker: Asker) -> bytes:
        inode = self._kept_for(event.head.nodeid, event.name)
        self._require_regular(inode)
        if event.head.nodeid & 1 == CIPHER:
            self._sealed.set(event, asker, inode)
            return replies.EMPTY
        with self._drive.files.borrowed(inode) as file:
            sealed = self._files.unlocked(inode, file, asker, Action.WRITE)
            self._drive.unfinished.end(inode)
            file.by_listed = True
            os.setxattr(file.fd, event.name, sealed.seal_xattr(event.name, event.value), event.flags)
        return replies.EMPTY

    def remove(self, event: events.Removexattr, asker: Asker) -> bytes:
        inode = self._kept_for(event.head.nodeid, event.name)
        self._require_regular(inode)
        if event.head.nodeid & 1 == CIPHER:
            self._sealed.remove(event, asker, inode)
            return replies.EMPTY
        with self._drive.files.borrowed(inode) as file:
            self._files.unlocked(inode, file, asker, Action.WRITE)
            os.removexattr(file.fd, event.name)
        return replies.EMPTY

    def _facts(self, file: OpenFile) -> dict[str, Any]:
        """The header's facts, and the label by its name. What the commit says only where the file is unlocked: the
        question gives nobody a key."""
        header = self._drive.files.header(file)
        facts = describe(header, os.fstat(file.fd).st_size)
        label = self._drive.views.bundle.label_by_id(header.label)
        facts["label_id"], facts["label"] = facts["label"], label.qualified if label is not None else "unknown"
        if file.sealed is not None:
            facts |= {"generation": file.sealed.generation, "seals": file.sealed.seals, "plain_size": file.sealed.size}
        return facts

    def _kept_for(self, nodeid: int, name: bytes) -> Inode:
        if not name.startswith(_USER):
            raise NotSupported("only user attributes are kept")
        return self._drive.inodes.get(nodeid)

    @staticmethod
    def _require_regular(inode: Inode) -> None:
        if not inode.is_regular:
            raise NotSupported("a directory or special file has no key to seal attributes with")


def _sized(value: bytes, size: int) -> bytes:
    """What GETXATTR and LISTXATTR answer: the length, the value, or ERANGE where it does not fit."""
    if size == 0:
        return replies.xattr_size(len(value))
    if len(value) > size:
        raise OSError(errno.ERANGE, "the value is longer than the buffer")
    return value
