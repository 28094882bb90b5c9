"""How a machine joins: a one-use token with minutes to live, a key made on the machine, and a certificate for it.

A token reads `gfs1.<id>.<secret>.<fingerprint of the CA>`: the agent trusts the server by the fingerprint, the server
trusts the agent by the secret. Only the secret's SHA-256 is kept; 256 random bits need no slower hash.
"""

import hmac
import re
import secrets
from collections.abc import Mapping
from hashlib import sha256

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from keyserver.ca.authority import Authority
from keyserver.changes import Change
from keyserver.errors import Denied, Malformed, TokenExpired, TokenUsed
from keyserver.machines import ACTIVE, Machines
from keyserver.messages import EnrolRequest
from keyserver.people import require_people
from keyserver.sealing import SealingError, check_public_key
from keyserver.store.accounts import JoinTokenRow
from keyserver.store.machines import MachineRow

PREFIX = "gfs1"
TERM = 600.0
MAX_TERM = 86_400.0
MAX_UID = 2**32 - 2

_TOKEN = re.compile(rf"{PREFIX}\.(?P<id>[0-9a-f]{{16}})\.(?P<secret>[0-9a-f]{{64}})\.(?P<authority>[0-9a-f]{{64}})")


class Enrolled(msgspec.Struct, frozen=True):
    """A machine that has just joined."""

    machine: str
    certificate: str


class Enrolment:
    """Makes tokens and takes them."""

    def __init__(self, authority: Authority, machines: Machines) -> None:
        self._authority = authority
        self._machines = machines

    def create_token(self, change: Change, logins: Mapping[int, str], term: float, admin: str) -> str:
        """The token, shown once. `logins` maps uids on the new machine to persons ("service:NAME" too).

        Raises `NotFound` for a person nobody added, `Malformed` for a term or uid out of range.
        """
        if not 0 < term <= MAX_TERM:
            raise Malformed(f"a token lives up to {MAX_TERM / 3600:g} hours")
        for uid in logins:
            if not 0 <= uid <= MAX_UID:
                raise Malformed(f"{uid} is not a uid")
        require_people(change.rows, logins.values())
        token_id, secret = secrets.token_hex(8), secrets.token_hex(32)
        mapped = msgspec.json.encode({str(uid): person for uid, person in logins.items()}).decode()
        expires = change.now + term
        change.rows.accounts.add_join_token(JoinTokenRow(token_id, _digest(secret), mapped, change.now, expires, None))
        change.record("token-created", user=admin, detail=f"token={token_id} logins={mapped}")
        return f"{PREFIX}.{token_id}.{secret}.{self._authority.fingerprint}"

    def enrol(self, change: Change, request: EnrolRequest) -> Enrolled | TokenUsed | TokenExpired:
        """Takes the token and admits the machine.

        Raises `Denied` (no such token, another company's) or `Malformed`. That a token was used or had expired is
        returned, not raised: the record of it must stay.
        """
        try:
            token = self._check(change, request.token)
        except (TokenUsed, TokenExpired) as error:
            token_id = request.token.split(".")[1]
            change.record("token-refused", detail=f"token={token_id} name={request.name[:255]} {error.word}")
            return error
        try:
            check_public_key(request.sealing_key)
        except SealingError as exc:
            raise Malformed(str(exc)) from None
        if not 0 < len(request.name) <= 255 or not request.name.isprintable():
            raise Malformed("the machine's name must be 1 to 255 printable characters")
        machine = secrets.token_hex(16)
        certificate = self._authority.issue_machine(machine, request.csr, change.now)
        logins = {int(uid): person for uid, person in msgspec.json.decode(token.logins, type=dict[str, str]).items()}
        row = MachineRow(machine, request.name, request.mode, ACTIVE, request.sealing_key, change.now)
        change.rows.accounts.use_join_token(token.id, machine)
        change.record(
            "enrol", detail=f"machine={machine} name={request.name} mode={request.mode} token={token.id} {token.logins}"
        )
        self._machines.add(change, row, logins, certificate)
        return Enrolled(machine, certificate.public_bytes(Encoding.PEM).decode())

    def _check(self, change: Change, text: str) -> JoinTokenRow:
        match = _TOKEN.fullmatch(text)
        if match is None:
            raise Denied("this is not a join token")
        if match["authority"] != self._authority.fingerprint:
            raise Denied("this join token is for another company's server")
        token = change.rows.accounts.join_token(match["id"])
        expected = token.digest if token else bytes(32)
        if not hmac.compare_digest(expected, _digest(match["secret"])) or token is None:
            raise Denied("the server does not know this join token")
        # Only who holds the secret learns how the token ended.
        if token.machine is not None:
            raise TokenUsed("this join token was used before: if not by you, tell your administrator")
        if change.now >= token.expires:
            raise TokenExpired("this join token has expired: ask for a new one")
        return token


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
