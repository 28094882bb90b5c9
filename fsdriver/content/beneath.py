"""Opening by a path inside the store that was written down earlier, and is not to be trusted any more."""

import os

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_beneath(root: int, path: bytes, flags: int) -> int:
    """Opens `path` below the directory `root` and follows no link on the way, so it leads nowhere else. A FIFO does
    not block. Errors: ValueError for what is no such path, OSError."""
    *folders, name = path.split(b"/")
    if not name or not {b"", b".", b".."}.isdisjoint((*folders, name)):
        raise ValueError("not a path inside the store")
    at = os.dup(root)
    try:
        for folder in folders:
            inner = os.open(folder, _FOLDER, dir_fd=at)
            os.close(at)
            at = inner
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    finally:
        os.close(at)
