"""A key server for tests of the agent's side: real TLS on loopback, answers that the test sets."""

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyserver import messages as m
from keyserver.sealing import Binding, SecretKey, seal

COMPANY = "c0" * 16
MACHINE = "a1" * 16


class Company:
    """An authority and what it signs."""

    def __init__(self, name="Example"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        self.certificate = (
            self._builder(subject, self.key.public_key(), now - timedelta(days=1), now + timedelta(days=30), subject)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, SHA256())
        )
        self.pem = self.certificate.public_bytes(Encoding.PEM).decode()
        self.fingerprint = hashlib.sha256(self.certificate.public_bytes(Encoding.DER)).hexdigest()
        self.bundle_key = Ed25519PrivateKey.generate()

    def _builder(self, subject, key, begin, end, issuer=None):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )

    def issue(self, public_key, *, server=False, begin=-60.0, end=86_400.0):
        """A certificate in PEM, for 127.0.0.1 or for the machine, valid from and to these seconds from now."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server" if server else MACHINE)])
        now = datetime.now(UTC)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = self._builder(name, public_key, now + timedelta(seconds=begin), now + timedelta(seconds=end))
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if server:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM).decode()

    def sign_bundle(self, document, number):
        raw = msgspec.json.encode(document, order="deterministic")
        return m.SignedBundle(number, raw, self.bundle_key.sign(b"grantfs-bundle-v1\n" + raw))


def failure(status, word, message="said the test"):
    return status, m.Failure(word, message)


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answers:
    """What the server says: for each path below /v1 a function of the body, giving a message or (status, message)."""

    by_path: dict[str, Callable[[bytes], Any]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    events: list[m.PushEvent] = field(default_factory=list)
    streams: int = 0
    delay: float = 0.0


class KeyServer:
    """One port; `mutual` asks for client certificates. `port` is free for reuse after `stop`, as for a restart."""

    def __init__(self, company, directory: Path, *, mutual=True, port=0, answers=None):
        self.company = company
        self.answers = answers or Answers()
        self.stopped = threading.Event()
        key = ec.generate_private_key(ec.SECP256R1())
        pem = directory / "server.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        pem.write_text(private + company.issue(key.public_key(), server=True) + company.pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        context.load_cert_chain(pem)
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=company.pem)
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.keyserver = self
        self._server.context = context
        self.port = self._server.server_address[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self):
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.drop_connections()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    keyserver: KeyServer
    context: ssl.SSLContext

    def __init__(self, *args):
        self.sockets: set[socket.socket] = set()
        super().__init__(*args)

    def finish_request(self, request, client_address):
        request.settimeout(10)
        try:
            with self.context.wrap_socket(request, server_side=True) as wrapped:
                self.sockets.add(wrapped)
                if self.keyserver.stopped.is_set():  # its handshake was under way meanwhile
                    return
                _Handler(wrapped, client_address, self)
                self.sockets.discard(wrapped)
        except OSError:
            return

    def drop_connections(self):
        for each in list(self.sockets):
            try:
                socket.socket.shutdown(each, socket.SHUT_RDWR)
            except OSError:
                continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_):
        pass

    def do_POST(self):
        answers = self.server.keyserver.answers
        body = self.rfile.read(int(self.headers["content-length"]))
        answers.requests.append(Request(self.path, dict(self.headers), body))
        if self.server.keyserver.stopped.wait(answers.delay):
            self.close_connection = True
            return
        answer = answers.by_path[self.path.removeprefix("/v1")](body)
        status, content = answer if isinstance(answer, tuple) else (200, answer)
        data = content if isinstance(content, bytes) else b"" if content is None else msgspec.json.encode(content)
        self.send_response(status if content is not None else 204)
        if content is not None:
            self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        keyserver = self.server.keyserver
        answers = keyserver.answers
        answers.requests.append(Request(self.path, dict(self.headers), b""))
        if refusal := answers.by_path.get("/events"):
            status, content = refusal(b"")
            data = msgspec.json.encode(content)
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        answers.streams += 1
        sent = 0
        while not keyserver.stopped.is_set():
            for event in answers.events[sent:]:
                sent += 1
                self.wfile.write(b": comment\nid: %d\ndata: %b\n\n" % (event.number, msgspec.json.encode(event)))
            time.sleep(0.01)
        answers.streams -= 1


def lend(
    sealing_public, label, *, expires, offline=0.0, versions=(1,), lease="1e" * 16, key_id="d0" * 16, company=COMPANY
):
    """A lease with fresh keys, and the keys by version."""
    keys = {version: SecretKey.generate() for version in versions}
    sealed = tuple(
        m.SealedKey(version, seal(key, sealing_public, Binding("lease", company, MACHINE, label, key_id, version)))
        for version, key in keys.items()
    )
    return m.LeaseGrant(lease, label, key_id, sealed, expires, offline), keys
