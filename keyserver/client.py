"""What an agent says to the key server: `messages.py` over HTTPS, each failure as one named error.

`enrol` joins a machine; `AgentClient` does everything after that, with the machine's certificate. The client keeps no
state but connections and decides nothing. No token, key or certificate shows in a repr, an error or a log line.
"""

import contextlib
import hashlib
import hmac
import http.client
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType
from typing import Self, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from keyserver import messages as m
from keyserver.tls_connection import Connection, Connections, client_context, presented_chain

__all__ = [
    "AgentClient",
    "Banned",
    "CertificateRefused",
    "ClientError",
    "Conflict",
    "Denied",
    "EventStream",
    "JoinToken",
    "Malformed",
    "NotFound",
    "Sealed",
    "ServerFailed",
    "TokenRefused",
    "Unreachable",
    "WrongAuthority",
    "enrol",
]

TIMEOUT = 5.0
EVENT_SILENCE = 60.0
"""The server sends a comment line more often than this; a longer silence means the connection is dead."""

Answer = TypeVar("Answer", bound=m.Message)


class ClientError(Exception):
    """The exchange did not give what was asked for."""


class Unreachable(ClientError):
    """No answer: nothing listens, the network is down, the deadline passed, the connection broke."""


class WrongAuthority(ClientError):
    """Whoever answers cannot show a certificate of our company's authority. Nothing secret was sent."""


class CertificateRefused(ClientError):
    """The server does not take this machine's certificate: expired, or another company's."""


class ServerFailed(ClientError):
    """The server answered with a failure that is its own (5xx), or with something that is not the contract."""


class Denied(ClientError):
    """The server decided no."""


class Banned(Denied):
    """This machine was banned."""


class TokenRefused(Denied):
    """The join token is unknown, used or expired."""


class Sealed(ServerFailed):
    """The server runs, but nobody has unsealed its root key yet."""


class Conflict(ClientError):
    """What was sent contradicts what the server has."""


class NotFound(ClientError):
    """The server does not know what was asked for."""


class Malformed(ClientError):
    """The server could not read what was sent."""


_BY_WORD: dict[str, type[ClientError]] = {
    "denied": Denied,
    "banned": Banned,
    "token-used": TokenRefused,
    "token-expired": TokenRefused,
    "sealed": Sealed,
    "conflict": Conflict,
    "malformed": Malformed,
    "not-found": NotFound,
}
_BY_STATUS: dict[int, type[ClientError]] = {
    400: Malformed,
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Conflict,
    413: Malformed,
    422: Malformed,
}


@dataclass(frozen=True, slots=True)
class JoinToken:
    """`gfs1.<id>.<secret>.<SHA-256 of the authority's DER certificate, hex>`: may join one machine, once."""

    text: str = field(repr=False)
    id: str
    fingerprint: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError, without the text, when it is no token."""
        match = re.fullmatch(r"gfs1\.([A-Za-z0-9_-]{1,64})\.[A-Za-z0-9_-]{16,128}\.([0-9a-f]{64})", text.strip())
        if match is None:
            raise ValueError("this is not a join token (gfs1.ID.SECRET.FINGERPRINT); copy the whole line")
        return cls(text.strip(), match[1], match[2])


def enrol(url: str, token: JoinToken, request: m.EnrolRequest, *, timeout: float = 15.0) -> m.EnrolResponse:
    """Joins this machine at the admin port `url`; `request.token` is filled in from `token`.

    The authority is fetched first and compared with the fingerprint in the token; only then is the token sent, on a
    second connection that verifies the server against that authority. Raises WrongAuthority, TokenRefused, ...
    """
    deadline = monotonic() + timeout
    with _named_failures(url):
        chain = presented_chain(url, timeout)
        authority = [c for c in chain if _same(hashlib.sha256(c.public_bytes(Encoding.DER)).hexdigest(), token)]
        if not authority:
            raise WrongAuthority(
                f"{url} does not show the authority named in the join token: "
                "wrong server, or somebody is in between. The token was not sent"
            )
        pem = authority[0].public_bytes(Encoding.PEM).decode()
        connections = Connections(url, client_context(pem))
    try:
        request = msgspec.structs.replace(request, token=token.text)
        response = _post(connections, "/enrol", request, m.EnrolResponse, max(0.1, deadline - monotonic()))
    finally:
        connections.close()
    if response.authority.strip() != pem.strip():
        raise WrongAuthority(f"{url} named another authority in its answer than the join token did")
    return response


def _same(digest: str, token: JoinToken) -> bool:
    return hmac.compare_digest(digest, token.fingerprint)


class AgentClient:
    """The agent port, seen from an enrolled machine. Thread-safe.

    Every call raises a ClientError: Unreachable when there is no answer within its timeout (seconds).
    """

    def __init__(self, url: str, authority: str, certificate: str, key: EllipticCurvePrivateKey) -> None:
        """`authority` and `certificate` are PEM. Raises ValueError for PEM or a URL that cannot be used."""
        self._authority = authority
        self._key = key
        self._url = url
        self._connections = Connections(url, client_context(authority, certificate, key))

    def use_certificate(self, certificate: str) -> None:
        """Shows `certificate` (PEM, same key) from the next connection on. Raises ValueError for an unusable one."""
        self._connections.use(client_context(self._authority, certificate, self._key))

    def sync(self, request: m.SyncRequest, *, timeout: float = TIMEOUT) -> m.SyncResponse:
        return self._call("/sync", request, m.SyncResponse, timeout)

    def renew(self, request: m.RenewRequest, *, timeout: float = TIMEOUT) -> m.RenewResponse:
        return self._call("/certificate", request, m.RenewResponse, timeout)

    def grant(self, request: m.GrantRequest, *, timeout: float = TIMEOUT) -> m.GrantResponse:
        return self._call("/grants", request, m.GrantResponse, timeout)

    def records(self, batch: m.RecordBatch, *, timeout: float = 30.0) -> m.RecordReceipt:
        body = _send(self._connections, "/records", batch.encode(), timeout, "application/jsonl")
        return _decode(body, m.RecordReceipt)

    def receipt(self, receipt: m.Receipt, *, timeout: float = TIMEOUT) -> None:
        _exchange(self._connections, "/receipts", receipt, timeout)

    def events(self, last: int, *, timeout: float = TIMEOUT) -> "EventStream":
        """The push stream from event `last` on; `timeout` is for its first answer."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}
        with _named_failures(self._url):
            connection, response = self._connections.stream(f"{m.API}/events", timeout, headers)
            if response.status != 200:
                try:
                    raise _failure(response.status, response.read(1 << 16))
                finally:
                    self._connections.end(connection)
        return EventStream(self._url, self._connections, connection, response)

    def close(self) -> None:
        """For good: calls and streams on other threads end at once with Unreachable, and so do later ones."""
        self._connections.abort()

    def _call(self, path: str, request: m.Message, answer: type[Answer], timeout: float) -> Answer:
        return _post(self._connections, path, request, answer, timeout)

    def __repr__(self) -> str:
        return f"<AgentClient {self._url}>"


