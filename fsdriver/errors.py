"""Every deliberate failure of the drive, and the one errno each becomes.

A refused check raises one of these; it never returns False. Messages name the file's label, the rule or the reason,
never key material. `to_errno` is called in one place, where a reply to the kernel is written.
"""

import errno
import logging

log = logging.getLogger(__name__)


class FsError(Exception):
    """A failure the drive answers on purpose."""


class ViewRefused(FsError):
    """Policy gives this caller no view of the file, or not this action."""


class CallerRefused(FsError):
    """Nobody can be named for this request: pid 0, a kernel thread, or a process that vanished."""


class LeaseMissing(FsError):
    """This machine holds no key for the file's label."""


class LeaseExpired(FsError):
    """The key's term, or its offline term, is over."""


class GrantRefused(FsError):
    """The key server refused the key of one file."""


class ServerUnreachable(FsError):
    """A key has to come from the key server and it does not answer."""


class OtherCompany(FsError):
    """The sealed file belongs to another company."""


class Revoked(FsError):
    """The right behind an open handle was taken away."""


class NodeVanished(FsError):
    """The node's file is gone from the store, or the node is the other view's: the kernel looks the name up again."""


class HeaderDamaged(FsError):
    """The header is short, forged or malformed."""


class FormatUnknown(FsError):
    """The header asks for a format, feature or suite this program does not know."""


class ChunkForged(FsError):
    """A chunk does not verify in its place, or is newer than the commit."""


class FileDamaged(FsError):
    """Size, hole or checksum do not agree with the commit record."""


class FileRolledBack(FsError):
    """A whole old copy of the file lies in its place, and its label refuses that."""


class SpoolFailed(FsError):
    """The record of the request cannot be kept, so the request is refused."""


class NotSupported(FsError):
    """The operation has no meaning on this drive."""


class LabelBoundary(FsError):
    """A directory that a label's pattern names cannot be renamed or removed."""


DAMAGE = (ChunkForged, FileDamaged, FormatUnknown, HeaderDamaged, OtherCompany)
"""What says that the sealed bytes in the store are not what this company's drive wrote: each is recorded."""

ERRNO: dict[type[FsError], int] = {
    ViewRefused: errno.EACCES,
    CallerRefused: errno.EACCES,
    LeaseMissing: errno.EACCES,
    LeaseExpired: errno.EACCES,
    GrantRefused: errno.EACCES,
    ServerUnreachable: errno.EACCES,
    OtherCompany: errno.EACCES,
    Revoked: errno.EACCES,
    NodeVanished: errno.ESTALE,
    HeaderDamaged: errno.EIO,
    FormatUnknown: errno.EIO,
    ChunkForged: errno.EIO,
    FileDamaged: errno.EIO,
    FileRolledBack: errno.EIO,
    SpoolFailed: errno.EIO,
    NotSupported: errno.EOPNOTSUPP,
    LabelBoundary: errno.EBUSY,
}


def to_errno(exc: BaseException) -> int:
    """The positive errno that stands for `exc` in a reply. A bug is logged and becomes EIO."""
    if isinstance(exc, FsError):
        return ERRNO[type(exc)]
    if isinstance(exc, OSError) and exc.errno:
        return exc.errno
    log.error("bug while serving a request", exc_info=exc)
    return errno.EIO
