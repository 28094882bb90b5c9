"""The drive's own corner of the store."""

STATE_DIRECTORY = b".grantfs"
"""Redo log, half-finished drop-ins, the company's mark. Not shown in the drive."""
REDO = b"redo"
"""The folder in it where each machine has its redo log."""
