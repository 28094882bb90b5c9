"""Both ports of a server in this process, real TLS, the real client, and a clock that can jump."""

import http.client
import json
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlencode, urlsplit

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from keyserver import client as c
from keyserver import last_words
from keyserver.auditlog.reader import read_records
from keyserver.ca.authority import Authority
from keyserver.client import JoinToken, enrol
from keyserver.messages import (
    FileFacts,
    GrantRequest,
    ProgramClaim,
    PushEvent,
    Receipt,
    RecordReceipt,
    RenewRequest,
    SyncRequest,
)
from keyserver.receipts import signed_text
from keyserver.sealing import Binding
from keyserver.store.records import RecordFilter
from keyserver.tls_connection import client_context
from tests.keyserver.company import (
    PASSWORD,
    SHA,
    Clock,
    PatientClient,
    TestMachine,
    found_home,
    make_csr,
    one_commit,
    serving,
)
from tests.patience import PATIENCE, within


class RealClock(Clock):
    """`now` is what to add to the real time."""

    def __call__(self):
        return time.time() + self.now


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(found_home(tmp_path_factory.mktemp("served"), time.time()), RealClock(0.0)) as served:
        served.write(lambda change: served.service.people.add(change, "li", ["sales"], [], "admin"))
        served.write(lambda change: served.service.people.add(change, "dana", ["sales"], [], "admin"))
        yield served


@pytest.fixture
def joined(served):
    machine, client = served.join({1000: "li"})
    yield machine, client
    client.close()


@pytest.fixture
def clock(served):
    yield served.clock
    served.clock.now = 0.0


def label(served, qualified):
    return next(row.id for row in served.service.labels.labels.values() if row.qualified == qualified)


def collect(client, last, into, ended):
    try:
        with client.events(last) as stream:
            for event in stream:
                into.append(event)
    except c.Unreachable:
        pass
    ended.set()


@contextmanager
def listening(client):
    """Events of an open stream, as they come; and when it ended. Closes the client."""
    events: list[PushEvent] = []
    ended = threading.Event()
    thread = threading.Thread(target=collect, args=(client, 0, events, ended))
    thread.start()
    try:
        wait_for(lambda: events)
        yield events, ended
    finally:
        client.close()
        thread.join()


@pytest.fixture
def stream(joined):
    with listening(joined[1]) as opened:
        yield opened


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def test_sync_gives_all_a_machine_needs(served, joined):
    machine, client = joined
    before = time.time()
    answer = client.sync(SyncRequest(0, 0))
    assert before <= answer.now <= time.time()
    assert answer.logins == {"1000": "li"}
    assert {grant.label for grant in answer.leases} == {label(served, "sales/clients"), label(served, "sales/offers")}
    for grant in answer.leases:
        binding = Binding("lease", served.service.company, machine.id, grant.label, grant.key_id, 1)
        assert machine.sealing.open(grant.keys[0].sealed, binding) == served.service.labels.newest(grant.label)[1]
    assert answer.bundle == served.service.bundles.current.signed
    again = client.sync(SyncRequest(answer.bundle.number, answer.events))
    assert again.bundle is None
    assert [grant.lease for grant in again.leases] == [grant.lease for grant in answer.leases]


def test_a_grant_over_the_wire(served, joined):
    machine, client = joined
    file = FileFacts("0f" * 16, label(served, "sales/contracts"), "/sales/contracts/a.docx")
    office = ProgramClaim("/usr/bin/office", sha256=SHA, clean=True)
    answer = client.grant(GrantRequest(1, "li", office, "create", file))
    binding = Binding("grant", served.service.company, machine.id, file.file_id, answer.key_id, answer.version)
    machine.sealing.open(answer.sealed, binding)
    with pytest.raises(c.Denied):
        client.grant(GrantRequest(1, "dana", office, "create", file))


def test_a_right_that_ends_in_the_same_commit_gives_no_key(served, joined):
    _, client = joined
    service, answers = served.service, []
    file = FileFacts("0f" * 16, label(served, "sales/contracts"), "/sales/contracts/a.docx")
    request = GrantRequest(1, "li", ProgramClaim("/usr/bin/office", sha256=SHA, clean=True), "create", file)

    def ask():
        try:
            answers.append(client.grant(request))
        except c.ClientError as error:
            answers.append(error)

    asking = threading.Thread(target=ask)
    with one_commit(service.writer):
        disabled = service.writer.submit(lambda change: service.people.set_active(change, "li", False, "admin"))
        asking.start()
        time.sleep(0.3)
    asking.join()
    disabled.result()
    served.write(lambda change: service.people.set_active(change, "li", True, "admin"))
    assert isinstance(answers[0], c.Denied)


