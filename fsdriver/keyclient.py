"""The drive's link to the key server: policy, logins and leases kept fresh in the background, and grants on request.

Four threads: one syncs (at half term, at every push, with jittered retries while the server is away), one listens to
pushes, one ends terms, one ships records (`record_shipper`). Nothing else waits for the network, except who calls
`grant` or `refresh`. What a sync brings is verified before any of it counts, takes effect in `Leases` at once, and is
then told to the `Listener`.
"""

import contextlib
import logging
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256

from fsdriver.audit_spool import AuditSpool
from fsdriver.clock import ServerClock, boot_time
from fsdriver.errors import SpoolFailed
from fsdriver.file_grants import FileGrant, FileGrants, claim
from fsdriver.leases import Change, LabelKey, Leases
from fsdriver.machine import Identity, LastSync, MachineConfig, MachineHome
from fsdriver.machine_certificate import MachineCertificate
from fsdriver.record_shipper import RecordShipper
from fsdriver.signed_bundle import BundleRefused, verified_bundle
from fsdriver.witness import Checkpoint, LogContradicted, follow
from keyserver import messages as m
from keyserver.client import AgentClient, Banned, ClientError, Denied, Unreachable
from keyserver.sealing import SealingError
from policy import Bundle, ProgramFacts

__all__ = ["FileGrant", "KeyClient", "KeyStatus", "LeaseInfo", "Listener", "starting_clock"]

log = logging.getLogger(__name__)

SYNC_TIMEOUT = 5.0
GRANT_TIMEOUT = 4.5
IDLE_SYNC = 300.0
"""Seconds between syncs of a machine that holds no lease."""
LONGEST_WAIT = 5.0
"""Waiting does not count time asleep, so no wait is long."""
RETRY_MIN, RETRY_MAX = 0.5, 30.0
DRAIN = 0.9
"""Seconds the filesystem has to let go of revoked keys before they are overwritten under it (promise P5: a second)."""
BANNED_RETRY = 60.0
MAX_RECEIPTS = 1000
REFRESH_TIMEOUT = 2.0
REFRESH_GAP = 2.0
"""Seconds for which nobody asks again for a key that the last sync did not bring."""


class Listener(Protocol):
    """What the filesystem does when something changed. One call at a time, on a thread of ours; must not wait long."""

    def on_bundle(self, bundle: Bundle) -> None:
        """Decide every open handle again."""

    def on_logins(self, logins: Mapping[int, str]) -> None:
        """uid to person changed: decide every open handle again."""

    def on_revoked(self, labels: frozenset[bytes]) -> None:
        """Keys of these labels are refused from now on: drop pages and file keys, then call `KeyClient.dropped`."""


class LeaseInfo(msgspec.Struct, frozen=True):
    """One lease in `KeyStatus`."""

    label: str
    expires: float
    usable_until: float


class KeyStatus(msgspec.Struct, frozen=True):
    """A snapshot for `fsdriver status`; JSON-able with msgspec. Times are the server's, seconds since the epoch."""

    server: str
    state: str
    """"connected", "offline" or "banned"."""
    problem: str
    """Why the last sync failed; "" while all is well."""
    synced: float
    policy: int
    leases: tuple[LeaseInfo, ...]
    certificate_expires: float
    clock_rolled_back: bool
    spool_waiting: int
    spool_problem: str
    log_problem: str
    """The server's log contradicts what this machine saw of it earlier; "" while it does not."""


