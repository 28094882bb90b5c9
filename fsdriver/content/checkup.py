"""What a file in a store, or a copy of one, turns out to be. Writes nothing.

Without a key only the form can be judged; with it every chunk, every hole, the sum and the extended attributes are.
"""

import errno
import os
import time
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from fsdriver.content import xattrs
from fsdriver.content.backing import user_names
from fsdriver.content.header import MAGIC, Header
from fsdriver.content.keys import FileKey, FileKeys
from fsdriver.content.offsets import HEADER_SIZE
from fsdriver.content.salvaging import Salvage
from fsdriver.content.sealed_file import SealedFile
from fsdriver.content.whole import is_whole
from fsdriver.errors import (
    ChunkForged,
    FileDamaged,
    FormatUnknown,
    FsError,
    HeaderDamaged,
    LeaseMissing,
    OtherCompany,
)

Unlock = Callable[[Header], FileKey]

_LOOKS = 5
_PAUSE = 0.1
"""Seconds for which a file that is to be called damaged has not been changed, and which are waited for that."""


class Verdict(StrEnum):
    OK = "ok"
    STRUCTURE_OK = "structure-ok"
    """The form is right; there was no key to verify the content with."""
    DAMAGED = "damaged"
    BAD_ATTRIBUTES = "bad-attributes"
    """The content is OK; extended attributes do not verify."""
    WRONG_KEY = "wrong-key"
    """The key that was given is not the file's, or the header does not say its key any more: who knows which."""
    UNFINISHED = "unfinished"
    """It ends inside its header, as after a crash while it was made."""
    UNKNOWN_FORMAT = "unknown-format"
    OTHER_COMPANY = "other-company"
    NOT_SEALED = "not-sealed"
    UNREADABLE = "unreadable"
    OVERLONG = "overlong"
    """OK, with bytes behind the end of the content, which nobody is ever given."""


_SETTLED = frozenset({Verdict.DAMAGED, Verdict.BAD_ATTRIBUTES})
"""What is said only of a file that was left alone meanwhile."""

SOUND = frozenset({Verdict.OK, Verdict.STRUCTURE_OK, Verdict.OVERLONG})


class Checked(NamedTuple):
    """A verdict, and in a few words why; the reason is empty where there is nothing to add."""

    verdict: Verdict
    reason: str = ""
    ranges: tuple[tuple[int, int], ...] | None = None
    """Of a damaged file: plain ranges (start, end) that are not what the commit counts, as far as single chunks tell;
    None where nothing can be said for lack of a header or a key."""
    attributes: tuple[bytes, ...] = ()
    """Names of the extended attributes that do not verify."""


def check(fd: int, unlock: Unlock | None = None, company: bytes | None = None) -> Checked:
    """What the regular file `fd`, open for reading, is. `unlock` finds its key or raises LeaseMissing; `company` is the
    one that it should belong to, if that is known.

    A drive may be writing the file: damage counts only if the file was left alone meanwhile.
    """
    for _ in range(_LOOKS):
        try:
            before = _state(fd)
            checked = _look(fd, unlock, company)
            after = _state(fd)
        except OSError as exc:
            return Checked(Verdict.UNREADABLE, exc.strerror or str(exc))
        if checked.verdict not in _SETTLED:
            return checked
        # Times have ticks of some milliseconds, within which a change would not be seen.
        if before == after and abs(time.time_ns() - after[-1]) > _PAUSE * 1e9:
            return checked
        time.sleep(_PAUSE)
    return Checked(Verdict.UNREADABLE, "it changes all the time while it is looked at")


def _state(fd: int) -> tuple[int, int, int]:
    found = os.fstat(fd)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _look(fd: int, unlock: Unlock | None, company: bytes | None) -> Checked:
    size = os.fstat(fd).st_size
    head = os.pread(fd, HEADER_SIZE, 0)
    if not head.startswith(MAGIC[: len(head)]):
        return Checked(Verdict.NOT_SEALED)
    if len(head) < HEADER_SIZE:
        return Checked(Verdict.UNFINISHED, f"{len(head)} bytes of a header of {HEADER_SIZE}")
    try:
        header = Header.parse(head)
        if company is not None:
            header.require_company(company)
        if unlock is not None:
            try:
                key = unlock(header)
            except LeaseMissing as exc:
                is_whole(head, size, None)
                return Checked(Verdict.STRUCTURE_OK, str(exc))
            except HeaderDamaged as exc:
                return Checked(Verdict.WRONG_KEY, str(exc))
            if FileKeys.draw(key, header.file_id, header.suite).commitment != header.commitment:
                return Checked(Verdict.WRONG_KEY, "the file was not sealed with this key")
            return _verify(fd, header, key)
        is_whole(head, size, None)
        return Checked(Verdict.STRUCTURE_OK)
    except FormatUnknown as exc:
        return Checked(Verdict.UNKNOWN_FORMAT, str(exc))
    except OtherCompany as exc:
        return Checked(Verdict.OTHER_COMPANY, str(exc))
    except (HeaderDamaged, ChunkForged, FileDamaged) as exc:
        return Checked(Verdict.DAMAGED, str(exc), _damaged_ranges(fd, unlock) if unlock is not None else None)


def _verify(fd: int, header: Header, key: FileKey) -> Checked:
    bad = _bad_attributes(fd, header, key)
    try:
        file = SealedFile.open(fd, lambda header: key)
        try:
            file.verify()
        finally:
            file.detach()
    except (HeaderDamaged, ChunkForged, FileDamaged) as exc:
        return Checked(Verdict.DAMAGED, str(exc), _damaged_ranges(fd, lambda header: key), bad)
    if bad:
        return Checked(Verdict.BAD_ATTRIBUTES, "the content verifies, extended attributes do not", attributes=bad)
    if file.overlong:
        return Checked(Verdict.OVERLONG, "bytes lie behind the end of the content")
    return Checked(Verdict.OK)


def _bad_attributes(fd: int, header: Header, key: FileKey) -> tuple[bytes, ...]:
    keys = FileKeys.draw(key, header.file_id, header.suite)
    bad = []
    for name in sorted(user_names(fd)):
        try:
            xattrs.open_sealed(keys, header.file_id, name, os.getxattr(fd, name))
        except FileDamaged:
            bad.append(name)
        except OSError as exc:
            if exc.errno != errno.ENODATA:  # removed meanwhile
                raise
    return tuple(bad)


def _damaged_ranges(fd: int, unlock: Unlock) -> tuple[tuple[int, int], ...] | None:
    try:
        found = Salvage(fd, unlock)
    except FsError:
        return None
    for _ in found.pieces():
        pass
    return tuple(sorted(found.lost + found.newer))
