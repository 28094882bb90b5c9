"""Digests of files that may be trusted, taken once for each state of a file.

A digest is remembered under device, inode, ctime and size. A file changed within the last second is hashed again each
time, because a second change within one tick of the kernel's clock would leave the same ctime.
"""

import hashlib
import os
import stat
import threading
import time
from collections import OrderedDict
from typing import NamedTuple

from fsdriver.identity import mappings
from fsdriver.identity.procfs import Signature

_REMEMBERED = 8192  # files: about 3 MB
_SETTLED_NS = 1_000_000_000
_BLOCK = 1 << 20


class FileFacts(NamedTuple):
    """A regular file: its state, its hex digests by algorithm (md5, sha256), the id its mappings have.

    `root_only`: root owns it and nobody else may write it.
    """

    signature: Signature
    mapped: mappings.FileId
    digests: dict[str, str]
    root_only: bool
    first_line: bytes

    @property
    def sha256(self) -> str:
        """The digest that policy and records use."""
        return self.digests["sha256"]


class Files:
    """The digests. Thread-safe; hashes one file at a time, so ten requests of a starting program read it once."""

    def __init__(self) -> None:
        self._known: OrderedDict[Signature, FileFacts] = OrderedDict()
        self._devices: dict[int, int] = {}
        self._hashing = threading.Lock()

    def facts(self, path: str | bytes) -> FileFacts:
        """The facts of `path`, which must not lie on a disk that may stop answering. OSError if it is no plain file."""
        found = self._known.get(signature(os.stat(path, follow_symlinks=False)))
        return found or self._hash(path)

    def _hash(self, path: str | bytes) -> FileFacts:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            with self._hashing:
                before = os.fstat(fd)
                known = self._known.get(signature(before))
                if known is not None:
                    return known
                if not stat.S_ISREG(before.st_mode):
                    raise OSError(f"{os.fsdecode(path)} is not a regular file")
                digests, first_line = _digests(fd)
                if signature(os.fstat(fd)) != signature(before):
                    raise OSError(f"{os.fsdecode(path)} changes while it is read")
                root_only = before.st_uid == 0 and not before.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
                file = self._device(fd, before), before.st_ino
                facts = FileFacts(signature(before), file, digests, root_only, first_line)
                if time.time_ns() - before.st_ctime_ns > _SETTLED_NS:
                    self._known[facts.signature] = facts
                    if len(self._known) > _REMEMBERED:
                        self._known.popitem(last=False)
                return facts
        finally:
            os.close(fd)

    def _device(self, fd: int, found: os.stat_result) -> int:
        if found.st_dev not in self._devices and found.st_size:
            self._devices[found.st_dev] = mappings.device_in_maps(fd)
        return self._devices.get(found.st_dev, found.st_dev)


def signature(found: os.stat_result) -> Signature:
    """What a digest is remembered under."""
    return Signature(found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size)


def _digests(fd: int) -> tuple[dict[str, str], bytes]:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    buffer = bytearray(_BLOCK)
    view = memoryview(buffer)
    first_line = b""
    offset = 0
    while length := os.preadv(fd, [buffer], offset):
        if not offset:
            first_line = bytes(view[: min(length, 256)]).partition(b"\n")[0]
        md5.update(view[:length])
        sha256.update(view[:length])
        offset += length
    return {"md5": md5.hexdigest(), "sha256": sha256.hexdigest()}, first_line
