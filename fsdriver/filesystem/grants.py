"""What the filesystem asks of whoever speaks to the key server: the key of one file, or keys that should be here."""

from typing import Protocol

from fsdriver.file_grants import FileGrant
from policy import ProgramFacts


class Grants(Protocol):
    """The key server. Both block on the network, with a deadline."""

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

    def refresh(self) -> bool:
        """Ask what this machine may hold now, for somebody who misses a key; False where that brings nothing new."""