def test_records_over_the_wire(joined):
    machine, client = joined
    first, second = machine.batch(3), machine.batch(2)
    with pytest.raises(c.Conflict, match="record 1 was expected"):
        client.records(second)
    assert client.records(first).acknowledged == 3
    assert client.records(first).acknowledged == 3
    assert client.records(second).acknowledged == 5
    with pytest.raises(c.Denied, match="claims machine"):
        client.records(TestMachine(id="0" * 32, seq=5).batch(1))


def test_a_certificate_is_renewed(joined):
    machine, client = joined
    renewed = client.renew(RenewRequest(machine.csr()))
    client.use_certificate(renewed.certificate)
    client.sync(SyncRequest(0, 0))
    with pytest.raises(c.Malformed):
        client.renew(RenewRequest("x"))


def test_receipts_are_signed_by_the_machine(joined):
    machine, client = joined
    leases, at = ("a", "b"), 12.5
    signature = machine.key.sign(signed_text(leases, at), ec.ECDSA(hashes.SHA256()))
    client.receipt(Receipt(leases, at, signature, 3))
    with pytest.raises(c.Denied):
        client.receipt(Receipt(leases, 13.0, signature, 3))
    for bad in ((), ("x y",), ("a",) * 1001):
        with pytest.raises(c.Malformed):
            client.receipt(Receipt(bad, at, signature, 3))


def test_a_ban_ends_streams_and_requests_at_once(served):
    def ban():
        machine, client = served.join({1000: "li"})
        client.sync(SyncRequest(0, 0))
        with listening(client) as (events, ended):
            begun = time.monotonic()
            served.write(lambda change: served.service.ban(change, machine.id, "admin"))
            assert ended.wait(PATIENCE)
            seconds = time.monotonic() - begun
            assert [event.kind for event in events][1:] == ["banned"]
            with pytest.raises(c.Banned):
                client.sync(SyncRequest(0, 0))
            with pytest.raises(c.Banned):
                client.events(0)
        return seconds

    within(0.5, ban)


def test_a_banned_machine_may_hand_in_evidence_and_nothing_else(served, joined):
    machine, client = joined
    lease = client.sync(SyncRequest(0, 0)).leases[0].lease
    client.records(machine.batch(2))
    served.write(lambda change: served.service.ban(change, machine.id, "admin"))
    assert client.records(machine.batch(2)) == RecordReceipt(4, banned=True)
    assert client.records(machine.batch(1, event="close")).acknowledged == 5
    signature = machine.key.sign(signed_text((lease,), 12.5), ec.ECDSA(hashes.SHA256()))
    client.receipt(Receipt((lease,), 12.5, signature))
    for refused in (
        lambda: client.sync(SyncRequest(0, 0)),
        lambda: client.renew(RenewRequest(machine.csr())),
        lambda: client.events(0),
        lambda: client.grant(GrantRequest(1, "li", ProgramClaim("/usr/bin/office"), "read", FileFacts("", "", "/x"))),
    ):
        with pytest.raises(c.Banned):
            refused()
    with served.service.store.read() as rows:
        events = [record.event for record in read_records(rows, RecordFilter())]
    ban = len(events) - events[::-1].index("ban")
    assert [event for event in events[ban:] if event != "revoke"] == [
        "records-after-ban",
        "open",
        "open",
        "close",
        "forgotten",
    ]


def test_a_banned_machine_cannot_fill_the_log(served, joined, monkeypatch):
    machine, client = joined
    served.write(lambda change: served.service.ban(change, machine.id, "admin"))
    monkeypatch.setattr(last_words, "ALLOWANCE", 3000)
    assert client.records(machine.batch(20)).acknowledged == 20
    with pytest.raises(c.Banned, match="handed in all"):
        client.records(machine.batch(1))


def test_revoking_pushes_and_takes_the_lease_away(served, joined, stream):
    _, client = joined
    (first, second) = client.sync(SyncRequest(0, 0)).leases
    served.write(lambda change: served.service.leases.revoke(change, first.lease, "admin"))
    wait_for(lambda: stream[0][-1].kind == "revoked")
    assert [each.lease for each in client.sync(SyncRequest(0, 0)).leases] == [second.lease]


def test_disabling_a_person_pushes_and_ends_the_leases(served, joined, stream):
    _, client = joined
    assert client.sync(SyncRequest(0, 0)).leases
    disable = served.service.people.set_active
    served.write(lambda change: disable(change, "li", False, "admin"))
    try:
        wait_for(lambda: stream[0][-1].kind == "bundle")
        heard = stream[0][-1].number
        answer = client.sync(SyncRequest(0, 0))
        assert answer.leases == ()
        assert answer.bundle.number == served.service.bundles.current.signed.number
        assert answer.events >= heard
    finally:
        served.write(lambda change: disable(change, "li", True, "admin"))


