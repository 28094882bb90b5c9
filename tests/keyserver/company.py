"""A small company for tests: a founded home, its service with a clock that tests set, and machines that enrol."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from keyserver.atomic_file import replace_file
from keyserver.auditlog.records import CHAIN_START, encode, link, rfc3339
from keyserver.ca.names import Peer
from keyserver.changes import Writer
from keyserver.client import AgentClient, JoinToken, enrol
from keyserver.home import Home, HomeConfig
from keyserver.keys.root import RootKey, create_root_key
from keyserver.messages import EnrolRequest, Mode, Record, RecordBatch
from keyserver.push import Hub
from keyserver.sealing import SealingKey
from keyserver.secret_store import SecretSettings, open_store
from keyserver.service import Founding, KeyService, found, new_company
from keyserver.serving import Listener, announcer, run
from keyserver.store.database import Store
from keyserver.web.tls import ServerTls
from tests.patience import PATIENCE

NOON = 1_790_000_000.0
PASSWORD = "a long enough password"
SHA = "9f" * 32

POLICY = {
    "company.yaml": """
company: Acme
zone: UTC
default: internal
labels:
  - {name: internal, level: internal}
""",
    "sales.yaml": f"""
department: sales
programs:
  office:
    - {{path: /usr/bin/office, sha256: [{SHA}]}}
