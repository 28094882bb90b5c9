"""The key of one file, as the key server grants it: what the filesystem asks of whoever speaks to the server."""

from typing import NamedTuple, Protocol

from keyserver.sealing import SecretKey
from policy import ProgramFacts


class FileGrant(NamedTuple):
    """The key of one file of a label whose keys stay on the server. `key_id` is 16 bytes."""

    file_key: SecretKey
    key_id: bytes
    version: int
    wrapped: bytes
    rule: str


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