def test_a_stream_that_comes_back_hears_what_it_missed(served, joined):
    machine, client = joined
    newest = served.write(lambda change: change.announce("leases", machine.id))
    wait_for(lambda: served.hub.newest(machine.id).number == newest)
    for last, kind in ((newest - 1, "leases"), (newest, "hello")):
        with client.events(last) as stream:
            event = next(iter(stream))
        assert (event.kind, event.number) == (kind, newest)


def test_an_expired_certificate_is_refused_on_an_open_connection_too(joined, clock):
    _, client = joined
    client.sync(SyncRequest(0, 0))
    clock.now = 86_401.0
    with pytest.raises(c.Denied, match="expired"):
        client.sync(SyncRequest(0, 0))
    with pytest.raises(c.Denied, match="expired"):
        client.events(0)


def test_an_open_stream_ends_with_its_certificate(served, joined, clock, stream, monkeypatch):
    monkeypatch.setattr("keyserver.web.agent.HEARTBEAT_SECONDS", 0.05)
    served.write(lambda change: change.announce("leases", joined[0].id))
    wait_for(lambda: len(stream[0]) == 2)
    clock.now = 86_401.0
    assert stream[1].wait(PATIENCE)


def test_tls_sessions_are_not_resumed(served, joined):
    machine, _ = joined
    context = client_context(served.service.authority.pem, machine.certificate, machine.key)
    context.options &= ~ssl.OP_NO_TICKET
    where = urlsplit(served.agent_url)
    raw = socket.create_connection((where.hostname, where.port))
    context.sslsocket_class = ssl.SSLSocket
    with context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
        tls.sendall(b"GET /v1/none HTTP/1.1\r\nhost: x\r\n\r\n")
        assert tls.recv(100).startswith(b"HTTP/1.1 404")
        assert tls.version() == "TLSv1.3"
        assert tls.session is None or not tls.session.has_ticket


def test_a_client_without_our_certificate_is_not_heard(served):
    other = Authority.create(served.service.company, "Other", [], time.time())
    key = ec.generate_private_key(ec.SECP256R1())
    forged = other.issue_machine("0a" * 16, make_csr(key), time.time()).public_bytes(Encoding.PEM).decode()
    client = PatientClient(served.agent_url, served.service.authority.pem, forged, key)
    with pytest.raises((c.CertificateRefused, c.Unreachable)):
        client.sync(SyncRequest(0, 0))
    client.close()


def test_a_certificate_of_our_ca_that_is_no_machines_is_denied(served):
    key = ec.generate_private_key(ec.SECP256R1())
    issued = served.service.authority.issue_machine("0a" * 16, make_csr(key), time.time())
    client = PatientClient(
        served.agent_url, served.service.authority.pem, issued.public_bytes(Encoding.PEM).decode(), key
    )
    with pytest.raises(c.Denied, match="has not issued"):
        client.sync(SyncRequest(0, 0))
    client.close()


def test_joining(served):
    make = served.service.enrolment.create_token
    token = served.write(lambda change: make(change, {}, 600, "admin"))
    request = TestMachine().request()
    wrong = JoinToken.parse(token[:-64] + "0" * 64)
    with pytest.raises(c.WrongAuthority):
        enrol(served.admin_url, wrong, request)
    answer = enrol(served.admin_url, JoinToken.parse(token), request)
    assert answer.agent_url == served.agent_url
    assert (answer.company, answer.company_name) == (served.service.company, "Acme")
    assert (answer.bundle_key, answer.log_key) == (served.service.bundle_key, served.service.log_key)
    with pytest.raises(c.TokenRefused, match="used before"):
        enrol(served.admin_url, JoinToken.parse(token), request)


class Admin:
    """A bare HTTPS connection to the admin port."""

    def __init__(self, served, token=""):
        where = urlsplit(served.admin_url)
        context = ssl.create_default_context(cadata=served.service.authority.pem)
        self.connection = http.client.HTTPSConnection(where.hostname, where.port, context=context, timeout=PATIENCE)
        self.headers = {"authorization": f"Bearer {token}"} if token else {}

    def ask(self, method, path, body=None, **headers):
        self.connection.request(method, path, body, self.headers | headers)
        answer = self.connection.getresponse()
        return answer, answer.read()


@pytest.fixture
def admin(served):
    admin = Admin(served, served.founded.token)
    yield admin
    admin.connection.close()


@pytest.fixture
def stranger(served):
    admin = Admin(served)
    yield admin
    admin.connection.close()


