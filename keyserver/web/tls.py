"""TLS of both ports, and who is at the other end of a connection.

Resumption would let an expired client certificate in again: OpenSSL does not look at it twice (research R3, finding 1).
So there are no tickets, and `machines.admit` looks at every request.
"""

import asyncio
import os
import ssl
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from keyserver.ca.authority import Authority
from keyserver.ca.names import Peer
from keyserver.errors import Denied


class ServerTls:
    """The TLS contexts of the two ports. Their key is made anew at every start and never written to a disk."""

    def __init__(self, authority: Authority, names: Sequence[str], now: float) -> None:
        self._authority = authority
        self._names = tuple(names)
        self.agent = self._context()
        self.agent.verify_mode = ssl.CERT_REQUIRED
        self.agent.load_verify_locations(cadata=authority.pem)
        self.admin = self._context()
        self.renew(now)

    def renew(self, now: float) -> None:
        """A new certificate for new connections. Raises `Malformed` for a name the CA may not certify."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._authority.issue_server(key.public_key(), self._names, now)
        issued = certificate.not_valid_before_utc.timestamp()
        self.renew_at = (issued + certificate.not_valid_after_utc.timestamp()) / 2
        chain = certificate.public_bytes(Encoding.PEM) + self._authority.pem.encode()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        # The ssl module reads files only; this one has no name and no disk.
        descriptor = os.memfd_create("server-certificate", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, private + chain)
            for context in (self.agent, self.admin):
                context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)

    @staticmethod
    def _context() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        return context


class PeerProtocol(HttpToolsProtocol):
    """Puts the verified client certificate into `request.state.peer`; None where it is not a machine's.

    uvicorn 0.54 does not offer it by itself (encode/uvicorn #3132).
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer: Peer | None = None
        connection: Any = transport.get_extra_info("ssl_object")
        if connection is not None and (der := connection.getpeercert(True)):
            try:
                peer = Peer.parse(der)
            except Denied:
                peer = None
        self.app_state = {**self.app_state, "peer": peer}
        super().connection_made(transport)
