import itertools
import os
import threading
import time

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from fsdriver import keyclient, record_shipper
from fsdriver.audit_spool import AuditSpool
from fsdriver.errors import GrantRefused, LeaseExpired, LeaseMissing, ServerUnreachable
from fsdriver.keyclient import KeyClient
from fsdriver.machine import Identity, MachineConfig, MachineHome
from keyserver import messages as m
from keyserver.sealing import Binding, SealingKey, SecretKey, seal
from keyserver.secret_store import SecretSettings
from policy import Bundle, Person, ProgramFacts, load, preview_label_ids
from tests.fsdriver.test_witness import PUBLIC as LOG_PUBLIC
from tests.fsdriver.test_witness import note as log_note
from tests.loopback import COMPANY, MACHINE, Company, KeyServer, failure, lend
from tests.patience import PATIENCE, eventually, taken, within

LABEL = bytes.fromhex("aa" * 16)
POLICY = load(
    {
        "company.yaml": """
            company: Example
            zone: UTC
            default: internal
            labels: [{name: internal, level: internal}]
        """,
        "sales.yaml": """
            department: sales
            labels: [{name: clients, level: internal, folders: [/sales/clients/**]}]
        """,
    }
)


def document(number, company=COMPANY):
    ids = preview_label_ids(POLICY)
    return Bundle.build(
        POLICY, number=number, company=company, label_ids=ids, people=[Person("li", True, frozenset(), frozenset())]
    ).to_document()


class Brain:
    """The key server's decisions: what it says to a sync now."""

    def __init__(self, company, sealing_key):
        self.company = company
        self.sealing_key = sealing_key
        self.number = 1
        self.logins = {"1000": "li"}
        self.labels = {LABEL: "1e" * 16}
        self.term = 900.0
        self.offline = 0.0
        self.events = 1
        self.grants: dict[bytes, tuple[m.LeaseGrant, dict[int, SecretKey]]] = {}
        self.records: list[bytes] = []
        self.banned = False
        self.syncs = 0
        self.refusal: tuple[int, m.Failure] | None = None
        self.receipts: list[m.Receipt] = []

    def sync(self, body):
        self.syncs += 1
        if self.refusal:
            return self.refusal
        request = msgspec.json.decode(body, type=m.SyncRequest)
        now = time.time()
        for label, lease in self.labels.items():
            self.grants.setdefault(label, lend(self.sealing_key.public, label.hex(), expires=0, lease=lease))
        leases = tuple(
            m.LeaseGrant(g.lease, g.label, g.key_id, g.keys, now + self.term, self.offline)
            for g in (self.grants[label][0] for label in self.labels)
        )
        bundle = None if request.bundle == self.number else self.company.sign_bundle(document(self.number), self.number)
        return m.SyncResponse(now, bundle, self.logins, leases, self.events)

    def take(self, body):
        if self.refusal and not self.banned:
            return self.refusal
        batch = m.RecordBatch.decode(body)
        if batch.first > len(self.records) + 1:
            return failure(409, "conflict")
        self.records[batch.first - 1 :] = batch.records
        return m.RecordReceipt(len(self.records), self.banned)

    def receipt(self, body):
        self.receipts.append(msgspec.json.decode(body, type=m.Receipt))


class Filesystem:
    """A listener that notes what it is told."""

    def __init__(self):
        self.told: list[tuple[str, object]] = []
        self.client: KeyClient
        self.drops = True

    def on_bundle(self, bundle):
        self.told.append(("bundle", bundle.number))

    def on_logins(self, logins):
        self.told.append(("logins", dict(logins)))

    def on_revoked(self, labels):
        if self.drops:
            self.client.dropped(labels, 2)
        self.told.append(("revoked", labels))


@pytest.fixture(scope="module")
def company():
    return Company()


