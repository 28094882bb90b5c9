"""Ends the connection when the daemon was killed and cannot die.

A notification about a name waits in the kernel for the directory, where no signal reaches it. Who has the directory may
wait for an answer of the daemon. If that is killed then, its death, which would end the connection, waits for its
thread, that for the program, and the program for the connection's end: it would keep the drive hanging, and its locks
in the store, for ever. So another process looks whether it lives, and ends the connection if not.
"""

import os
import subprocess
import sys
from contextlib import suppress

from fsdriver.device import mourning


class Mourner:
    """The process. It ends with this one, too."""

    def __init__(self, control: int) -> None:
        """`control`: a descriptor of the connection's fusectl directory. Errors: OSError."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", mourning.__file__, str(os.getpid()), str(control)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[control],
            cwd="/",
            env={},
            start_new_session=True,
        )

    def stop(self) -> None:
        """After the connection has ended."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
