"""Whether an installed package vouches for a file that a process runs code from.

A file that a package listed and matched is remembered by its id in /proc/PID/maps for as long as its inode says that
nothing has changed. Only a path that a package lists is ever opened: any other may lie on our own drive, or on
a disk that does not answer.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Container, Iterable
from typing import NamedTuple

from fsdriver.identity.files import Files
from fsdriver.identity.mappings import FileId, without_deleted
from fsdriver.identity.packages import Packages
from fsdriver.identity.procfs import Signature

_REMEMBERED = 8192


class Untrusted(Exception):
    """Why a process counts as unlisted."""


class _Vouched(NamedTuple):
    path: bytes
    signature: Signature
    state: object


class Vouching:
    """Files that packages vouch for. Thread-safe."""

    def __init__(self, files: Files, packages: Packages) -> None:
        self._files = files
        self._packages = packages
        self._known: OrderedDict[FileId, _Vouched] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def known(self) -> Container[FileId]:
        """Files that `check` takes without a path, if `forget_changed` has just let them pass."""
        return self._known

    def forget_changed(self, files: Iterable[FileId]) -> bool:
        """Look at the known ones of `files` again; true if one of them is no longer known."""
        state, changed = self._packages.state(), False
        for file in files:
            known = self._known.get(file)
            if known is None or known.state != state or not _unchanged(known):
                changed = True
                with self._lock:
                    self._known.pop(file, None)
        return changed

    def owners(self, path: bytes, digests: dict[str, str]) -> frozenset[str]:
        """The packages that list `path` with one of `digests` (by algorithm)."""
        return frozenset(o.package for o in self._packages.owners(path) if digests.get(o.algorithm) == o.digest)

    def check(self, file: FileId, path: bytes, before: Container[FileId]) -> None:
        """Return if a package vouches for the mapped file, else raise Untrusted.

        `path` is what /proc/PID/maps says, b"" for a known file. A file that was removed (an upgrade) keeps the trust
        that this very process had before: it cannot be opened for writing any more.
        """
        if not path:
            if file in self._known:
                return
            raise Untrusted("its memory map changed while it was examined")
        path, deleted = without_deleted(path)
        if deleted and file in before:
            return
        found = self._vouch(file, path, deleted)
        with self._lock:
            self._known[file] = _Vouched(path, found, self._packages.state())
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def _vouch(self, file: FileId, path: bytes, deleted: bool) -> Signature:
        name = os.fsdecode(path)
        if deleted:
            raise Untrusted(f"it runs code from {name}, which was removed since it started")
        owners = self._packages.owners(path)
        if not owners:
            raise Untrusted(f"it runs code from {name}, which belongs to no package")
        try:
            facts = self._files.facts(path)
        except OSError as exc:
            raise Untrusted(f"it runs code from {name}, which cannot be read") from exc
        if facts.mapped != file:
            raise Untrusted(f"it runs code from another file than the {name} that is there now")
        if not facts.root_only:
            raise Untrusted(f"it runs code from {name}, which others than root can change")
        if not any(facts.digests.get(owner.algorithm) == owner.digest for owner in owners):
            raise Untrusted(f"it runs code from {name}, which is not as package {owners[0].package} installed it")
        return facts.signature


def _unchanged(known: _Vouched) -> bool:
    try:
        found = os.lstat(known.path)
    except OSError:
        return False
    # Field by field, because a process has hundreds of these.
    was = known.signature
    return found.st_ctime_ns == was[2] and found.st_ino == was[1] and found.st_dev == was[0] and found.st_size == was[3]