class World:
    def __init__(self, company, tmp_path):
        self.company, self.directory = company, tmp_path
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.sealing_key = SealingKey.generate()
        self.brain = Brain(company, self.sealing_key)
        self.server = KeyServer(company, tmp_path)
        self.route()
        self.home = MachineHome.create(tmp_path / "home")
        self.home.write_config(
            MachineConfig(
                company=COMPANY,
                company_name="Example",
                machine=MACHINE,
                name="desk-1",
                agent_url=self.server.url,
                admin_url="https://127.0.0.1:2",
                store="/srv/store",
                drive="/srv/drive",
                mode="root",
                secrets=SecretSettings("sealed-file"),
                bundle_key=company.bundle_key.public_key().public_bytes_raw(),
                log_key=LOG_PUBLIC,
            )
        )
        self.certificate = company.issue(self.key.public_key())
        self.open()

    def route(self):
        by_path = self.server.answers.by_path
        by_path["/sync"] = self.brain.sync
        by_path["/records"] = self.brain.take
        by_path["/receipts"] = self.brain.receipt

    def open(self):
        self.spool = AuditSpool(self.home.spool, MACHINE, time.time)
        identity = Identity(COMPANY, MACHINE, self.key, self.sealing_key, self.certificate, self.company.pem)
        self.client = KeyClient(self.home, identity, self.spool)
        self.filesystem = Filesystem()
        self.filesystem.client = self.client

    def start(self):
        return self.client.start(self.filesystem, wait=PATIENCE)

    def sync(self):
        """One more good sync, of which the leases at least have come into force."""
        before = self.client.status().synced
        self.client.sync_soon()
        eventually(lambda: self.client.status().synced > before)

    def lend_again(self, lease):
        """After a revocation: the label has a new lease, and the filesystem was told nothing."""
        self.brain.grants.clear()
        self.brain.labels = {LABEL: lease}
        self.client.sync_soon()
        eventually(self.client.leases.status)
        self.filesystem.told.clear()

    def close(self):
        self.client.stop(flush=0.2)
        self.spool.close()

    def push(self, kind):
        self.brain.events += 1
        self.server.answers.events.append(m.PushEvent(self.brain.events, kind))

    def stop_server(self):
        self.server.stop()

    def restart_server(self):
        self.server = KeyServer(self.company, self.directory, port=self.server.port, answers=self.server.answers)


@pytest.fixture
def world(company, tmp_path, monkeypatch):
    monkeypatch.setattr(keyclient, "RETRY_MAX", 0.5)
    monkeypatch.setattr(keyclient, "SYNC_TIMEOUT", PATIENCE)
    world = World(company, tmp_path)
    yield world
    world.close()
    world.stop_server()
    assert not [t for t in threading.enumerate() if t.name.startswith(("key-", "record-"))]


def test_the_first_sync_brings_policy_logins_and_keys(world):
    assert world.start()
    assert world.client.bundle.number == 1
    assert world.client.logins == {1000: "li"}
    assert world.client.key_for(LABEL).secret == world.brain.grants[LABEL][1][1]
    with pytest.raises(LeaseMissing):
        world.client.key_for(bytes(16))
    assert world.filesystem.told == [("bundle", 1), ("logins", {1000: "li"})]
    eventually(lambda: world.client.status().state == "connected")
    status = msgspec.json.decode(msgspec.json.encode(world.client.status()))
    assert status["policy"] == 1
    assert status["leases"][0]["label"] == LABEL.hex()
    assert status["problem"] == ""


def test_a_push_takes_a_key_away_within_a_second(world):
    world.start()
    eventually(lambda: world.server.answers.streams)
    lease = "1e" * 16

    def push():
        nonlocal lease
        if not world.client.leases.status():
            lease = os.urandom(16).hex()
            world.lend_again(lease)
        secret = world.client.key_for(LABEL).secret
        world.brain.labels = {}
        begin = time.monotonic()
        world.push("revoked")
        eventually(lambda: ("revoked", {LABEL}) in world.filesystem.told)
        seconds = time.monotonic() - begin
        assert secret.wiped
        with pytest.raises(LeaseMissing):
            world.client.key_for(LABEL)
        return seconds

    within(1, push)
    eventually(lambda: [receipt for receipt in world.brain.receipts if receipt.leases == (lease,)])
    receipt = world.brain.receipts[-1]
    assert receipt.leases == (lease,)
    assert receipt.handles_refused == 2
    text = b"grantfs-receipt-v1\n" + lease.encode() + b"\n" + repr(receipt.at).encode()
    world.key.public_key().verify(receipt.signature, text, ec.ECDSA(SHA256()))


def test_a_push_during_a_sync_is_not_lost(world):
    world.start()
    eventually(lambda: world.server.answers.streams)
    decided, answer = threading.Event(), threading.Event()

    def stale(body):
        before = world.brain.sync(body)
        decided.set()
        answer.wait(PATIENCE)
        return before

    world.server.answers.by_path["/sync"] = stale
    world.client.sync_soon()
    assert decided.wait(PATIENCE)
    world.server.answers.by_path["/sync"] = world.brain.sync
    world.brain.labels = {}
    world.push("revoked")
    eventually(world.client._due.is_set)
    answer.set()
    eventually(lambda: ("revoked", {LABEL}) in world.filesystem.told)


