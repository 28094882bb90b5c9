"""The key of one file, asked for at each open, for labels whose keys never leave the key server."""

from collections.abc import Callable
from typing import NamedTuple

from fsdriver.errors import GrantRefused, ServerUnreachable
from fsdriver.machine import Identity
from keyserver import messages as m
from keyserver.client import AgentClient, Banned, ClientError, Unreachable
from keyserver.sealing import Binding, SealingError, SecretKey
from policy import ProgramFacts

__all__ = ["FileGrant", "FileGrants", "claim"]


class FileGrant(NamedTuple):
    """What the server granted. `wrapped` is the file key for the header's slot, under version `version` of `key_id`."""

    file_key: SecretKey
    key_id: bytes
    version: int
    wrapped: bytes
    rule: str


class FileGrants:
    """Asks for file keys as one machine. Thread-safe."""

    def __init__(self, client: AgentClient, identity: Identity, on_banned: Callable[[], None]) -> None:
        self._client = client
        self._identity = identity
        self._on_banned = on_banned

    def ask(self, request: m.GrantRequest, timeout: float) -> FileGrant:
        """Waits up to `timeout` seconds. Raises GrantRefused or ServerUnreachable."""
        company, machine = self._identity.company, self._identity.machine
        try:
            answer = self._client.grant(request, timeout=timeout)
            binding = Binding("grant", company, machine, request.file.file_id, answer.key_id, answer.version)
            file_key = self._identity.sealing_key.open(answer.sealed, binding)
            return FileGrant(file_key, bytes.fromhex(answer.key_id), answer.version, answer.wrapped, answer.rule)
        except Unreachable as exc:
            raise ServerUnreachable(f"the key of this file has to come from the key server: {exc}") from exc
        except (ClientError, SealingError, ValueError) as exc:
            if isinstance(exc, Banned):
                self._on_banned()
            raise GrantRefused(str(exc)) from exc


def claim(program: ProgramFacts | None) -> m.ProgramClaim:
    """What the agent says about the caller's program; None where it could not name one."""
    if program is None:
        return m.ProgramClaim("")
    return m.ProgramClaim(
        path=program.path,
        sha256=program.sha256,
        packages=tuple(sorted(program.packages)),
        script=program.script,
        script_sha256=program.script_sha256,
        clean=program.clean,
        jit=program.jit,
    )