class KeyClient:
    """The link of one mounted drive. `start` before use, `stop` at the end; the spool is the caller's to close."""

    def __init__(
        self, home: MachineHome, identity: Identity, spool: AuditSpool, clock: ServerClock | None = None
    ) -> None:
        """Loads the last good bundle and logins from the home, so that decisions need no server; keys do.

        `clock`: the one the spool was given, from `starting_clock(home)`. Raises ValueError for a certificate or URL
        that cannot be used.
        """
        self._home = home
        self._identity = identity
        self._config: MachineConfig = home.config()
        self._certificate = MachineCertificate(home, identity, self._config.name)
        self._client = AgentClient(self._config.agent_url, identity.authority, identity.certificate, identity.key)
        self.clock = clock or starting_clock(home)
        """Server time."""
        self.leases = Leases(identity.company, identity.machine, identity.sealing_key)
        self._spool = spool
        self._grants = FileGrants(self._client, identity, self._note_ban)
        self._shipper = RecordShipper(spool, self._client, self._note_ban)
        self._bundle: Bundle | None = None
        self._signed: m.SignedBundle | None = None
        self._logins: Mapping[int, str] = {}
        self._checkpoint: Checkpoint | None = None
        self._log_problem = ""
        self._load_last_sync()

        self._listener: Listener | None = None
        self._events = 0
        self._problem = ""
        self._connected = False
        self._ban_noticed = False
        self._banned = False
        self._next_sync = 0.0
        self._retry = RETRY_MIN
        self._synced = threading.Condition()
        self._sync_ended = 0.0
        self._lock = threading.Lock()
        self._draining: dict[bytes, threading.Timer] = {}
        self._receipts: list[m.Receipt] = []
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._terms_changed = threading.Event()
        self._telling = threading.Lock()
        self._due = threading.Event()
        self._attempted = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name="key-sync", daemon=True),
            threading.Thread(target=self._listen, name="key-events", daemon=True),
            threading.Thread(target=self._end_terms, name="key-terms", daemon=True),
        ]

    # ---- what the filesystem uses --------------------------------------------------------------------------------

    @property
    def bundle(self) -> Bundle | None:
        """The newest believed policy; None on a machine that never synced."""
        return self._bundle

    @property
    def logins(self) -> Mapping[int, str]:
        """uid to person. Replaced, never changed in place."""
        return self._logins

    def key_for(self, label: bytes, version: int | None = None) -> LabelKey:
        """`Leases.key_for` now. Raises LeaseMissing or LeaseExpired."""
        return self.leases.key_for(label, version, self.clock.now())

    def grant(
        self,
        *,
        person: str,
        program: ProgramFacts | None,
        action: str,
        file_id: bytes,
        label: bytes,
        path: str,
        key_id: bytes = b"",
        version: int = 0,
        wrapped: bytes = b"",
        timeout: float = GRANT_TIMEOUT,
    ) -> FileGrant:
        """Asks for one file's key, and waits for it up to `timeout` seconds. `wrapped` empty: a new file's.

        Raises GrantRefused or ServerUnreachable.
        """
        file = m.FileFacts(file_id.hex(), label.hex(), path)
        number = self._bundle.number if self._bundle else 0
        request = m.GrantRequest(number, person, claim(program), action, file, key_id.hex(), version, wrapped)
        return self._grants.ask(request, timeout)

    def refresh(self, timeout: float = REFRESH_TIMEOUT) -> bool:
        """Syncs now and waits for it up to `timeout` seconds, for somebody who misses a key that policy gives.

        False where that was done just now, or the server does not answer.
        """
        with self._synced:
            if self._problem or boot_time() < self._sync_ended + REFRESH_GAP:
                return False
            round_ = self._sync_ended
            self.sync_soon()
            return self._synced.wait_for(lambda: self._sync_ended != round_, timeout) and not self._problem

    def dropped(self, labels: Iterable[bytes], handles_refused: int = 0) -> None:
        """The filesystem let go of these labels' keys and pages: they are overwritten, and the receipt is sent."""
        self._forget(frozenset(labels), handles_refused)

    def sync_soon(self) -> None:
        """Syncs now, in the background; once more if a sync is under way, whose answer may be older than the reason."""
        self._due.set()
        self._wake.set()

    # ---- life ----------------------------------------------------------------------------------------------------

    def start(self, listener: Listener, *, wait: float = SYNC_TIMEOUT + 1) -> bool:
        """Starts the threads and waits for the first sync; whether it was good. `bundle` may be there even if not."""
        self._listener = listener
        self._shipper.start()
        for thread in self._threads:
            thread.start()
        self._attempted.wait(wait)
        return self._attempted.is_set() and not self._problem

    def stop(self, *, flush: float = 2.0) -> None:
        """Ships what it can within `flush` seconds, ends the threads and forgets all keys."""
        if flush > 0 and (self._banned or not self._problem):
            self._shipper.flush(flush)
        self._stopping.set()
        self._wake.set()
        self._terms_changed.set()
        self._client.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self._shipper.stop()
        with self._lock:
            self._draining = {}
        self.leases.revoke_all()
        self.leases.forget()

    def flush(self, timeout: float) -> bool:
        """Whether the server has, within `timeout` seconds, every record there is now."""
        return self._shipper.flush(timeout)

    def status(self) -> KeyStatus:
        bundle = self._bundle
        names = {label.id: label.qualified for label in bundle.labels} if bundle else {}
        return KeyStatus(
            server=self._config.agent_url,
            state="banned" if self._banned else "connected" if self._connected and not self._problem else "offline",
            problem=self._problem,
            synced=self.leases.synced,
            policy=bundle.number if bundle else 0,
            leases=tuple(
                LeaseInfo(names.get(lease.label, lease.label.hex()), lease.expires, lease.usable_until)
                for lease in self.leases.status()
            ),
            certificate_expires=self._certificate.expires,
            clock_rolled_back=self.clock.rolled_back or self.leases.rolled_back,
            spool_waiting=self._spool.last - self._spool.acknowledged,
            spool_problem=self._shipper.problem,
            log_problem=self._log_problem,
        )

    # ---- the sync thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
            except Exception as exc:  # a bug here must not end renewals for good
                log.exception("bug while talking to the key server")
                self._failed(exc)
            self._attempted.set()
            self._wake.wait(self._pause())
            self._wake.clear()

    def _step(self) -> None:
        if self._ban_noticed:
            self._ban_noticed = False
            self._ban()
        elif self._due.is_set() or boot_time() >= self._next_sync:
            self._due.clear()
            self._sync()
        if not self._problem:
            self._certificate.renew_if_due(self._client, self.clock.now())
        if self._banned or not self._problem:
            self._send_receipts()

    def _pause(self) -> float:
        """Seconds until there is something to do."""
        return max(0.01, min(LONGEST_WAIT, self._next_sync - boot_time()))

    def _sync(self) -> None:
        asked = boot_time()
        number = self._bundle.number if self._bundle else 0
        request = m.SyncRequest(bundle=number, events=self._events, mode=self._config.mode)
        try:
            self._install(self._client.sync(request, timeout=SYNC_TIMEOUT), asked)
        except Banned:
            self._ban()
        except Denied as exc:
            self._failed(exc)
            self._settle(self.leases.refused(self.clock.now()))
            self._terms_changed.set()
        except (ClientError, BundleRefused, SealingError, ValueError) as exc:
            self._failed(exc)
        finally:
            with self._synced:
                self._sync_ended = boot_time()
                self._synced.notify_all()

    def _failed(self, exc: Exception) -> None:
        if str(exc) != self._problem:
            log.warning("no sync with the key server: %s", exc)
        self._problem = str(exc) or type(exc).__name__
        self._next_sync = boot_time() + self._retry * random.uniform(0.5, 1.0)
        self._retry = min(self._retry * 2, RETRY_MAX)

    def _install(self, response: m.SyncResponse, asked: float) -> None:
        bundle, signed = self._bundle, self._signed
        if response.bundle is not None:
            signed = response.bundle
            held = bundle.number if bundle else 0
            bundle = verified_bundle(signed, key=self._config.bundle_key, company=self._config.company, held=held)
        if bundle is None or signed is None:
            raise BundleRefused("the server has no policy yet")
        logins = {int(uid): person for uid, person in response.logins.items()}
        self.clock.set(response.now, asked)
        change = self.leases.install(response, self.clock.now())
        old_bundle, old_logins = self._bundle, self._logins
        self._bundle, self._signed, self._logins = bundle, signed, logins
        self._events = response.events
        self._watch_log(response.checkpoint)
        if self._problem:
            log.info("the key server answers again")
        self._problem, self._retry, self._banned = "", RETRY_MIN, False
        renewal = self.leases.renewal()
        terms = IDLE_SYNC if renewal is None else renewal - self.clock.now()
        # Machines that were enrolled together need not come back together.
        self._next_sync = boot_time() + max(0.5, terms * random.uniform(0.9, 1.0))
        self._terms_changed.set()
        self._settle(change)
        if old_bundle is None or bundle.number != old_bundle.number:
            self._tell(lambda listener: listener.on_bundle(bundle))
        if logins != old_logins:
            self._tell(lambda listener: listener.on_logins(logins))
        self._keep_last_sync(response.now)

    def _watch_log(self, note: str) -> None:
        """Keys and policy go on, but the contradiction is recorded and shown."""
        if not note:
            return
        try:
            offered = Checkpoint.parse(note, company=self._config.company, key=self._config.log_key)
            self._checkpoint = follow(self._checkpoint, offered)
            self._log_problem = ""
        except LogContradicted as exc:
            if str(exc) != self._log_problem:
                self._log_problem = str(exc)
                self._record("rollback", f"key server's log: {exc}")

    def _record(self, event: str, detail: str) -> None:
        log.error(detail)
        try:
            self._spool.append(event, detail=detail)
        except SpoolFailed as exc:
            log.error("and there is no record of it: %s", exc)

    def _settle(self, change: Change) -> None:
        """Tells the filesystem about keys that ended."""
        if not change.ended:
            return
        # A thread of its own: keys go in time even if the filesystem is stuck in the call below.
        limit = threading.Timer(DRAIN, lambda: self._lose(change.ended, limit))
        limit.daemon = True
        with self._lock:
            self._draining |= dict.fromkeys(change.ended, limit)
        limit.start()
        self._tell(lambda listener: listener.on_revoked(change.ended))

    def _tell(self, what: Callable[[Listener], None]) -> None:
        assert self._listener is not None
        try:
            with self._telling:
                what(self._listener)
        except Exception:  # a bug over there must not keep the rest of a revocation from happening
            log.exception("bug while the filesystem took over a change")

    def _forget(self, labels: frozenset[bytes], handles_refused: int) -> None:
        with self._lock:
            for label in labels:
                self._draining.pop(label, None)
            leases = self.leases.forget(labels)
            if leases:
                self._receipts = [*self._receipts, self._receipt(leases, handles_refused)][-MAX_RECEIPTS:]
        self._wake.set()

    def _lose(self, labels: frozenset[bytes], limit: threading.Timer) -> None:
        """The filesystem did not let go in time: what it had not written by now is lost, and that is recorded."""
        with self._lock:
            overdue = frozenset(label for label in labels if self._draining.get(label) is limit)
        if overdue:
            names = ", ".join(sorted(label.hex() for label in overdue))
            self._forget(overdue, 0)
            self._record("lost", f"keys overwritten before all was written: {names}")

    def _receipt(self, leases: tuple[str, ...], handles_refused: int) -> m.Receipt:
        at = self.clock.now()
        text = b"grantfs-receipt-v1\n" + "\n".join(leases).encode() + b"\n" + repr(at).encode()
        return m.Receipt(leases, at, self._identity.key.sign(text, ECDSA(SHA256())), handles_refused)

    def _send_receipts(self) -> None:
        while self._receipts:
            receipt = self._receipts[0]
            try:
                self._client.receipt(receipt)
            except Unreachable:
                return  # kept for the next turn
            except ClientError as exc:
                log.warning("the server did not take a receipt: %s", exc)
            with self._lock:
                self._receipts = [other for other in self._receipts if other is not receipt]

    # ---- the thread of terms -------------------------------------------------------------------------------------

    def _end_terms(self) -> None:
        """Ends what is past its term, to the moment: the sync thread may be waiting for a server that hangs."""
        while not self._stopping.is_set():
            self._settle(self.leases.expire(self.clock.now()))
            ends = self.leases.next_end()
            wait = LONGEST_WAIT if ends is None else min(LONGEST_WAIT, ends - self.clock.now())
            self._terms_changed.wait(max(0.01, wait))
            self._terms_changed.clear()

    # ---- bans ----------------------------------------------------------------------------------------------------

    def _note_ban(self) -> None:
        """From any thread: the server said that this machine is banned."""
        if not self._banned:
            self._ban_noticed = True
            self._wake.set()

    def _ban(self) -> None:
        """Forgets everything at once: keys, and who anybody is."""
        self._next_sync = boot_time() + BANNED_RETRY * random.uniform(0.5, 1.0)
        if self._banned:
            return
        log.error("this machine was banned by the key server")
        self._banned = True
        self._problem = "this machine was banned: ask your administrator"
        self._settle(self.leases.revoke_all())
        self._logins = {}
        self._tell(lambda listener: listener.on_logins({}))
        self._keep_last_sync(self.clock.now())

    # ---- the listening thread ------------------------------------------------------------------------------------

    def _listen(self) -> None:
        retry = RETRY_MIN
        while not self._stopping.is_set():
            try:
                with self._client.events(self._events) as stream:
                    self._connected, retry = True, RETRY_MIN
                    if self._problem:
                        self.sync_soon()
                    for event in stream:
                        self._heard(event)
            except Banned:
                self._note_ban()
                retry = BANNED_RETRY
            except ClientError as exc:
                log.debug("no push stream: %s", exc)
            finally:
                self._connected = False
            self._stopping.wait(retry * random.uniform(0.5, 1.0))
            retry = min(retry * 2, RETRY_MAX)

    def _heard(self, event: m.PushEvent) -> None:
        if event.kind == "banned":
            self._note_ban()
        elif event.number != self._events:
            self.sync_soon()

    # ---- what a restart finds ------------------------------------------------------------------------------------

    def _load_last_sync(self) -> None:
        last = self._home.last_sync()
        if last is None:
            return
        try:
            bundle = verified_bundle(last.bundle, key=self._config.bundle_key, company=self._config.company, held=0)
            logins = {int(uid): person for uid, person in last.logins.items()}
        except (BundleRefused, ValueError) as exc:
            log.warning("the kept policy is not used: %s", exc)
            return
        self._bundle, self._signed, self._logins = bundle, last.bundle, logins
        with contextlib.suppress(LogContradicted):
            self._checkpoint = Checkpoint.parse(last.checkpoint, company=self._config.company, key=self._config.log_key)

    def _keep_last_sync(self, now: float) -> None:
        if self._signed is None:
            return
        logins = {str(uid): person for uid, person in self._logins.items()}
        try:
            note = self._checkpoint.note if self._checkpoint else ""
            self._home.write_last_sync(LastSync(self._signed, logins, now, note))
        except OSError as exc:
            log.warning("the policy could not be kept for the next start: %s", exc)


def starting_clock(home: MachineHome) -> ServerClock:
    """A clock that is never before what the server was last seen to have."""
    last = home.last_sync()
    return ServerClock(last.now if last else 0.0)
