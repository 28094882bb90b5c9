"""The key of one file, as the key server grants it: what the filesystem asks of whoever speaks to the server."""

from typing import Protocol

from fsdriver.file_grants import FileGrant
from policy import ProgramFacts


class Grants(Protocol):
    """The key server, asked for the key of one file. Blocks on the network, with a deadline."""

    def grant(
        self,
        *,
        person: str,
        program: ProgramFacts | None,
        action: str,
        file_id: bytes,
        label: bytes,
        path: str,
        key_id: bytes = b"",
        version: int = 0,
        wrapped: bytes = b"",
    ) -> FileGrant:
        """`wrapped` empty: a new file's key. Raises GrantRefused, ServerUnreachable."""