class EventStream:
    """Iterates over PushEvents until the connection ends, which AgentClient.close brings about from any thread.

    Raises Unreachable when the connection breaks or is silent for EVENT_SILENCE seconds.
    """

    def __init__(
        self, url: str, connections: Connections, connection: Connection, response: http.client.HTTPResponse
    ) -> None:
        self._url = url
        self._connections = connections
        self._connection = connection
        self._response = response

    def __iter__(self) -> Iterator[m.PushEvent]:
        with _named_failures(self._url):
            data: list[bytes] = []
            while True:
                self._connection.set_deadline(monotonic() + EVENT_SILENCE)
                line = self._response.readline(1 << 16)
                if not line:
                    return
                line = line.rstrip(b"\r\n")
                if line.startswith(b"data:"):
                    data.append(line[5:].lstrip(b" "))
                elif not line and data:
                    yield _decode(b"\n".join(data), m.PushEvent)
                    data = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._response.close()
        self._connections.end(self._connection)


def _post(connections: Connections, path: str, request: m.Message, answer: type[Answer], timeout: float) -> Answer:
    return _decode(_exchange(connections, path, request, timeout), answer)


def _exchange(connections: Connections, path: str, request: m.Message, timeout: float) -> bytes:
    return _send(connections, path, msgspec.json.encode(request), timeout, "application/json")


def _send(connections: Connections, path: str, request: bytes, timeout: float, kind: str) -> bytes:
    headers = {"Content-Type": kind, "Accept": "application/json"}
    with _named_failures(f"{connections.host}:{connections.port}"):
        status, body = connections.exchange("POST", m.API + path, request, timeout, headers)
    if not 200 <= status < 300:
        raise _failure(status, body)
    return body


def _decode(body: bytes, answer: type[Answer]) -> Answer:
    try:
        return msgspec.json.decode(body, type=answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ServerFailed(f"the server's answer is not a {answer.__name__}: {exc}") from None


def _failure(status: int, body: bytes) -> ClientError:
    try:
        failure = msgspec.json.decode(body, type=m.Failure)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _BY_STATUS.get(status, ServerFailed)(f"the server answered {status} without a reason")
    return _BY_WORD.get(failure.error, _BY_STATUS.get(status, ServerFailed))(failure.message)


@contextlib.contextmanager
def _named_failures(where: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as exc:
        raise WrongAuthority(f"{where} is not a server of this company: {exc.verify_message}") from exc
    except ssl.SSLError as exc:
        if "ALERT" in (exc.reason or ""):
            raise CertificateRefused(f"{where} refused this machine's certificate ({exc.reason})") from exc
        raise Unreachable(f"no TLS connection to {where}: {exc.reason or exc}") from exc
    except (OSError, http.client.HTTPException) as exc:
        raise Unreachable(f"{where} does not answer: {exc or type(exc).__name__}") from exc