@pytest.mark.parametrize("stuck", [0.0, 2.0])
def test_keys_are_overwritten_even_if_the_filesystem_does_not_let_go(world, stuck):
    world.filesystem.drops = False
    world.filesystem.on_revoked = lambda labels: time.sleep(stuck)
    world.start()
    attempts = 0

    def lose():
        nonlocal attempts
        attempts += 1
        if not world.client.leases.status():
            world.lend_again(os.urandom(16).hex())
        secret = world.client.key_for(LABEL).secret
        world.brain.labels = {}
        begin = time.monotonic()
        world.client.sync_soon()
        eventually(lambda: secret.wiped)
        return time.monotonic() - begin

    within(1.2, lose)
    eventually(lambda: world.spool.last >= attempts)
    assert world.client.flush(PATIENCE)
    records = [msgspec.json.decode(record) for record in world.brain.records]
    assert [record["event"] for record in records] == ["lost"] * attempts
    assert all(LABEL.hex() in record["detail"] for record in records)


def test_a_new_policy_and_a_new_mapping_are_told(world):
    world.start()
    eventually(lambda: world.server.answers.streams)
    world.brain.number, world.brain.logins = 4, {"1000": "li", "0": "service:backup"}
    world.push("bundle")
    eventually(lambda: ("logins", {1000: "li", 0: "service:backup"}) in world.filesystem.told)
    assert ("bundle", 4) in world.filesystem.told
    assert world.client.bundle.number == 4


@pytest.mark.parametrize("wrong", ["signature", "number", "company", "older"])
def test_a_bundle_that_is_not_believed_changes_nothing(world, wrong):
    world.brain.number = 3
    world.start()
    good = world.brain.sync

    def bad(body):
        answer = good(body)
        bundle = world.company.sign_bundle(document(2 if wrong == "older" else 9), 2 if wrong == "older" else 9)
        if wrong == "signature":
            bundle = m.SignedBundle(9, bundle.document, bytes(64))
        elif wrong == "number":
            bundle = m.SignedBundle(10, bundle.document, bundle.signature)
        elif wrong == "company":
            bundle = world.company.sign_bundle(document(9, "c1" * 16), 9)
        return m.SyncResponse(answer.now, bundle, {"0": "dana"}, (), answer.events)

    world.server.answers.by_path["/sync"] = bad
    world.client.sync_soon()
    eventually(lambda: world.client.status().problem)
    assert world.client.bundle.number == 3
    assert world.client.logins == {1000: "li"}
    world.client.key_for(LABEL)
    world.server.answers.by_path["/sync"] = good
    eventually(lambda: not world.client.status().problem)


def has_key(world, since, seconds):
    """Whether the key is there; until `seconds` after `since` it must be. (A machine that stands still asks late.)"""
    try:
        world.client.key_for(LABEL)
    except (LeaseMissing, LeaseExpired):
        assert time.monotonic() - since > seconds
        return False
    return True


def test_leases_are_renewed_at_half_term(world):
    term = world.brain.term = 2.4
    sync, asked = world.brain.sync, []

    def noted(body):
        asked.append(time.monotonic())
        return sync(body)

    world.server.answers.by_path["/sync"] = noted
    world.start()
    found = time.monotonic()

    def in_time():
        return sum(0.4 * term < later - sooner < 0.7 * term for sooner, later in itertools.pairwise(asked))

    while in_time() < 3:
        assert len(asked) < 15, asked
        if has_key(world, found, 0.4 * term):
            found = time.monotonic()
        time.sleep(0.02)


def test_without_the_server_a_lease_ends_at_its_term(world):
    world.brain.term = 0.8
    begin = time.monotonic()
    world.start()
    world.stop_server()
    has_key(world, begin, 0.7)
    eventually(lambda: ("revoked", {LABEL}) in world.filesystem.told)
    with pytest.raises((LeaseMissing, LeaseExpired)):
        world.client.key_for(LABEL)
    eventually(lambda: world.client.status().problem)
    assert world.client.status().state == "offline"
    world.restart_server()
    world.brain.term = 900.0
    eventually(lambda: world.client.leases.status())
    world.client.key_for(LABEL)


def test_without_the_server_the_offline_term_counts(world):
    world.brain.term, world.brain.offline = 0.3, 600.0
    world.start()
    world.stop_server()
    time.sleep(0.8)
    world.client.key_for(LABEL)
    world.restart_server()
    world.brain.labels = {}
    eventually(lambda: not world.client.leases.status())


