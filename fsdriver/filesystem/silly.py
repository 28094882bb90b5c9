"""Files on NFS that are open and have no name any more: their client keeps them as `.nfs` and 24 hexadecimal digits, in
the folder they were in, until they are closed ("silly rename"). In the drive there are no such names.
"""

import errno
import os
import re
import time

from fsdriver.nodes.directories import Descriptor

_NAME = re.compile(rb"\.nfs[0-9a-f]{24}")
_MOMENT = 6.0
"""Seconds in which the daemon closes what nobody has open any more: RELEASE comes after close(2) has returned, and a
large file is kept for five seconds until it is verified."""


def is_silly(name: bytes) -> bool:
    return _NAME.fullmatch(name) is not None


def rmdir(name: bytes, parent: int, directory: Descriptor) -> None:
    """rmdir(2) of `directory`, which is `name` in `parent`. Where there is nothing in it but files that have no name,
    they get a moment to be closed. Errors: OSError."""
    end = time.monotonic() + _MOMENT
    while True:
        try:
            os.rmdir(name, dir_fd=parent)
            return
        except OSError as exc:
            if exc.errno != errno.ENOTEMPTY or not _seems_empty(directory) or time.monotonic() > end:
                raise
        time.sleep(0.01)


def _seems_empty(directory: Descriptor) -> bool:
    with directory.listed() as found:
        return all(is_silly(os.fsencode(entry.name)) for entry in found)
