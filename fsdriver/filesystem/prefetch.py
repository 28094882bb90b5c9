"""Reads ahead from file to file: who looks up or opens one file after the other gets the next ones' inodes or first
bytes from the disk before asking for them, those of the directories that were listed after this one included.

The kernel reads ahead inside a file; small files end before that helps, and each would cost the caller the wait for its
inode and its first block, and the daemon the time to get going again. Another process asks the store for them
(`readahead`), as a thread would need the interpreter lock for each: the bytes go to the page cache, sealed as they are,
and to nobody. It only ever helps: where it cannot be started or does not follow, nothing is read ahead.
"""

import logging
import os
import subprocess
import sys
import threading
from contextlib import suppress
from select import PIPE_BUF

from fsdriver.errors import FsError
from fsdriver.filesystem import readahead
from fsdriver.filesystem.readahead import LISTED, LOOKED_UP, OPENED
from fsdriver.nodes.directories import Directories
from fsdriver.nodes.inode import Inode

__all__ = ["LOOKED_UP", "OPENED", "Prefetch"]

log = logging.getLogger(__name__)

_COLD_SECONDS = 0.0003
"""Who has waited longer has waited for the disk: the files after this one will not be in memory either. What is in
memory costs nobody anything here."""
_COLD_FOR = 256
"""So many files after one that had to be waited for are taken to be on the disk as well."""
_TOLD_EVERY = 32
"""Of the files that need not be waited for, one in so many is told."""
_END_SECONDS = 2.0


class _Walk:
    """What is known of those who walk from file to file and need one kind of thing."""

    __slots__ = ("cold", "files")

    def __init__(self) -> None:
        self.cold = self.files = 0

    def worth_telling(self, seconds: float) -> bool:
        """Whether a file that was had after so long is to be told."""
        self.files += 1
        if seconds > _COLD_SECONDS:
            self.cold = _COLD_FOR
        elif self.cold > 0:
            self.cold -= 1
            if self.files < _TOLD_EVERY:
                return False
        else:
            return False
        self.files = 0
        return True


class Prefetch:
    """Tells the process that reads ahead. Thread-safe, and never waits; a message more or less does no harm."""

    def __init__(self, directories: Directories, store: int) -> None:
        self._directories = directories
        self._store = store
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # a pipe that is closed must not be written to: its number is another file's soon
        self._pipe = -1
        self._walks = {OPENED: _Walk(), LOOKED_UP: _Walk()}

    def start(self) -> None:
        command = [sys.executable, "-I", "-S", readahead.__file__, str(self._store)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(self._store,),
                cwd="/",
                env={},
                start_new_session=True,
            )
        except OSError as exc:
            log.warning("nothing is read ahead: %s", exc)
            return
        assert self._process.stdin is not None
        self._pipe = self._process.stdin.fileno()
        os.set_blocking(self._pipe, False)

    def listed(self, directory: Inode) -> None:
        """Somebody lists `directory`."""
        self._tell(LISTED, directory)

    def waited(self, kind: bytes, directory: Inode, name: bytes, seconds: float) -> None:
        """Somebody needed `name` in `directory` (OPENED: its first bytes, LOOKED_UP: its inode), and had it after so
        long."""
        if self._walks[kind].worth_telling(seconds):
            self._tell(kind, directory, name)

    def stop(self) -> None:
        with self._lock:
            process, self._process, self._pipe = self._process, None, -1
            if process is None:
                return
            assert process.stdin is not None
            process.stdin.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:  # a disk that does not answer
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)

    def _tell(self, kind: bytes, directory: Inode, *names: bytes) -> None:
        with suppress(FsError, OSError):  # a full pipe: it is behind, and hears of the next one
            place = os.fsencode(self._directories.path(directory)[1:])
            message = readahead.message(kind, place, *names)
            with self._lock:
                if self._pipe >= 0 and len(message) <= PIPE_BUF:  # what is longer may be written in part
                    os.write(self._pipe, message)
