"""The published exit codes of `fsdriver`, `keyserver` and `policy`. A number is never reused for another meaning."""

from enum import IntEnum


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    DENIED = 3
    NOT_FOUND = 4
    CONFLICT = 5
    NOT_READY = 6
    """Sealed, not running, or the server cannot be reached."""
    VERIFICATION_FAILED = 7
    WAITING_FOR_APPROVAL = 8