def test_health_is_open_and_all_else_is_not(served, stranger):
    assert stranger.ask("GET", "/livez")[0].status == 200
    assert json.loads(stranger.ask("GET", "/readyz")[1]) == {"ready": True, "checks": {"store": True}}
    assert stranger.ask("GET", "/v1/authority")[1].decode() == served.service.authority.pem
    _, described = stranger.ask("GET", "/v1/openapi.json")
    protected = [
        (method, path.replace("{", "").replace("}", ""))
        for path, methods in json.loads(described)["paths"].items()
        for method in methods
        if path not in ("/livez", "/readyz", "/v1/authority", "/v1/enrol")
    ]
    assert len(protected) > 12
    for method, path in protected:
        answer, body = stranger.ask(method.upper(), path, b"{}")
        assert answer.status == 401, path
        assert json.loads(body)["error"] == "denied"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("POST", "/v1/users", b"{", 400, "malformed"),
        ("POST", "/v1/users", b'{"name": 1}', 400, "malformed"),
        ("POST", "/v1/users", b'{"name": "li"}', 409, "conflict"),
        ("POST", "/v1/users/nobody/disable", b"", 404, "not-found"),
        ("POST", "/v1/users/li/promote", b"", 404, "not-found"),
        ("POST", "/v1/tokens", b'{"logins": {"x": "li"}}', 400, "malformed"),
        ("POST", "/v1/tokens", b'{"logins": {"1": "nobody"}}', 404, "not-found"),
        ("POST", "/v1/policy", b'{"files": {"a.yaml": "x: 1"}}', 400, "malformed"),
        ("POST", "/v1/machines/zz/ban", b"", 404, "not-found"),
        ("POST", "/v1/leases/zz/revoke", b"", 404, "not-found"),
        ("POST", "/v1/labels/zz/rotate", b"", 404, "not-found"),
        ("POST", "/v1/enrol", b"{}", 400, "malformed"),
        ("POST", "/v1/enrol", b"\xff" * 10, 400, "malformed"),
        ("POST", "/v1/users", b'{"name": "' + b"x" * 70_000, 413, "malformed"),
        ("GET", "/v1/nothing", None, 404, "not-found"),
        ("DELETE", "/v1/users", None, 404, "not-found"),
    ],
)
def test_bad_requests_get_named_failures(admin, method, path, body, status, word):
    answer, content = admin.ask(method, path, body, **{"content-type": "application/json"})
    assert (answer.status, json.loads(content)["error"]) == (status, word)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"bundle": 1}', b'{"bundle":1,"events":0,"x":1}', b"\xff"])
def test_malformed_bodies_on_the_agent_port(joined, body):
    _, client = joined
    status, answer = client._connections.exchange("POST", "/v1/sync", body, PATIENCE, {})
    assert (status, json.loads(answer)["error"]) == (400, "malformed")


def test_oversized_bodies_on_the_agent_port(joined):
    _, client = joined
    status, answer = client._connections.exchange("POST", "/v1/sync", b" " * 70_000, PATIENCE, {})
    assert (status, json.loads(answer)["error"]) == (413, "malformed")
    client.sync(SyncRequest(0, 0))


def test_machines_as_the_cli_lists_them(served, joined, admin):
    machine, client = joined
    client.sync(SyncRequest(0, 0))
    _, body = admin.ask("GET", "/v1/machines")
    (row,) = [row for row in msgspec.json.decode(body) if row["id"] == machine.id]
    assert (row["name"], row["state"], row["mode"], row["logins"]) == ("desk-7", "active", "root", {"1000": "li"})
    assert row["last_seen"] is not None


def sign_in(admin, password, **headers):
    form = urlencode({"name": "admin", "password": password})
    return admin.ask("POST", "/sign-in", form, **{"content-type": "application/x-www-form-urlencoded"} | headers)


def test_the_console_wants_a_password(stranger):
    answer, _ = stranger.ask("GET", "/")
    assert (answer.status, answer.headers["location"]) == (303, "/sign-in")
    answer, page = sign_in(stranger, "wrong")
    assert answer.status == 401
    assert b"name or password is wrong" in page
    assert answer.headers["set-cookie"] is None
    answer, _ = sign_in(stranger, PASSWORD, **{"sec-fetch-site": "cross-site"})
    assert answer.status == 403


def test_the_console_shows_machines_and_records_escaped(served, stranger):
    machine = TestMachine()
    token = served.write(lambda change: served.service.enrolment.create_token(change, {}, 600, "admin"))
    request = msgspec.structs.replace(machine.request(), name="<script>alert(1)</script>")
    enrol(served.admin_url, JoinToken.parse(token), request)
    answer, _ = sign_in(stranger, PASSWORD)
    assert answer.status == 303
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-grantfs=")
    for flag in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert flag in cookie
    session = {"cookie": cookie.split(";")[0]}
    answer, page = stranger.ask("GET", "/", **session)
    assert answer.status == 200
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert b"<script>" not in page
    assert b"&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert stranger.ask("GET", "/static/style.css")[0].status == 200
    assert stranger.ask("POST", "/sign-out", **session)[0].status == 303
    assert stranger.ask("GET", "/", **session)[0].status == 303
