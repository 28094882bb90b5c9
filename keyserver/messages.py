"""What agent and key server say to each other: the one contract both sides import.

Bodies are JSON over HTTPS (records: JSON Lines). Binary values are base64 (msgspec's encoding of `bytes`), ids are
lower-case hex, times are seconds since the epoch (UTC, float). Unknown fields are refused on both sides of the wire.
"""

from collections.abc import Iterable
from typing import Literal, Self

import msgspec
from msgspec import Struct

API = "/v1"

Mode = Literal["root", "user"]


class Message(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all messages."""


# ---- joining: POST {admin port}/v1/enrol, server-authenticated TLS, one-use token ---------------------------------


class EnrolRequest(Message, frozen=True):
    token: str
    name: str
    """Host name as an admin would recognise it; informative."""
    mode: Mode
    csr: str
    """PKCS#10 PEM; the key was made on the machine and stays there."""
    sealing_key: bytes
    """The machine's HPKE public key: leases and grants are sealed to it."""


class EnrolResponse(Message, frozen=True):
    machine: str
    company: str
    company_name: str
    certificate: str
    authority: str
    agent_url: str
    bundle_key: bytes
    """Ed25519 public key (32 bytes) that signs bundles."""
    log_key: bytes
    """Ed25519 public key (32 bytes) that signs the log's checkpoints."""


# ---- everything below: agent port, mutual TLS ---------------------------------------------------------------------


class RenewRequest(Message, frozen=True):
    """POST /v1/certificate"""

    csr: str


class RenewResponse(Message, frozen=True):
    certificate: str


class SignedBundle(Message, frozen=True):
    """`document` is the canonical JSON of `policy.Bundle`; `signature` is Ed25519 over b"grantfs-bundle-v1\\n" + it."""

    number: int
    document: bytes
    signature: bytes


class SealedKey(Message, frozen=True):
    version: int
    sealed: bytes
    """HPKE (suite of `keyserver.sealing`) to the machine's sealing key; info binds company, machine, label, key id and
    version. Plaintext: 32 bytes."""


class LeaseGrant(Message, frozen=True):
    lease: str
    label: str
    key_id: str
    keys: tuple[SealedKey, ...]
    """All versions still in use, newest last; new files take the newest."""
    expires: float
    offline: float
    """Seconds the keys may be kept past the last successful sync when the server cannot be reached; 0 for none."""


class SyncRequest(Message, frozen=True):
    """POST /v1/sync: asks for everything that changed and renews all leases. Sent at half term, and on every push."""

    bundle: int
    """Number of the bundle held, 0 for none."""
    events: int
    """Last push event number seen."""
    mode: Mode = "root"


class SyncResponse(Message, frozen=True):
    now: float
    bundle: SignedBundle | None
    """None when the agent's is the newest."""
    logins: dict[str, str]
    """Local uid (decimal) to person."""
    leases: tuple[LeaseGrant, ...]
    """All labels this machine may hold now. A lease the agent holds that is not here is revoked: at once."""
    events: int
    checkpoint: str = ""
    """The log's newest signed checkpoint (C2SP tlog-checkpoint text), "" before the first."""


class PushEvent(Message, frozen=True):
    """One `data:` line of GET /v1/events (SSE). `id:` is `number`. Any event means: sync now."""

    number: int
    kind: Literal["hello", "bundle", "leases", "revoked", "banned"]


class FileFacts(Message, frozen=True):
    """What a sealed file's header says in clear, and where it lies in the drive."""

    file_id: str
    label: str
    path: str


class ProgramClaim(Message, frozen=True):
    """What the agent established about the caller; decided on again by the server with the same policy code."""

    path: str
    sha256: str = ""
    packages: tuple[str, ...] = ()
    script: str = ""
    script_sha256: str = ""
    clean: bool = False
    jit: bool = False


class GrantRequest(Message, frozen=True):
    """POST /v1/grants: the key of one file of a label whose keys stay on the server.

    With `wrapped` empty a new file is born: the server makes and wraps a file key.
    """

    bundle: int
    person: str
    program: ProgramClaim
    action: str
    file: FileFacts
    key_id: str = ""
    version: int = 0
    wrapped: bytes = b""


class GrantResponse(Message, frozen=True):
    sealed: bytes
    """File key (32 bytes) under HPKE to the machine; info binds company, machine, file id."""
    key_id: str
    version: int
    wrapped: bytes
    rule: str


class FilePath(Message, frozen=True):
    path: str
    id: str = ""
    label: str = ""
    generation: int = 0


class ProgramPath(Message, frozen=True):
    path: str = ""
    sha256: str = ""
    pid: int = 0
    ppid: int = 0
    parent: str = ""


SHARED_WITH = "; shared with "
"""In the detail of a `mount` record: what follows are the ids of the other machines that have, or had, the store."""


class Record(Message, frozen=True):
    """One canonical record. Its encoding (`encode`) is what is spooled, chained, hashed into the log and printed:
    UTF-8 JSON, fields in this order, fields at their default left out, no white space."""

    seq: int
    """1, 2, 3 ... per machine, no gaps."""
    time: str
    """RFC 3339 UTC with microseconds, "2026-01-31T08:00:00.000000Z"."""
    machine: str
    event: str
    user: str = ""
    uid: int = -1
    file: FilePath | None = None
    program: ProgramPath | None = None
    view: str = ""
    rule: str = ""
    policy: int = 0
    """Number of the bundle that decided."""
    bytes_read: int = 0
    bytes_written: int = 0
    to: str = ""
    """Destination of a copy or rename."""
    detail: str = ""


class BatchHead(Message, frozen=True):
    """The first line of POST /v1/records."""

    first: int
    chain: bytes
    """SHA-256 chain value before the first record; chain_n = SHA-256(chain_{n-1} + record_n), 32 zero bytes at
    start."""


class RecordBatch(Struct, frozen=True):
    """POST /v1/records, the one body that is JSON Lines: a `BatchHead`, then encoded `Record`s with consecutive seq
    from `first`. They travel as the bytes they are: an encoding has no newline, and is neither made nor undone."""

    first: int
    chain: bytes
    lines: bytes
    """The records, a newline after each."""

    @classmethod
    def of(cls, first: int, chain: bytes, records: Iterable[bytes]) -> Self:
        return cls(first, chain, b"\n".join([*records, b""]))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Inverse of `encode`; what the lines say is not looked at. Raises msgspec.MsgspecError."""
        line, _, lines = body.partition(b"\n")
        head = msgspec.json.decode(line, type=BatchHead)
        return cls(head.first, head.chain, lines)

    def encode(self) -> bytes:
        return b"%b\n%b" % (msgspec.json.encode(BatchHead(self.first, self.chain)), self.lines)

    @property
    def records(self) -> list[bytes]:
        return self.lines.split(b"\n")[:-1]

    def __len__(self) -> int:
        return self.lines.count(b"\n")


class RecordReceipt(Message, frozen=True):
    """Durable up to and including `acknowledged`."""

    acknowledged: int
    banned: bool = False
    """This machine was banned: what it recorded is taken, and it forgets all keys now."""


class Receipt(Message, frozen=True):
    """POST /v1/receipts: keys of these leases were forgotten. Signed with the machine's TLS key over
    b"grantfs-receipt-v1\\n" + leases joined by newlines + "\\n" + repr of `at`."""

    leases: tuple[str, ...]
    at: float
    signature: bytes
    handles_refused: int = 0


class Failure(Message, frozen=True):
    """Body of every 4xx and 5xx answer."""

    error: str
    """Stable word, for programs: denied, banned, token-used, token-expired, sealed, conflict, malformed, not-found."""
    message: str
    """One sentence for people: what happened and what to do."""
