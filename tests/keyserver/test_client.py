import socket
import threading
import time

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from keyserver import client, tls_connection
from keyserver import messages as m
from keyserver.client import AgentClient, JoinToken, enrol
from tests.loopback import Company, KeyServer, failure
from tests.patience import PATIENCE, taken, within


@pytest.fixture(scope="module")
def company():
    return Company()


@pytest.fixture
def server(company, tmp_path):
    server = KeyServer(company, tmp_path)
    yield server
    server.stop()


@pytest.fixture
def admin(company, tmp_path):
    server = KeyServer(company, tmp_path, mutual=False)
    yield server
    server.stop()


def machine(company, url, **validity):
    key = ec.generate_private_key(ec.SECP256R1())
    return AgentClient(url, company.pem, company.issue(key.public_key(), **validity), key)


def token(fingerprint):
    return JoinToken.parse(f"gfs1.0123456789abcdef.{'5e' * 32}.{fingerprint}")


SYNC = m.SyncRequest(0, 0)
NOTHING = m.SyncResponse(1.0, None, {}, (), 0)


def test_an_answer_comes_back_over_one_kept_connection(company, server):
    server.answers.by_path["/sync"] = lambda body: NOTHING
    agent = machine(company, server.url)
    assert agent.sync(SYNC) == NOTHING
    kept = agent._connections._idle[0]
    assert agent.sync(SYNC) == NOTHING
    assert agent._connections._idle == [kept]
    assert msgspec.json.decode(server.answers.requests[0].body, type=m.SyncRequest) == SYNC
    agent.close()
    with pytest.raises(client.Unreachable):
        agent.sync(SYNC)


def test_a_restarted_server_is_found_again(company, server, tmp_path):
    server.answers.by_path["/sync"] = lambda body: NOTHING
    agent = machine(company, server.url)
    agent.sync(SYNC)
    server.stop()
    with pytest.raises(client.Unreachable):
        agent.sync(SYNC)
    again = KeyServer(company, tmp_path, port=server.port, answers=server.answers)
    assert agent.sync(SYNC) == NOTHING
    again.stop()
    agent.close()


def test_receipts_have_no_body(company, server):
    server.answers.by_path["/receipts"] = lambda body: None
    agent = machine(company, server.url)
    agent.receipt(m.Receipt(("l",), 1.0, b"s"))
    agent.receipt(m.Receipt(("l",), 1.0, b"s"))
    agent.close()


@pytest.mark.parametrize(
    ("status", "word", "error"),
    [
        (403, "denied", client.Denied),
        (403, "banned", client.Banned),
        (409, "conflict", client.Conflict),
        (404, "not-found", client.NotFound),
        (400, "malformed", client.Malformed),
        (503, "sealed", client.Sealed),
        (500, "new-word", client.ServerFailed),
        (403, "new-word", client.Denied),
        (302, "new-word", client.ServerFailed),
    ],
)
def test_each_failure_is_a_named_error(company, server, status, word, error):
    server.answers.by_path["/sync"] = lambda body: failure(status, word)
    agent = machine(company, server.url)
    with pytest.raises(client.ClientError) as caught:
        agent.sync(SYNC)
    assert type(caught.value) is error
    assert str(caught.value) == "said the test"
    agent.close()


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b'{"now":1,"unknown":2}', b"[" * 100_000])
@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_that_is_not_the_contract_is_the_servers_failure(company, server, status, body):
    server.answers.by_path["/sync"] = lambda _: (status, body)
    agent = machine(company, server.url)
    with pytest.raises(client.ServerFailed):
        agent.sync(SYNC)
    agent.close()


def test_the_deadline_holds_for_the_whole_exchange(company, server):
    server.answers.delay = PATIENCE
    server.answers.by_path["/sync"] = lambda body: NOTHING
    agent = machine(company, server.url)

    def wait():
        with pytest.raises(client.Unreachable):
            agent.sync(SYNC, timeout=0.3)

    within(1, lambda: taken(wait))
    agent.close()


def test_closing_ends_a_call_on_another_thread(company, server):
    server.answers.delay = 10 * PATIENCE
    server.answers.by_path["/sync"] = lambda body: NOTHING
    agent = machine(company, server.url)
    errors: list[Exception] = []

    def call():
        try:
            agent.sync(SYNC, timeout=10 * PATIENCE)
        except client.Unreachable as exc:
            errors.append(exc)

    thread = threading.Thread(target=call)
    thread.start()
    while not server.answers.requests:
        time.sleep(0.01)
    agent.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert errors


