"""A mounted drive as a process: everything put together, served until somebody ends it.

The only code that knows the order: spool first, so that nothing happens without a record; then the key server, so that
there is a policy to decide with; then the mount; at the end the other way round.
"""

import gc
import logging
import os
import resource
import signal
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from fsdriver.audit_spool import AuditSpool
from fsdriver.control import ControlServer
from fsdriver.device import Session, Unmounted
from fsdriver.filesystem import Built, Store, build
from fsdriver.filesystem.store import reachable_by_others
from fsdriver.keyclient import KeyClient, starting_clock
from fsdriver.machine import MachineConfig, MachineHome
from fsdriver.requests import Requests
from keyserver.messages import SHARED_WITH
from policy import Bundle

log = logging.getLogger(__name__)

_WARM_AFTER = 10.0
_TICK = 0.5
"""Seconds between looks at the hours that rules name."""


class NoPolicy(Exception):
    """Nothing can be decided: the key server was never reached and no bundle is kept here."""


class Drive:
    """One home's drive, from mount to unmount."""

    def __init__(self, home: MachineHome, *, io_uring: bool = True) -> None:
        """Opens the machine's secret store. Errors: MachineError."""
        self._home = home
        self._config: MachineConfig = home.config()
        self._identity = home.identity()
        self._io_uring = io_uring
        self._resources = ExitStack()
        self._stopping = threading.Event()
        self.session: Session

    def start(self) -> None:
        """Mount. Errors: MachineError, StoreRefused, SpoolFailed, NoPolicy, MountRefused; nothing is left behind then.

        To be called in the main thread: SIGTERM and SIGINT are asked for from here on.

        Everything the process makes is for its owner only, but for what programs create, whose modes the kernel gives.
        """
        os.umask(0)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each open file of the drive takes a descriptor
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        with ExitStack() as undo:
            self._start(undo)
            self._resources = undo.pop_all()

    def _start(self, undo: ExitStack) -> None:
        config = self._config
        store = Store.open(config.store, bytes.fromhex(config.company), config.machine)
        undo.callback(store.close)
        if reachable_by_others(config.store):
            log.warning(
                "other users of this machine can walk to the store %s and read or remove sealed files unrecorded: "
                "put it into a folder of mode 0700",
                config.store,
            )
        clock = starting_clock(self._home)
        spool = AuditSpool(self._home.spool, config.machine, clock.now)
        undo.callback(spool.close)
        keys = KeyClient(self._home, self._identity, spool, clock)
        built = build(
            store,
            Path(config.drive),
            company=bytes.fromhex(config.company),
            mode=config.mode,
            leases=keys.leases,
            grants=keys,
            spool=spool,
            states=self._home.states,
            now=clock.now,
        )
        undo.callback(built.close)
        undo.callback(keys.stop)
        if keys.bundle is not None:  # kept from last time; before the start, after which changes are told in order
            built.revocation.decide_anew(keys.bundle, keys.logins)
        keys.start(Changes(built, keys))
        if keys.bundle is None:
            raise NoPolicy(
                f"no policy is here yet, and the key server {config.agent_url} could not be asked: "
                f"{keys.status().problem}"
            )
        self.session = Session(
            built.operations, Path(config.drive), source=config.store, io_uring=self._io_uring, exec_allowed=config.exec
        )
        self.session.start()
        undo.callback(self._unmount, built)
        built.drive.kernel.attach(self.session.notifier)
        others = SHARED_WITH + " ".join(store.peers.known) if store.peers.known else ""
        mounted = f"{config.drive} over {config.store}, {self.session.transport}{others}"
        built.drive.recorder.note("mount", mounted)
        ticker = threading.Thread(target=self._watch_hours, args=(built,), name="hours", daemon=True)
        ticker.start()
        undo.callback(ticker.join)
        undo.callback(self._stopping.set)
        control = ControlServer(self._home.path, Requests(self._config, built, keys, self.session, self.stop).methods())
        control.start()
        undo.callback(control.stop)
        calm_collector()
        # Listed programs' libraries are hashed before anybody waits for it, and after everybody has what they came for.
        warming = threading.Timer(_WARM_AFTER, built.drive.callers.warm)
        warming.daemon = True
        warming.start()
        undo.callback(warming.cancel)

    def wait(self) -> None:
        """Until `stop`, SIGTERM or SIGINT, or until somebody unmounts or aborts the drive; then end everything."""
        while not self._stopping.wait(_TICK):
            if self.session.wait(0):
                log.warning("the drive was unmounted: %s", self.session.aborted or "by umount")
                break
        self._resources.close()

    def stop(self) -> None:
        """Ask for the end, from any thread."""
        self._stopping.set()

    def _unmount(self, built: Built) -> None:
        result = self.session.stop(release=True)
        if result is Unmounted.LAZY:
            # Programs hold files open that nobody serves from now on: what they wrote is kept, what they read goes.
            refused = built.revocation.decide_anew(built.drive.views.bundle, {})
            built.revocation.labels_ended(frozenset(label.id for label in built.drive.views.bundle.labels))
            built.drive.recorder.note("unmount", f"lazily: {refused} open files were let go")
        else:
            built.drive.recorder.note("unmount")

    def _watch_hours(self, built: Built) -> None:
        while not self._stopping.wait(_TICK):
            try:
                built.revocation.hours_passed()
            except Exception:
                log.exception("bug while hours were looked at")


def calm_collector() -> None:
    """Nodes and handles are let go by count; a collection that walks a hundred thousand of them finds nothing and stops
    every request while it looks."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


class Changes:
    """What the key client tells, carried to the filesystem."""

    def __init__(self, built: Built, keys: KeyClient) -> None:
        self._built = built
        self._keys = keys

    def on_bundle(self, bundle: Bundle) -> None:
        self._built.revocation.decide_anew(bundle, self._keys.logins)

    def on_logins(self, logins: Mapping[int, str]) -> None:
        self._built.revocation.decide_anew(self._keys.bundle, logins)

    def on_revoked(self, labels: frozenset[bytes]) -> None:
        self._keys.dropped(labels, self._built.revocation.labels_ended(labels))
