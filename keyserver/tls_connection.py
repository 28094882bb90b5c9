"""HTTPS connections to the key server: TLS 1.3, our authority only, no tickets, and a deadline on every exchange.

Blocking and thread-safe: each exchange takes an idle connection or opens one. Proxies, redirects and the system's
certificate store are never used.
"""

import http.client
import os
import select
import socket
import ssl
import threading
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

__all__ = ["Connection", "Connections", "client_context", "presented_chain"]

MAX_ANSWER = 64 << 20
MAX_IDLE = 2


def client_context(authority: str, certificate: str = "", key: EllipticCurvePrivateKey | None = None) -> ssl.SSLContext:
    """A context that trusts `authority` (PEM) alone and, given both, shows `certificate` (PEM chain) with its key.

    Raises ValueError for PEM that cannot be used.
    """
    context = _bare_context()
    try:
        context.load_verify_locations(cadata=authority)
        if key is not None:
            _load_identity(context, certificate, key)
    except ssl.SSLError as exc:
        raise ValueError(f"certificate or authority cannot be used: {exc}") from exc
    return context


def _bare_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # A resumed session is not verified again (a certificate that expired meanwhile would pass).
    context.options |= ssl.OP_NO_TICKET
    context.sslsocket_class = _DeadlineSocket
    return context


def _load_identity(context: ssl.SSLContext, certificate: str, key: EllipticCurvePrivateKey) -> None:
    """`load_cert_chain` takes file names only; a memfd has one, and the key never touches a disk."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.encode()
    fd = os.memfd_create("identity", os.MFD_CLOEXEC)
    with os.fdopen(fd, "wb") as stream:
        stream.write(pem)
        stream.flush()
        context.load_cert_chain(f"/proc/self/fd/{fd}")


class _DeadlineSocket(ssl.SSLSocket):
    """Its timeout is what is left until `deadline`, so a server that sends a byte a second cannot hold a caller."""

    deadline: float

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self._arm()
        return super().recv_into(buffer, nbytes, flags)

    def send(self, data: Any, flags: int = 0) -> int:
        self._arm()
        return super().send(data, flags)

    def _arm(self) -> None:
        self.settimeout(_left(self.deadline))


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError("the deadline passed")
    return left


class Connection(http.client.HTTPConnection):
    """One connection. `deadline` (monotonic) is set before each exchange."""

    deadline: float

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(host, port)
        self.context = context
        # http.client drops its own reference once an answer says that the connection ends with it.
        self.tls: _DeadlineSocket | None = None
        self._aborted = False

    def connect(self) -> None:
        raw = socket.create_connection((self.host, self.port), timeout=_left(self.deadline))
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.settimeout(_left(self.deadline))
            wrapped = self.context.wrap_socket(raw, server_hostname=self.host, do_handshake_on_connect=False)
        except BaseException:
            raw.close()
            raise
        assert isinstance(wrapped, _DeadlineSocket)
        try:
            # INVARIANT: here it is shown before the flag is read, and `abort` does the opposite: one of them ends it.
            self.tls = wrapped
            if self._aborted:
                raise ConnectionAbortedError("the client was closed")
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        self.sock = wrapped
        self.set_deadline(self.deadline)

    def set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        if self.tls is not None:
            self.tls.deadline = deadline

    def send_request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> None:
        try:
            self.request(method, path, body, headers)
        except (ConnectionError, ssl.SSLEOFError):
            # With TLS 1.3 a refused client certificate is told after the handshake: perhaps before it hung up.
            if self.tls is not None:
                self.tls.recv(1)
            raise

    def stale(self) -> bool:
        """An idle connection with something to read was closed by the server (or is out of step)."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def abort(self) -> None:
        """Ends the connection under a thread that may be making or reading it: that thread sees the stream end."""
        self._aborted = True
        if self.tls is not None:
            # SSLSocket.shutdown would drop the TLS state the reader is using.
            try:
                socket.socket.shutdown(self.tls, socket.SHUT_RDWR)
            except OSError:
                return


