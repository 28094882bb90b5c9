"""The CLI's side of the admin port: HTTPS to the running server, which the home's CA certificate vouches for."""

import http.client
import ssl
from typing import Any
from urllib.parse import urlsplit

import msgspec

from keyserver import errors
from keyserver.errors import KeyServerError, NotReady
from keyserver.home import Home
from keyserver.messages import API, Failure

TIMEOUT_SECONDS = 60.0


class AdminClient:
    """One command's conversation. Raises the error the server answered, or `NotReady` where none answers."""

    def __init__(self, home: Home) -> None:
        home.config()
        self.url = home.addresses().admin_url
        where = urlsplit(self.url)
        context = ssl.create_default_context(cafile=str(home.authority_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        assert where.hostname is not None
        self._connection = http.client.HTTPSConnection(
            where.hostname, where.port, context=context, timeout=TIMEOUT_SECONDS
        )
        try:
            self._token = home.admin_token_file.read_text().strip()
        except OSError as exc:
            raise NotReady(f"no admin token: {exc}") from None

    def get(self, path: str) -> Any:
        return self._ask("GET", path, None)

    def post(self, path: str, body: object = None) -> Any:
        return self._ask("POST", path, msgspec.json.encode(body) if body is not None else b"")

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        try:
            self._connection.request(method, API + path, body, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as exc:
            raise NotReady(f"the server at {self.url} does not answer: {exc}") from None
        if answer.status < 400:
            return msgspec.json.decode(content)
        raise _error(answer.status, content)


def _error(status: int, content: bytes) -> KeyServerError:
    try:
        failure = msgspec.json.decode(content, type=Failure)
    except msgspec.MsgspecError:
        return NotReady(f"the server answered {status}, not as a key server does")
    kinds = {kind.word: kind for kind in (errors.Denied, errors.Malformed, errors.NotFound, errors.Conflict, NotReady)}
    return kinds.get(failure.error, KeyServerError)(failure.message)
