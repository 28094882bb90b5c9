"""The key of one file, as the key server grants it: what the filesystem asks of whoever speaks to the server."""

from typing import NamedTuple, Protocol

from keyserver.messages import GrantRequest
from keyserver.sealing import SecretKey


class Granted(NamedTuple):
    """A file key and its wrapped form for the header; `key_id` is 16 bytes."""

    secret: SecretKey
    key_id: bytes
    version: int
    wrapped: bytes
    rule: str


class Grants(Protocol):
    """The key server, asked for the key of one file. Blocks on the network, with a deadline."""

    def grant(self, request: GrantRequest) -> Granted:
        """Raises GrantRefused, ServerUnreachable."""
