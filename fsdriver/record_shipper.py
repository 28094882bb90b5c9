"""Brings the spool's records to the key server: in order, in batches that grow with the load, waiting if it is away."""

import logging
import random
import threading
from collections.abc import Callable

from fsdriver.audit_spool import AuditSpool
from fsdriver.errors import SpoolFailed
from keyserver.client import AgentClient, Banned, ClientError, Denied, ServerFailed, Unreachable

__all__ = ["RecordShipper"]

log = logging.getLogger(__name__)

QUIET = 0.25
"""Seconds between two looks at the spool. A look costs two comparisons."""
BUSY = 3.0
"""Seconds between two syncs of the spool under load. On ext4 a sync waits for everything that programs have written to
the same disk since the last one, so it costs them more than all batches cost us; what was synced is shipped at once."""
BUSY_RECORDS = 100
RETRY_MIN, RETRY_MAX = 0.5, 30.0


class RecordShipper:
    """One thread that empties the spool."""

    def __init__(self, spool: AuditSpool, client: AgentClient, on_banned: Callable[[], None]) -> None:
        self._spool = spool
        self._client = client
        self._on_banned = on_banned
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._shipped = threading.Condition()
        self._wanted = 0
        """Number of the newest record that somebody waits for: no pauses until it is shipped."""
        self._thread = threading.Thread(target=self._run, name="record-shipper", daemon=True)
        self.problem = ""
        """Why the last batch was not taken; "" while all is well."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the exchange it is in."""
        self._stop.set()
        self._hurry.set()
        if self._thread.is_alive():
            self._thread.join()

    def flush(self, timeout: float) -> bool:
        """Whether the server has, within `timeout` seconds, everything that is in the spool now."""
        wanted = self._wanted = self._spool.last
        self._hurry.set()
        with self._shipped:
            return self._shipped.wait_for(lambda: self._spool.acknowledged >= wanted, timeout)

    def _run(self) -> None:
        retry = RETRY_MIN
        while not self._stop.is_set():
            try:
                sent = self._ship()
            except (ClientError, SpoolFailed) as exc:
                if str(exc) != self.problem:
                    log.warning("records wait in the spool: %s", exc)
                self.problem = str(exc)
                if isinstance(exc, Banned):
                    self._on_banned()
                # What the server refuses it will refuse again; what it could not take, it may take soon.
                passing = isinstance(exc, Unreachable | ServerFailed) and not isinstance(exc, Denied)
                retry = min(retry * 2, RETRY_MAX) if passing else RETRY_MAX
                self._pause(retry * random.uniform(0.5, 1.0))
                continue
            retry, self.problem = RETRY_MIN, ""
            if self._spool.acknowledged >= max(self._spool.synced, self._wanted):
                self._pause(BUSY if sent >= BUSY_RECORDS else QUIET)

    def _pause(self, seconds: float) -> None:
        if self._hurry.wait(seconds):
            self._hurry.clear()

    def _ship(self) -> int:
        batch = self._spool.batch()
        if batch is None:
            return 0
        receipt = self._client.records(batch)
        try:
            self._spool.acknowledge(receipt.acknowledged)
        finally:
            with self._shipped:
                self._shipped.notify_all()
            if receipt.banned:
                self._on_banned()
        return len(batch)
