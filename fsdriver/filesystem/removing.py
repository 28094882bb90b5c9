"""rmdir(2) of a store's directory, in which an NFS client may still have files without a name."""

import errno
import os
import time

from fsdriver.content.silly import is_silly
from fsdriver.filesystem.asker import Asker, MustWait
from fsdriver.nodes.directories import Descriptor

_MOMENT = 6.0
"""Seconds in which the daemon closes what nobody has open any more: RELEASE comes after close(2) has returned, and a
large file is kept for five seconds until it is verified."""


def remove_directory(name: bytes, parent: int, directory: Descriptor, asker: Asker) -> None:
    """rmdir(2) of `directory`, which is `name` in `parent`. Where there is nothing in it but files that NFS keeps
    without a name, they get a moment to be closed. Errors: OSError; MustWait."""
    end = time.monotonic() + _MOMENT
    while True:
        try:
            os.rmdir(name, dir_fd=parent)
            return
        except OSError as exc:
            if exc.errno != errno.ENOTEMPTY or not _seems_empty(directory) or time.monotonic() > end:
                raise
        if not asker.may_wait:
            raise MustWait
        time.sleep(0.01)


def _seems_empty(directory: Descriptor) -> bool:
    with directory.listed() as found:
        return all(is_silly(os.fsencode(entry.name)) for entry in found)