class Connections:
    """The connections to one server. Errors are http.client's and socket's own: see `client.py` for what they mean."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        """Raises ValueError unless `url` is https://host[:port]."""
        parts = urlsplit(url)
        if (
            parts.scheme != "https"
            or not parts.hostname
            or parts.path not in ("", "/")
            or parts.query
            or parts.username
        ):
            raise ValueError(f"{url!r} is not of the form https://host:port")
        self.host = parts.hostname
        self.port = parts.port or 443
        self._context = context
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._aborted = False
        self._lock = threading.Lock()

    def exchange(
        self, method: str, path: str, body: bytes | None, timeout: float, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        """Status and body of the answer, within `timeout` seconds in all."""
        deadline = monotonic() + timeout
        connection, reused = self._take()
        try:
            try:
                return self._once(connection, deadline, method, path, body, headers)
            except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError):
                connection.close()
                # The server may close an idle connection just as we use it; nothing of the request was answered, and
                # every request of the contract may be repeated.
                if not reused:
                    raise
                self._release(connection)
                connection = self._new()
                return self._once(connection, deadline, method, path, body, headers)
        except BaseException:
            self.end(connection)
            raise

    def _once(
        self,
        connection: Connection,
        deadline: float,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
    ) -> tuple[int, bytes]:
        connection.set_deadline(deadline)
        connection.send_request(method, path, body, headers)
        response = connection.getresponse()
        data = response.read(MAX_ANSWER + 1)
        if len(data) > MAX_ANSWER:
            raise http.client.HTTPException(f"the answer is larger than {MAX_ANSWER} bytes")
        if response.will_close:
            self.end(connection)
        else:
            self._give_back(connection)
        return response.status, data

    def stream(self, path: str, timeout: float, headers: dict[str, str]) -> tuple[Connection, http.client.HTTPResponse]:
        """A connection of its own and the answer, its body not yet read."""
        connection = self._new()
        try:
            connection.set_deadline(monotonic() + timeout)
            connection.send_request("GET", path, None, headers)
            return connection, connection.getresponse()
        except BaseException:
            self.end(connection)
            raise

    def end(self, connection: Connection) -> None:
        """Closes a connection that is in use."""
        connection.close()
        self._release(connection)

    def use(self, context: ssl.SSLContext) -> None:
        """New connections take `context`; idle ones go."""
        with self._lock:
            self._context = context
        self.close()

    def close(self) -> None:
        """Closes idle connections. Later exchanges open new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def abort(self) -> None:
        """Ends everything: exchanges on other threads fail at once, and so do all later ones."""
        with self._lock:
            self._aborted = True
            busy = list(self._busy)
        for connection in busy:
            connection.abort()
        self.close()

    def _take(self) -> tuple[Connection, bool]:
        with self._lock:
            idle = self._idle.pop() if self._idle and not self._aborted else None
            if idle is not None:
                self._busy.add(idle)
        if idle is not None:
            if not idle.stale():
                return idle, True
            self.end(idle)
        return self._new(), False

    def _new(self) -> Connection:
        with self._lock:
            if self._aborted:
                raise ConnectionAbortedError("the client was closed")
            connection = Connection(self.host, self.port, self._context)
            self._busy.add(connection)
            return connection

    def _release(self, connection: Connection) -> None:
        with self._lock:
            self._busy.discard(connection)

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            self._busy.discard(connection)
            if len(self._idle) < MAX_IDLE and connection.context is self._context and not self._aborted:
                self._idle.append(connection)
                return
        connection.close()


def presented_chain(url: str, timeout: float) -> list[x509.Certificate]:
    """The certificates a server shows, unverified; nothing is sent to it. For pinning, and for nothing else."""
    context = _bare_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    target = Connections(url, context)
    connection = Connection(target.host, target.port, context)
    connection.set_deadline(monotonic() + timeout)
    connection.connect()
    try:
        return [x509.load_der_x509_certificate(der) for der in _chain(connection.tls)]
    finally:
        connection.close()


def _chain(sock: Any) -> list[bytes]:
    if hasattr(sock, "get_unverified_chain"):  # Python 3.13
        return list(sock.get_unverified_chain())
    # 3.11 and 3.12 have it one layer down only; DER is encoding 2 there (ENCODING_DER in _ssl.c).
    return [certificate.public_bytes(2) for certificate in sock._sslobj.get_unverified_chain()]