def test_a_restart_without_the_server_has_policy_but_no_keys(world):
    world.start()
    world.close()
    world.stop_server()
    world.open()
    assert not world.start()
    assert world.client.bundle.number == 1
    assert world.client.logins == {1000: "li"}
    with pytest.raises(LeaseMissing):
        world.client.key_for(LABEL)
    world.restart_server()
    eventually(lambda: world.client.leases.status())
    assert ("bundle", 1) not in world.filesystem.told


@pytest.mark.parametrize("learned", ["sync", "push", "grant", "records", "records taken"])
def test_a_ban_forgets_everything_at_once(world, learned):
    world.start()
    eventually(lambda: world.client.status().state == "connected")
    secret = world.client.key_for(LABEL).secret
    banned = failure(403, "banned")
    if learned != "push":
        world.brain.refusal = banned
    if learned == "sync":
        world.client.sync_soon()
    elif learned == "push":
        world.push("banned")
    elif learned == "grant":
        world.server.answers.by_path["/grants"] = lambda body: banned
        with pytest.raises(GrantRefused):
            ask(world)
    elif learned == "records":
        world.server.answers.by_path["/records"] = lambda body: banned
        world.spool.append("open")
    else:
        world.brain.banned = True
        world.spool.append("open")
    eventually(lambda: ("logins", {}) in world.filesystem.told)  # the last that a ban does
    assert secret.wiped
    assert world.client.logins == {}
    assert world.client.status().state == "banned"
    world.brain.refusal = banned
    world.close()
    world.open()
    assert world.client.logins == {}
    world.start()


def test_a_banned_machine_hands_in_its_last_records_and_receipts(world):
    world.start()
    (lease,) = (grant.lease for grant, *_ in world.brain.grants.values())
    world.spool.append("open", detail="before")
    assert world.client.flush(5)
    world.brain.banned = True
    world.brain.refusal = failure(403, "banned")
    world.push("banned")
    eventually(lambda: world.client.status().state == "banned")
    world.spool.append("close", detail="after")
    assert world.client.flush(5)
    assert [msgspec.json.decode(record)["detail"] for record in world.brain.records] == ["before", "after"]
    eventually(lambda: [receipt.leases for receipt in world.brain.receipts] == [(lease,)])
    world.spool.append("unmount", detail="last")
    world.client.stop()
    assert msgspec.json.decode(world.brain.records[-1])["detail"] == "last"


def ask(world, **options):
    return world.client.grant(
        person="li",
        program=ProgramFacts("/usr/bin/cat", packages=frozenset({"coreutils"}), clean=True),
        action="read",
        file_id=bytes(16),
        label=LABEL,
        path="/sales/a",
        **options,
    )


def test_a_grant_gives_the_key_of_one_file(world):
    world.start()
    key = SecretKey.generate()

    def granted(body):
        request = msgspec.json.decode(body, type=m.GrantRequest)
        assert request.program == m.ProgramClaim("/usr/bin/cat", packages=("coreutils",), clean=True)
        assert (request.bundle, request.person, request.key_id, request.version) == (1, "li", "d0" * 16, 2)
        binding = Binding("grant", COMPANY, MACHINE, request.file.file_id, "d0" * 16, 2)
        return m.GrantResponse(seal(key, world.sealing_key.public, binding), "d0" * 16, 2, b"wrapped", "sales/rule")

    world.server.answers.by_path["/grants"] = granted
    grant = ask(world, key_id=bytes.fromhex("d0" * 16), version=2, wrapped=b"wrapped")
    assert grant.file_key == key
    assert (grant.version, grant.wrapped, grant.rule) == (2, b"wrapped", "sales/rule")
    assert "d0d0" not in repr(grant.file_key).replace("d0" * 16, "")


def test_a_grant_that_cannot_be_had_says_which_way(world):
    world.start()
    world.server.answers.by_path["/grants"] = lambda body: failure(403, "denied", "rule x does not allow it")
    with pytest.raises(GrantRefused, match="rule x"):
        ask(world)
    world.server.answers.by_path["/grants"] = lambda body: m.GrantResponse(b"junk", "d0" * 16, 2, b"", "r")
    with pytest.raises(GrantRefused):
        ask(world)
    world.server.answers.delay = PATIENCE

    def wait():
        with pytest.raises(ServerUnreachable):
            ask(world, timeout=0.2)

    within(1, lambda: taken(wait))
    world.server.answers.delay = 0


