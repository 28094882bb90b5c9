"""`.grantfs/incoming`: where files grow that take a name later. The names there say which machine makes them."""

import os
import secrets
from contextlib import suppress

from fsdriver.filesystem.corner import STATE_DIRECTORY

INCOMING = b"incoming"


class Incoming:
    """This machine's part of the folder; `fd` is a descriptor of the folder."""

    def __init__(self, corner: int, machine: str) -> None:
        """Makes the folder in the store's corner, and removes what a daemon of this machine that died has left: the
        names those files were for are as they were."""
        self._machine = machine.encode()
        with suppress(FileExistsError):
            os.mkdir(INCOMING, 0o700, dir_fd=corner)
        self.fd = os.open(INCOMING, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=corner)
        for name in map(os.fsencode, os.listdir(self.fd)):
            if name.rpartition(b".")[0] == self._machine:
                os.unlink(name, dir_fd=self.fd)

    def close(self) -> None:
        os.close(self.fd)

    def new_name(self) -> bytes:
        """A name in the folder that nobody else takes."""
        return self._machine + b"." + secrets.token_hex(12).encode()

    @staticmethod
    def path(name: bytes) -> bytes:
        """Where a file called so lies in the store."""
        return b"/".join((STATE_DIRECTORY, INCOMING, name))
