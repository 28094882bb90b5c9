"""Admin accounts: passwords (Argon2id), API tokens for the CLI, sessions for the console.

Verifying a password takes 64 MiB and about 150 ms by design, so callers run it in a thread, and failures are counted:
after `TRIES` in `WINDOW` seconds further sign-ins are refused until the window has passed.
"""

import hmac
import secrets
import threading
from collections import deque
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from keyserver.changes import Change
from keyserver.errors import Denied, NotSignedIn
from keyserver.store.rows import Rows

API_PREFIX = "gfa1"
SESSION_TERM = 8 * 3600.0
SESSION_IDLE = 1800.0
TRIES = 10
WINDOW = 60.0

_hasher = PasswordHasher()


@dataclass(slots=True)
class _Session:
    admin: str
    begun: float
    used: float


class Admins:
    """Who may administer. Sessions live in memory: a restart signs everybody out."""

    def __init__(self, rows: Rows) -> None:
        self._tokens = rows.accounts.api_tokens()
        self._sessions: dict[bytes, _Session] = {}
        self._failures: deque[float] = deque(maxlen=TRIES)
        # One sign-in at a time: each takes 64 MiB.
        self._verifying = threading.Lock()

    @staticmethod
    def create(change: Change, name: str, password: str) -> str:
        """The first admin; an API token, shown once."""
        token_id, secret = secrets.token_hex(8), secrets.token_hex(32)
        change.rows.accounts.add_admin(name, _hasher.hash(password), change.now)
        change.rows.accounts.add_api_token(token_id, name, _digest(secret), change.now)
        change.record("admin-added", detail=f"admin={name}")
        return f"{API_PREFIX}.{token_id}.{secret}"

    def by_token(self, text: str) -> str:
        """The admin whose API token this is. Raises `NotSignedIn`."""
        prefix, _, rest = text.partition(".")
        token_id, _, secret = rest.partition(".")
        admin, digest = self._tokens.get(token_id, ("", bytes(32)))
        if not hmac.compare_digest(digest, _digest(secret)) or prefix != API_PREFIX or not admin:
            raise NotSignedIn("this token is not valid here")
        return admin

    def check_password(self, rows: Rows, name: str, password: str, now: float) -> None:
        """Slow; for a thread. Raises `Denied` when there were too many failures, else `NotSignedIn`."""
        with self._verifying:
            if len(self._failures) == TRIES and now - self._failures[0] < WINDOW:
                raise Denied("too many failed sign-ins: wait a minute")
            stored = rows.accounts.password_hash(name)
            try:
                # A name nobody has costs as much as a wrong password, so time tells nothing.
                _hasher.verify(stored or _nobody(), password)
            except (VerificationError, InvalidHashError):
                stored = None
            if stored is None:
                self._failures.append(now)
                raise NotSignedIn("name or password is wrong")

    def begin_session(self, admin: str, now: float) -> str:
        """The session's secret, for a cookie."""
        secret = secrets.token_urlsafe(32)
        self._sessions = {key: each for key, each in self._sessions.items() if _alive(each, now)}
        self._sessions[sha256(secret.encode()).digest()] = _Session(admin, now, now)
        return secret

    def by_session(self, secret: str, now: float) -> str:
        """The admin signed in. Raises `NotSignedIn`."""
        session = self._sessions.get(sha256(secret.encode()).digest())
        if session is None or not _alive(session, now):
            raise NotSignedIn("sign in first")
        session.used = now
        return session.admin

    def end_session(self, secret: str) -> None:
        self._sessions.pop(sha256(secret.encode()).digest(), None)


@cache
def _nobody() -> str:
    """A hash no password has."""
    return _hasher.hash(secrets.token_hex(16))


def _alive(session: _Session, now: float) -> bool:
    return now - session.begun < SESSION_TERM and now - session.used < SESSION_IDLE


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