def test_records_arrive_once_and_in_order_across_an_absence(world):
    world.start()
    world.spool.append("open", detail="0")
    assert world.client.flush(PATIENCE)
    world.stop_server()
    for number in range(1, 300):
        world.spool.append("open", detail=str(number))
    time.sleep(0.3)
    world.restart_server()
    eventually(lambda: len(world.brain.records) == 300)
    assert [msgspec.json.decode(r)["seq"] for r in world.brain.records] == list(range(1, 301))
    eventually(lambda: world.client.status().spool_waiting == 0)


def test_a_backlog_is_shipped_without_pauses(world, monkeypatch):
    """Batches are bounded by bytes too, so a batch that is not the largest is no sign of an empty spool."""
    for pause in ("BUSY", "QUIET"):
        monkeypatch.setattr(record_shipper, pause, 10 * PATIENCE)
    for _ in range(6000):
        world.spool.append("open", detail="x" * 400)
    world.start()
    assert world.client.flush(PATIENCE)
    assert len(world.brain.records) == 6000


def test_an_answer_that_was_lost_repeats_no_record(world):
    world.start()
    take = world.brain.take
    lose = [True, True]

    def lossy(body):
        answer = take(body)
        return failure(500, "lost") if lose and lose.pop() else answer

    world.server.answers.by_path["/records"] = lossy
    for number in range(5):
        world.spool.append("open", detail=str(number))
    assert world.client.flush(PATIENCE)
    assert [msgspec.json.decode(r)["detail"] for r in world.brain.records] == list("01234")


def test_the_certificate_is_renewed_at_half_of_its_life(world):
    world.close()
    world.certificate = world.company.issue(world.key.public_key(), begin=-100.0, end=90.0)
    world.open()

    def renewed(body):
        csr = x509.load_pem_x509_csr(msgspec.json.decode(body, type=m.RenewRequest).csr.encode())
        return m.RenewResponse(world.company.issue(csr.public_key()))

    world.server.answers.by_path["/certificate"] = renewed
    world.start()
    eventually(lambda: world.client.status().certificate_expires > time.time() + 1000)
    kept = x509.load_pem_x509_certificate((world.home.path / "machine.pem").read_bytes())
    assert kept.public_key() == world.key.public_key()
    before = world.brain.syncs
    world.client.sync_soon()
    eventually(lambda: world.brain.syncs > before)


def test_a_refused_sync_ends_offline_terms_but_not_leases(world):
    world.brain.offline = 3600
    world.start()
    world.brain.refusal = failure(403, "denied")
    world.client.sync_soon()
    eventually(lambda: [lease.usable_until == lease.expires for lease in world.client.leases.status()] == [True])
    world.client.key_for(LABEL)
    assert world.client.status().problem


def test_a_log_that_became_shorter_is_recorded_and_shown(world):
    sync = world.brain.sync
    notes = [log_note(9), log_note(5), log_note(5)]

    def with_note(body):
        return msgspec.structs.replace(sync(body), checkpoint=notes.pop(0) if notes else "")

    world.server.answers.by_path["/sync"] = with_note
    world.start()
    assert world.client.status().log_problem == ""
    world.client.sync_soon()
    eventually(lambda: len(notes) == 1)
    world.client.sync_soon()
    eventually(lambda: not notes)
    eventually(lambda: "had 9" in world.client.status().log_problem)
    eventually(lambda: world.spool.last)
    world.sync()  # so the one before has had all its effects
    world.client.key_for(LABEL)
    assert world.client.flush(PATIENCE)
    assert [msgspec.json.decode(r)["event"] for r in world.brain.records] == ["rollback"]
    assert world.home.last_sync().checkpoint == log_note(9)


def test_stop_is_prompt_while_the_server_hangs(world):
    world.start()
    world.server.answers.delay = 10 * PATIENCE
    before = len(world.server.answers.requests)
    world.client.sync_soon()
    eventually(lambda: "/v1/sync" in [request.path for request in world.server.answers.requests[before:]])
    assert taken(lambda: world.client.stop(flush=0)) < PATIENCE / 2
    world.server.answers.delay = 0
    with pytest.raises(LeaseMissing):
        world.client.key_for(LABEL)


def test_a_bug_in_the_filesystem_does_not_stop_renewals(world):
    def bug(*_):
        raise RuntimeError("injected")

    world.filesystem.on_revoked = bug
    world.start()
    world.brain.labels = {}
    world.sync()
    world.sync()
    assert world.client.status().problem == ""


def test_nothing_listening_is_said_within_the_wait(world):
    world.stop_server()
    begin = time.monotonic()
    assert not world.start()
    assert time.monotonic() - begin < PATIENCE / 2
    assert world.client.bundle is None
    assert "does not answer" in world.client.status().problem