labels:
  - {{name: clients, folders: [/sales/clients/**], level: confidential, lease: 15m, offline: 8h}}
  - {{name: contracts, folders: [/sales/contracts/**], level: secret}}
  - {{name: offers, folders: [/sales/offers/**], level: internal}}
rules:
  - name: office-edits
    users: ["@sales"]
    programs: [office]
    labels: [clients, contracts, offers]
    allow: [read, write, create]
    view: plaintext
  - {{name: backup, users: ["service:backup"], programs: any, labels: [clients], allow: [read], view: ciphertext}}
""",
}


@dataclass
class Clock:
    now: float = NOON

    def __call__(self) -> float:
        return self.now


@dataclass
class Founded:
    home: Home
    root: RootKey
    token: str


def found_home(folder: Path, now: float, names: tuple[str, ...] = ("keys.example",)) -> Founded:
    """A new server below `folder`, whose root key lies in a sealed file."""
    passphrase = folder / "passphrase"
    passphrase.write_text("the passphrase of the tests")
    passphrase.chmod(0o600)
    home = Home(folder / "server")
    home.create()
    config = HomeConfig(new_company(), SecretSettings("sealed-file", f"file:{passphrase}"))
    root = create_root_key(open_store(config.secrets, home=home.path, service="keyserver"), config.company)
    store = Store(home.database)
    store.upgrade()
    founding = Founding(config.company, "Acme", names, "admin", PASSWORD, POLICY)
    authority, log_key, token = found(store, root, founding, lambda: now)
    store.close()
    replace_file(home.authority_file, authority.pem.encode())
    replace_file(home.log_key_file, log_key.hex().encode())
    replace_file(home.admin_token_file, token.encode())
    replace_file(home.config_file, msgspec.json.encode(config))
    return Founded(home, root, token)


@dataclass
class TestMachine:
    """A machine's own keys, and the chain of the records it wrote."""

    __test__ = False

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    sealing: SealingKey = field(default_factory=SealingKey.generate)
    id: str = ""
    certificate: str = ""
    chain: bytes = CHAIN_START
    seq: int = 0

    def csr(self) -> str:
        return make_csr(self.key)

    def request(self, token: str = "", mode: Mode = "root") -> EnrolRequest:
        return EnrolRequest(token, "desk-7", mode, self.csr(), self.sealing.public)

    @property
    def peer(self) -> Peer:
        return Peer.parse(x509.load_pem_x509_certificate(self.certificate.encode()).public_bytes(Encoding.DER))

    def batch(self, count: int, *, user: str = "li", event: str = "open") -> RecordBatch:
        """The next `count` records of this machine."""
        first, before, bodies = self.seq + 1, self.chain, []
        for _ in range(count):
            self.seq += 1
            record = Record(seq=self.seq, time=rfc3339(NOON), machine=self.id, event=event, user=user)
            body = encode(record)
            self.chain = link(self.chain, body)
            bodies.append(body)
        return RecordBatch.of(first, before, bodies)


def make_csr(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


class Company:
    """A service over a founded home, not served; jobs run at once."""

    def __init__(self, founded: Founded, clock: Clock) -> None:
        self.founded = founded
        self.clock = clock
        self.pushed: list[tuple[str, str]] = []
        self.store = Store(founded.home.database)
        announce = lambda event, machine: self.pushed.append((event.kind, machine))  # noqa: E731
        self.service = KeyService(self.store, founded.root, clock, announce)
        self.service.start()

    def change(self, act):
        return self.service.writer.run(act)

    def add_user(self, name: str, *departments: str) -> None:
        self.change(lambda change: self.service.people.add(change, name, departments, (), "admin"))

    def token(self, logins, term=600.0):
        return self.change(lambda change: self.service.enrolment.create_token(change, logins, term, "admin"))

    def join(self, logins: dict[int, str], mode: Mode = "root") -> TestMachine:
        machine = TestMachine()
        request = machine.request(self.token(logins), mode)
        enrolled = self.change(lambda change: self.service.enrolment.enrol(change, request))
        machine.id, machine.certificate = enrolled.machine, enrolled.certificate
        return machine

    def label(self, qualified: str) -> str:
        return next(row.id for row in self.service.labels.labels.values() if row.qualified == qualified)

    def events(self) -> list[str]:
        """Events of the server's own records."""
        with self.store.read() as rows:
            return [record[4] for record in rows.records.stream()]

    def close(self) -> None:
        self.service.stop()
        self.store.close()


class PatientClient(AgentClient):
    """Does not take a machine that stands still for a server that is away."""

    def _call(self, path, request, answer, timeout):
        return super()._call(path, request, answer, max(timeout, PATIENCE))

    def records(self, batch, *, timeout=PATIENCE):
        return super().records(batch, timeout=timeout)

    def events(self, last, *, timeout=PATIENCE):
        return super().events(last, timeout=timeout)


@contextmanager
def one_commit(writer: Writer) -> Iterator[None]:
    """What is submitted meanwhile is committed together."""
    busy, gate = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        busy.set()
        gate.wait(PATIENCE)

    writer.submit(hold)
    busy.wait(PATIENCE)
    yield
    gate.set()


class Served:
    """A service behind its two real ports, in a thread of this process; its clock is the real one plus `skew`."""

    def __init__(self, founded: Founded, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self.founded = founded
        self.clock = clock
        self.loop = loop
        self.hub = Hub()
        self.store = Store(founded.home.database)
        self.service = KeyService(self.store, founded.root, clock, announcer(loop, self.hub))
        self.tls = ServerTls(self.service.authority, (), clock())
        self.sockets = Listener("127.0.0.1", 0).open(), Listener("127.0.0.1", 0).open()
        self.agent_url, self.admin_url = (f"https://127.0.0.1:{each.getsockname()[1]}" for each in self.sockets)
        self.started = threading.Event()
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        await run(self.service, self.hub, self.tls, self.sockets, self.agent_url, self.started.set, self.stopping)

    def write(self, act):
        return self.service.writer.run(act)

    def join(self, logins: dict[int, str], mode: Mode = "root") -> tuple[TestMachine, AgentClient]:
        machine = TestMachine()
        token = self.write(lambda change: self.service.enrolment.create_token(change, logins, 600, "admin"))
        answer = enrol(self.admin_url, JoinToken.parse(token), machine.request(mode=mode))
        machine.id, machine.certificate = answer.machine, answer.certificate
        return machine, self.client(machine)

    def client(self, machine: TestMachine) -> AgentClient:
        return PatientClient(self.agent_url, self.service.authority.pem, machine.certificate, machine.key)


@contextmanager
def serving(founded: Founded, clock: Clock) -> Iterator[Served]:
    loop = uvloop.new_event_loop()
    served = Served(founded, clock, loop)
    served.service.start()
    thread = threading.Thread(target=loop.run_until_complete, args=(served.run(),))
    thread.start()
    try:
        assert served.started.wait(PATIENCE)
        yield served
    finally:
        loop.call_soon_threadsafe(served.stopping.set)
        thread.join()
        loop.close()
        served.service.stop()
        served.store.close()
        for each in served.sockets:
            each.close()
