"""Locks on ranges of a backing file that daemons on other machines see as well (docs/format.md 12).

OFD locks (fcntl(2)): they belong to the open file description behind a descriptor, so threads share them, they end with
its last descriptor, and NFSv4 carries them to the server. Nothing here waits.
"""

import fcntl
import os
import struct

SHARED, EXCLUSIVE = fcntl.F_RDLCK, fcntl.F_WRLCK
PROGRAMS_END = 1 << 62
"""Programs' own record locks lie on the bytes below; the byte itself stands for flock(2)."""
FLOCK_AT = PROGRAMS_END
COMMIT_AT = PROGRAMS_END + 1
"""Exclusive while somebody may change the file, shared while it is read as one state."""
TURN_AT = PROGRAMS_END + 2
"""Held by whoever is next to have COMMIT_AT, so that nobody who has just had it takes it again before."""
NOBODY_AT = PROGRAMS_END + 3
"""Never exclusive: `revalidate` takes it for a moment."""
TO_THE_END = 0
"""As a length."""

_FLOCK = struct.Struct("hhqqi4x")


def take(fd: int, kind: int, start: int, length: int = 1) -> bool:
    """Take a range, SHARED or EXCLUSIVE, or change what this description has there; False if somebody else is in the
    way. Errors: OSError (EBADF where the descriptor is not open for that)."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except BlockingIOError:
        return False
    except PermissionError:  # what fcntl(2) allows instead of EAGAIN
        return False
    return True


def revalidate(fd: int) -> None:
    """What is read from `fd` after this is what others have written before it. An NFS client believes what it has of a
    file that is open for writing, whatever the server says of its times, until it takes a lock. Errors: OSError."""
    take(fd, SHARED, NOBODY_AT)
    release(fd, NOBODY_AT)


def release(fd: int, start: int, length: int = 1) -> None:
    """Let go of what this description has of a range. Errors: OSError."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, start, length, 0))


def held_by_others(fd: int, kind: int, start: int, length: int = 1) -> tuple[int, int, int] | None:
    """What keeps this description from taking a range, as (kind, start, length), None if it could have it."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    found, _, first, size, _ = _FLOCK.unpack(answer)
    return None if found == fcntl.F_UNLCK else (found, first, size)
