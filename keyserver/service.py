"""One key server: the nouns, put together over a database and a root key. No HTTP, no sockets.

`found` makes the first state of a new home, `KeyService` opens it. Both need the root key: without it the server is
sealed and does not start.
"""

import secrets
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyserver.admins import Admins
from keyserver.auditlog.ingest import Intake
from keyserver.auditlog.log import Log
from keyserver.bundles import Bundles
from keyserver.ca.authority import Authority
from keyserver.changes import Announce, Change, Writer
from keyserver.enrolment import Enrolment
from keyserver.grants import Grants
from keyserver.home import Home
from keyserver.keys.labels import LabelKeys
from keyserver.keys.root import RootKey, load_root_key
from keyserver.leases import Leases
from keyserver.machines import Machine, Machines
from keyserver.old_copies import OldCopies
from keyserver.people import People, require_people
from keyserver.secret_store import open_store
from keyserver.store.database import Store
from keyserver.store.rows import Rows

Clock = Callable[[], float]

CHECKPOINT_SECONDS = 10.0
_AUTHORITY_KEY = "authority-key"
_BUNDLE_KEY = "bundle-key"
_LOG_KEY = "log-key"


class Founding(NamedTuple):
    """What a new server begins with."""

    company: str
    company_name: str
    names: tuple[str, ...]
    """Host names and addresses the server may ever have, beside localhost."""
    admin: str
    password: str
    policy: Mapping[str, str]
    """File name to YAML text."""


class KeyService:
    """All nouns of a running server."""

    def __init__(self, store: Store, root: RootKey, clock: Clock, announce: Announce | None = None) -> None:
        self.store = store
        self.clock = clock
        with store.read() as rows:
            get = rows.settings.get
            self.company, self.company_name = get("company").decode(), get("company_name").decode()
            key = root.unwrap(rows.settings.wrapped(_AUTHORITY_KEY), _AUTHORITY_KEY)
            self.authority = Authority.load(self.company, get("authority"), key)
            bundle_key = _ed25519(root, rows, _BUNDLE_KEY)
            log_key = _ed25519(root, rows, _LOG_KEY)
            self.bundle_key = bundle_key.public_key().public_bytes_raw()
            self.log_key = log_key.public_key().public_bytes_raw()
            self.pushes = rows.policies.pushes()
            self.admins = Admins(rows)
            self.machines = Machines(rows)
            self.labels = LabelKeys(root, rows)
            self.bundles = Bundles(rows, self.labels, bundle_key, self.company)
            self.leases = Leases(rows, self.bundles, self.labels, self.company)
            self.log = Log(rows, self.company, log_key)
        self.enrolment = Enrolment(self.authority, self.machines)
        self.grants = Grants(self.bundles, self.labels, self.company)
        self.people = People(self.bundles)
        self.intake = Intake()
        self.old_copies = OldCopies(self.machines, self.leases.sealers)
        self.writer = Writer(store, self.log, clock, announce)

    def start(self) -> None:
        self.writer.start()
        self.writer.run(lambda change: change.record("server-start"))

    def stop(self) -> None:
        """Finishes what was asked for and signs the last checkpoint."""
        self.writer.run(lambda change: change.record("server-stop"))
        self.writer.run(Change.sign_checkpoint)
        self.writer.stop()

    def ban(self, change: Change, machine_id: str, admin: str) -> Machine:
        """Bans a machine and revokes its leases in one step. Raises `NotFound`."""
        self.machines.ban(change, machine_id, admin)
        self.leases.revoke_machine(change, machine_id, admin)
        return self.machines.get(machine_id)

    def map_login(self, change: Change, machine_id: str, uid: int, person: str, admin: str) -> None:
        """Raises `NotFound` for a machine or a person that is not there."""
        require_people(change.rows, [person])
        self.machines.map_login(change, machine_id, uid, person, admin)


def unseal(home: Home) -> RootKey:
    """The root key of the server in `home`. Raises `NotReady`."""
    config = home.config()
    return load_root_key(open_store(config.secrets, home=home.path, service="keyserver"), config.company)


def found(store: Store, root: RootKey, founding: Founding, clock: Clock) -> tuple[Authority, bytes, str]:
    """Writes a new server's first state in one transaction: CA, log's public key, the admin's API token.

    Raises `PolicyError`, and then nothing was written.
    """
    authority = Authority.create(founding.company, founding.company_name, founding.names, clock())
    bundle_key, log_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    with store.read() as rows:
        log = Log(rows, founding.company, log_key)
        labels = LabelKeys(root, rows)
        bundles = Bundles(rows, labels, bundle_key, founding.company)
    parsed = bundles.parse(founding.policy)

    def write(change: Change) -> str:
        settings = change.rows.settings
        settings.put("company", founding.company.encode())
        settings.put("company_name", founding.company_name.encode())
        settings.put("authority", authority.pem.encode())
        settings.put("log_key", log_key.public_key().public_bytes_raw())
        for name, private in (
            (_AUTHORITY_KEY, authority.private_bytes()),
            (_BUNDLE_KEY, bundle_key.private_bytes_raw()),
            (_LOG_KEY, log_key.private_bytes_raw()),
        ):
            settings.put_wrapped(name, root.wrap(private, name))
        change.record("init", detail=f"company={founding.company} name={founding.company_name}")
        token = Admins.create(change, founding.admin, founding.password)
        bundles.upload(change, founding.policy, parsed, founding.admin)
        return token

    writer = Writer(store, log, clock)
    writer.start()
    try:
        token = writer.run(write)
        writer.run(Change.sign_checkpoint)
    finally:
        writer.stop()
    return authority, log_key.public_key().public_bytes_raw(), token


def new_company() -> str:
    return secrets.token_hex(16)


def _ed25519(root: RootKey, rows: Rows, name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(root.unwrap(rows.settings.wrapped(name), name))
