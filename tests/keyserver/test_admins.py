import pytest
from argon2.exceptions import VerifyMismatchError

from keyserver.admins import SESSION_IDLE, SESSION_TERM, TRIES, WINDOW
from keyserver.errors import Denied, NotSignedIn
from tests.keyserver.company import NOON, PASSWORD


@pytest.fixture
def admins(company):
    return company.service.admins


@pytest.fixture
def check(company, admins):
    def check(name, password, now=NOON):
        with company.store.read() as rows:
            admins.check_password(rows, name, password, now)

    return check


def test_the_api_token_names_its_admin(company, admins):
    assert admins.by_token(company.founded.token) == "admin"


@pytest.mark.parametrize(
    "change", [lambda t: "", lambda t: t[:-1] + "x", lambda t: t.replace("gfa1", "gfs1"), lambda t: t + "0"]
)
def test_other_tokens_do_not(company, admins, change):
    with pytest.raises(NotSignedIn):
        admins.by_token(change(company.founded.token))


def test_password(check):
    check("admin", PASSWORD)
    for name, password in (("admin", PASSWORD + " "), ("nobody", PASSWORD), ("", "")):
        with pytest.raises(NotSignedIn, match="name or password"):
            check(name, password)


def test_guessing_is_stopped_for_a_while(check, monkeypatch):
    class Refusing:
        def verify(self, *_):
            raise VerifyMismatchError

    monkeypatch.setattr("keyserver.admins._hasher", Refusing())
    monkeypatch.setattr("keyserver.admins._nobody", str)
    for _ in range(TRIES):
        with pytest.raises(NotSignedIn):
            check("admin", "guess")
    with pytest.raises(Denied, match="wait a minute"):
        check("admin", PASSWORD)
    with pytest.raises(NotSignedIn):
        check("admin", "guess", NOON + WINDOW)


def test_sessions_end(admins):
    secret = admins.begin_session("admin", NOON)
    assert admins.by_session(secret, NOON + SESSION_IDLE - 1) == "admin"
    with pytest.raises(NotSignedIn):
        admins.by_session(secret, NOON + 2 * SESSION_IDLE)
    secret = admins.begin_session("admin", NOON)
    for step in range(int(SESSION_TERM / 1000)):
        admins.by_session(secret, NOON + step * 1000)
    with pytest.raises(NotSignedIn):
        admins.by_session(secret, NOON + SESSION_TERM)
    secret = admins.begin_session("admin", NOON)
    admins.end_session(secret)
    with pytest.raises(NotSignedIn):
        admins.by_session(secret, NOON)