def test_closing_ends_a_call_that_is_still_connecting(company):
    """As the drive's end does while the push stream connects: it would wait for that stream for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        agent = machine(company, f"https://127.0.0.1:{silent.getsockname()[1]}")
        errors: list[Exception] = []

        def call():
            try:
                agent.events(0, timeout=10 * PATIENCE)
            except client.Unreachable as exc:
                errors.append(exc)

        thread = threading.Thread(target=call)
        thread.start()
        accepted, _ = silent.accept()
        with accepted:
            accepted.recv(1)  # of its half of the handshake
            agent.close()
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert errors


def test_closing_ends_what_is_just_being_connected(company, server, monkeypatch):
    agent = machine(company, server.url)
    connect = tls_connection.Connection.connect

    def closed_meanwhile(connection):
        agent.close()
        connect(connection)

    monkeypatch.setattr(tls_connection.Connection, "connect", closed_meanwhile)
    with pytest.raises(client.Unreachable):
        agent.events(0)
    assert not agent._connections._busy


def test_many_threads_share_a_client(company, server):
    server.answers.by_path["/records"] = lambda body: m.RecordReceipt(m.RecordBatch.decode(body).first)
    agent = machine(company, server.url)
    wrong = []

    def call(first):
        for _ in range(10):
            if agent.records(m.RecordBatch(first, b"", b"")).acknowledged != first:
                wrong.append(first)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not agent._connections._busy
    assert len(agent._connections._idle) <= tls_connection.MAX_IDLE
    agent.close()


def test_a_server_of_another_company_is_refused(server):
    other = Company("Other")
    agent = machine(other, server.url)
    with pytest.raises(client.WrongAuthority):
        agent.sync(SYNC)
    assert server.answers.requests == []


def test_a_certificate_of_another_company_is_refused(company, server):
    key = ec.generate_private_key(ec.SECP256R1())
    agent = AgentClient(server.url, company.pem, Company("Other").issue(key.public_key()), key)
    with pytest.raises(client.CertificateRefused):
        agent.sync(SYNC)


def test_an_expired_certificate_is_refused(company, server):
    agent = machine(company, server.url, begin=-100.0, end=-50.0)
    with pytest.raises(client.CertificateRefused):
        agent.sync(SYNC)


def test_a_new_certificate_is_shown_from_the_next_call_on(company, server):
    server.answers.by_path["/sync"] = lambda body: NOTHING
    key = ec.generate_private_key(ec.SECP256R1())
    agent = AgentClient(server.url, company.pem, company.issue(key.public_key(), end=-50.0, begin=-60.0), key)
    with pytest.raises(client.CertificateRefused):
        agent.sync(SYNC)
    agent.use_certificate(company.issue(key.public_key()))
    assert agent.sync(SYNC) == NOTHING
    with pytest.raises(ValueError, match="cannot be used"):
        agent.use_certificate("not a certificate")
    agent.close()


def test_pushes_arrive_with_the_last_number_sent(company, server, monkeypatch):
    monkeypatch.setattr(client, "EVENT_SILENCE", 2 * PATIENCE)
    agent = machine(company, server.url)
    server.answers.events += [m.PushEvent(7, "hello"), m.PushEvent(8, "revoked")]
    with agent.events(5) as stream:
        events = iter(stream)
        assert [next(events).number, next(events).kind] == [7, "revoked"]
        server.answers.events.append(m.PushEvent(9, "bundle"))
        assert next(events).number == 9
        assert server.answers.requests[-1].headers["Last-Event-ID"] == "5"
        threading.Timer(0.1, agent.close).start()

        def end():
            with pytest.raises((client.Unreachable, StopIteration)):
                next(events)

        assert taken(end) < PATIENCE


def test_a_stream_that_is_refused_says_why(company, server):
    server.answers.by_path["/events"] = lambda body: failure(403, "banned")
    with pytest.raises(client.Banned):
        machine(company, server.url).events(0)


def test_a_silent_stream_is_dead(company, server, monkeypatch):
    monkeypatch.setattr(client, "EVENT_SILENCE", 0.2)
    with machine(company, server.url).events(0) as stream, pytest.raises(client.Unreachable):
        next(iter(stream))


REQUEST = m.EnrolRequest("", "desk-1", "root", "csr", b"key")


def joined(company):
    return m.EnrolResponse("a1", "c0", "Example", "certificate", company.pem, "https://x", b"b" * 32, b"l" * 32)


def test_joining_sends_the_token_to_the_pinned_authority(company, admin):
    admin.answers.by_path["/enrol"] = lambda body: joined(company)
    assert enrol(admin.url, token(company.fingerprint), REQUEST) == joined(company)
    (request,) = admin.answers.requests
    assert msgspec.json.decode(request.body)["token"] == token(company.fingerprint).text


def test_the_token_is_not_sent_to_anyone_else(admin):
    with pytest.raises(client.WrongAuthority, match="not sent"):
        enrol(admin.url, token(Company("Other").fingerprint), REQUEST)
    assert admin.answers.requests == []


def test_showing_the_right_authority_is_not_enough(company, tmp_path):
    """Somebody in between can copy the authority's certificate into his chain; his own is not signed by it."""
    other = Company("Other")
    other_pem = other.pem
    other.pem += company.pem
    server = KeyServer(other, tmp_path, mutual=False)
    other.pem = other_pem
    with pytest.raises(client.WrongAuthority):
        enrol(server.url, token(company.fingerprint), REQUEST)
    assert server.answers.requests == []
    server.stop()


def test_an_answer_that_names_another_authority_is_refused(company, admin):
    admin.answers.by_path["/enrol"] = lambda body: joined(Company("Other"))
    with pytest.raises(client.WrongAuthority):
        enrol(admin.url, token(company.fingerprint), REQUEST)


@pytest.mark.parametrize("word", ["token-used", "token-expired"])
def test_a_used_or_expired_token_is_named(company, admin, word):
    admin.answers.by_path["/enrol"] = lambda body: failure(403, word)
    with pytest.raises(client.TokenRefused):
        enrol(admin.url, token(company.fingerprint), REQUEST)


@pytest.mark.parametrize("text", ["", "gfs1", "gfs1.a.b.c", "gfs2.0123456789abcdef." + "5e" * 32 + "." + "00" * 32])
def test_what_is_no_token_is_refused(text):
    with pytest.raises(ValueError, match="not a join token"):
        JoinToken.parse(text)


def test_no_repr_shows_the_token_s_secret():
    assert "5e5e" not in repr(token("00" * 32))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://127.0.0.1:1/path", "127.0.0.1:1", "https://u@h:1"])
def test_a_url_that_is_not_https_host_port_is_refused(company, url):
    with pytest.raises(ValueError, match="https://host:port"):
        machine(company, url)


def test_nobody_listening_is_unreachable(company):
    with pytest.raises(client.Unreachable):
        machine(company, "https://127.0.0.1:1").sync(SYNC)
