"""Every deliberate failure of the key server: one word for programs, one HTTP status, one exit code.

Words are the stable ones of `messages.Failure`; exit codes are the published ones (`docs/` lists them), so neither is
ever reused. Messages say what happened and what to do; they never hold key material.
"""

from typing import ClassVar


class KeyServerError(Exception):
    """A failure the server answers on purpose."""

    word: ClassVar[str] = "failed"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1


class Denied(KeyServerError):
    """Policy, the machine's standing or the account does not allow this."""

    word, status, exit_code = "denied", 403, 3


class NotSignedIn(Denied):
    """No valid bearer token, session or password came with the request."""

    status = 401


class Banned(Denied):
    """The machine was banned."""

    word = "banned"


class TokenUsed(Denied):
    """The join token was used before."""

    word = "token-used"


class TokenExpired(Denied):
    """The join token's minutes are over."""

    word = "token-expired"


class Malformed(KeyServerError):
    """The request is not what the contract describes."""

    word, status, exit_code = "malformed", 400, 2


class TooLarge(Malformed):
    """The body exceeds what the endpoint takes."""

    status = 413


class Stalled(Malformed):
    """The body did not arrive in time."""

    status = 408


class NotFound(KeyServerError):
    """Nothing has this name or id."""

    word, status, exit_code = "not-found", 404, 4


class Conflict(KeyServerError):
    """It exists already, or contradicts what exists."""

    word, status, exit_code = "conflict", 409, 5


class NotReady(KeyServerError):
    """Sealed, not initialised, not running, or the store cannot be written."""

    word, status, exit_code = "sealed", 503, 6


class SchemaNewer(NotReady):
    """The database was written by a newer version of this program."""


class LogBroken(KeyServerError):
    """The log does not verify; the message names the first bad row."""

    word, exit_code = "log-broken", 7
