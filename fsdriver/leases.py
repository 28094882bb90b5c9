"""Label keys on loan to this machine: which may be used now, and when each is renewed or forgotten.

`Leases` never asks the time and never calls the key server: the caller passes `now` (seconds, the server's clock), and
carries out what it is told. Every good sync names all leases anew; without one, a key may be used until its lease
expires or until `offline` seconds after the last good sync, whichever is later. When the server answers and refuses,
nothing counts but the lease. A lease that a sync no longer names is revoked: its key is not handed out from that moment
on, and is overwritten by `forget`, once the filesystem has let go of it.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from fsdriver.errors import LeaseExpired, LeaseMissing
from keyserver.messages import LeaseGrant, SyncResponse
from keyserver.sealing import Binding, SealingKey, SecretKey

__all__ = ["Change", "LabelKey", "LeaseStatus", "Leases"]

ROLLBACK_TOLERANCE = 1.0
"""Seconds by which callers on several threads may pass `now` out of order."""


class LabelKey(NamedTuple):
    """One version of a label's key. Asked for anew at every use: once its lease has ended, `bytes(secret)` raises
    keyserver.sealing.SealingError."""

    key_id: bytes
    version: int
    secret: SecretKey


class Change(NamedTuple):
    """What a step changed, as label ids."""

    gained: frozenset[bytes] = frozenset()
    ended: frozenset[bytes] = frozenset()
    """Revoked or past their term: open handles are decided again, pages dropped, then `forget` is due."""


class LeaseStatus(NamedTuple):
    """One lease, for people."""

    label: bytes
    lease: str
    expires: float
    usable_until: float
    versions: tuple[int, ...]


@dataclass(slots=True)
class _Lease:
    lease: str
    label: bytes
    key_id: bytes
    expires: float
    offline: float
    half: float
    """The instant by which it should be renewed."""
    keys: dict[int, LabelKey] = field(default_factory=dict)

    def covers(self, earlier: "_Lease") -> bool:
        """Whether every key of `earlier` is still lent."""
        return self.key_id == earlier.key_id and self.keys.keys() >= earlier.keys.keys()


class Leases:
    """The leases of one machine. Readers need no lock; steps that change them exclude each other."""

    def __init__(self, company: str, machine: str, sealing_key: SealingKey) -> None:
        self._company = company
        self._machine = machine
        self._sealing_key = sealing_key
        self._lock = threading.Lock()
        self.epoch = 0
        """Rises when keys have stopped being lent, before anybody is told which."""
        # Replaced, never changed in place, so `key_for` reads it without the lock.
        self._held: dict[bytes, _Lease] = {}
        self._ended: list[_Lease] = []
        self._synced = 0.0
        self._refused = False
        self._latest = 0.0
        self._rolled_back = False

    # ---- using ---------------------------------------------------------------------------------------------------

    def key_for(self, label: bytes, version: int | None, now: float) -> LabelKey:
        """The key of `label`: its newest version, which seals new files, or the one a header names.

        Raises LeaseMissing when this machine holds no such key, LeaseExpired when its term is over.
        """
        lease = self._held.get(label)
        if lease is None:
            raise LeaseMissing(f"this machine holds no key for label {label.hex()}")
        if self._noted(now) >= self._usable_until(lease):
            raise LeaseExpired(f"the key of label {label.hex()} was lent until its term, which is over")
        key = lease.keys.get(version) if version is not None else next(reversed(lease.keys.values()), None)
        if key is None:
            raise LeaseMissing(f"this machine holds no version {version} of the key of label {label.hex()}")
        return key

    def holds(self, label: bytes, now: float) -> bool:
        """Whether `key_for` would find a key."""
        lease = self._held.get(label)
        return lease is not None and bool(lease.keys) and self._noted(now) < self._usable_until(lease)

    def _usable_until(self, lease: _Lease) -> float:
        if self._refused or self._rolled_back:
            return lease.expires
        return max(lease.expires, self._synced + lease.offline)

    def _noted(self, now: float) -> float:
        """`now`, but never before what was passed earlier: a clock turned back brings no key back."""
        latest = self._latest
        if now >= latest:
            self._latest = now
            return now
        if now < latest - ROLLBACK_TOLERANCE:
            self._rolled_back = True
        return latest

    # ---- changing ------------------------------------------------------------------------------------------------

    def install(self, response: SyncResponse, now: float) -> Change:
        """Takes over what the server says this machine may hold now. `now` is the server's time of asking.

        Raises keyserver.sealing.SealingError, and changes nothing, when a key is not sealed to this machine.
        """
        with self._lock:
            before = self._held
            held = {lease.label: lease for lease in (self._opened(grant, now) for grant in response.leases)}
            gone = [lease for label, lease in before.items() if label not in held or not held[label].covers(lease)]
            # The server's clock rules; it may correct ours backwards.
            self._latest = now
            self._rolled_back = False
            self._refused = False
            self._synced = now
            self._replace(held, gone)
            return Change(
                frozenset(held.keys() - before.keys()), frozenset(lease.label for lease in gone) | self._expire(now)
            )

    def _opened(self, grant: LeaseGrant, now: float) -> _Lease:
        label, key_id = bytes.fromhex(grant.label), bytes.fromhex(grant.key_id)
        known = self._held.get(label)
        lease = _Lease(grant.lease, label, key_id, grant.expires, grant.offline, now + (grant.expires - now) / 2)
        for key in sorted(grant.keys, key=lambda key: key.version):
            held = known.keys.get(key.version) if known and known.key_id == key_id else None
            if held is None:
                binding = Binding("lease", self._company, self._machine, grant.label, grant.key_id, key.version)
                held = LabelKey(key_id, key.version, self._sealing_key.open(key.sealed, binding))
            lease.keys[key.version] = held
        return lease

    def refused(self, now: float) -> Change:
        """The server answered and lent nothing: no lease outlives its own term."""
        with self._lock:
            self._refused = True
            return Change(ended=self._expire(now))

    def expire(self, now: float) -> Change:
        """Ends what is past its term."""
        with self._lock:
            return Change(ended=self._expire(now))

    def _expire(self, now: float) -> frozenset[bytes]:
        now = self._noted(now)
        over = [lease for lease in self._held.values() if now >= self._usable_until(lease)]
        if over:
            self._replace({label: lease for label, lease in self._held.items() if lease not in over}, over)
        return frozenset(lease.label for lease in over)

    def revoke_all(self) -> Change:
        """Ends every lease at once (a ban)."""
        with self._lock:
            ended = frozenset(self._held)
            self._replace({}, list(self._held.values()))
            return Change(ended=ended)

    def _replace(self, held: dict[bytes, _Lease], gone: list[_Lease]) -> None:
        self._ended += gone
        self._held = held
        # Last: who saw the new epoch can have got no key of the old ones.
        self.epoch += bool(gone)

    def forget(self, labels: Iterable[bytes] | None = None) -> tuple[str, ...]:
        """Overwrites the keys of ended leases of these labels (None: all); the ids of the leases, for the receipt."""
        with self._lock:
            wanted = None if labels is None else frozenset(labels)
            going = [lease for lease in self._ended if wanted is None or lease.label in wanted]
            self._ended = [lease for lease in self._ended if lease not in going]
            # A lease that lost one version of its key goes on with the others.
            held = self._held.values()
            kept = {id(key.secret) for lease in held for key in lease.keys.values()}
            ongoing = {lease.lease for lease in held}
            for lease in going:
                for key in lease.keys.values():
                    if id(key.secret) not in kept:
                        key.secret.wipe()
            return tuple(lease.lease for lease in going if lease.lease not in ongoing)

    # ---- when to act ---------------------------------------------------------------------------------------------

    def renewal(self) -> float | None:
        """The earliest instant at which half a term is over; None without leases."""
        return min((lease.half for lease in self._held.values()), default=None)

    def next_end(self) -> float | None:
        """The earliest instant at which a key stops being usable as things are; None without leases."""
        return min(map(self._usable_until, self._held.values()), default=None)

    @property
    def rolled_back(self) -> bool:
        """The clock was seen going back since the last sync; offline terms are void until the next."""
        return self._rolled_back

    @property
    def synced(self) -> float:
        """Server time of the last good sync, 0 for none."""
        return self._synced

    def status(self) -> tuple[LeaseStatus, ...]:
        held = self._held.values()
        return tuple(
            LeaseStatus(lease.label, lease.lease, lease.expires, self._usable_until(lease), tuple(lease.keys))
            for lease in held
        )
