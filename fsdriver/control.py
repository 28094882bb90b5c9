"""The running drive's control socket (`HOME/control.sock`): what `status`, `why`, `umount`, `import` and `export` ask.

One request a connection: a line of JSON, answered by a line of JSON (`{"ok": ...}` or `{"error": ..., "code": ...}`),
after which an export's bytes follow. The home is 0700, so only its owner and root reach the socket; the kernel says who
the peer is (SO_PEERCRED). A socket's address holds 107 bytes, a home's path any number: the address goes through a
descriptor of the home.
"""

import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fsdriver.errors import FsError
from fsdriver.exitcodes import ExitCode

log = logging.getLogger(__name__)

SOCKET = "control.sock"
_LINE_MAX = 1 << 20
_PEERCRED = struct.Struct("=iII")
_PATIENCE = 30.0


class Peer(NamedTuple):
    """Who is at the other end."""

    pid: int
    uid: int
    gid: int


class ControlError(Exception):
    """A request that cannot be served; `code` is the exit code of the command that asked."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


Answer = tuple[Any, Iterator[bytes] | None]
Method = Callable[[dict[str, Any], Peer], Answer]


class ControlServer:
    """Answers one home's control socket, each connection in a thread of its own."""

    def __init__(self, home: Path, methods: dict[str, Method]) -> None:
        self._path = home / SOCKET
        self._methods = methods
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)

    def start(self) -> None:
        """Listen. A socket left by a daemon that died is replaced; the store's lock keeps a live one away."""
        self._path.unlink(missing_ok=True)
        with _address(self._path.parent) as address:
            self._socket.bind(address)
        os.chmod(self._path, 0o600)
        self._socket.listen(16)
        self._thread.start()

    def stop(self) -> None:
        self._path.unlink(missing_ok=True)
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="control-request", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(_PATIENCE)
            try:
                credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
                with connection.makefile("rb") as lines:
                    request = json.loads(lines.readline(_LINE_MAX))
                answer, stream = self._call(request, Peer(*_PEERCRED.unpack(credentials)))
                connection.sendall(json.dumps({"ok": answer}).encode() + b"\n")
                _send(connection, stream or iter(()))
            except ControlError as exc:
                self._fail(connection, str(exc), exc.code)
            except FsError as exc:
                self._fail(connection, str(exc), ExitCode.DENIED)
            except FileNotFoundError as exc:
                self._fail(connection, f"{exc.filename or 'the file'}: no such file in the drive", ExitCode.NOT_FOUND)
            except (OSError, ValueError, RecursionError) as exc:
                self._fail(connection, str(exc), ExitCode.FAILED)

    def _call(self, request: Any, peer: Peer) -> Answer:
        if not isinstance(request, dict) or request.get("method") not in self._methods:
            raise ControlError("this drive does not know the request: is fsdriver newer than the running drive?")
        return self._methods[request["method"]](request, peer)

    @staticmethod
    def _fail(connection: socket.socket, message: str, code: ExitCode) -> None:
        try:
            connection.sendall(json.dumps({"error": message, "code": int(code)}).encode() + b"\n")
        except OSError:
            log.info("the asker of %r has gone", message)


def _send(connection: socket.socket, stream: Iterator[bytes]) -> None:
    """What follows an answer. It breaks off where something goes wrong: an error's text must not pass for content."""
    try:
        for block in stream:
            connection.sendall(block)
    except (FsError, OSError) as exc:
        log.warning("an answer was broken off: %s", exc)


def ask(home: Path, method: str, **arguments: Any) -> Any:
    """The running drive's answer. Errors: ControlError (NOT_READY: none runs, or it ended before it answered)."""
    with _connected(home) as connection, connection.makefile("rb") as answers:
        return _asked(connection, answers, method, arguments)


def ask_for_bytes(home: Path, method: str, **arguments: Any) -> Iterator[bytes]:
    """As `ask`, for an answer that is followed by content; its length is the answer."""
    with _connected(home) as connection, connection.makefile("rb") as answers:
        left = int(_asked(connection, answers, method, arguments))
        while left:
            try:
                block = answers.read(min(left, 1 << 20))
            except OSError:
                block = b""
            if not block:
                raise ControlError("the drive broke off: what was written is not whole")
            left -= len(block)
            yield block


def _connected(home: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_PATIENCE * 4)
    try:
        with _address(home) as address:
            connection.connect(address)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        raise ControlError(
            f"the drive of {home} is not mounted; mount it: fsdriver --home {home} mount", ExitCode.NOT_READY
        ) from None
    except OSError as exc:
        connection.close()
        code = ExitCode.DENIED if isinstance(exc, PermissionError) else ExitCode.FAILED
        raise ControlError(f"{home / SOCKET}: {exc.strerror}", code) from None
    return connection


@contextmanager
def _address(home: Path) -> Iterator[str]:
    """The socket's address, however long the path of its home."""
    directory = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET}"
    finally:
        os.close(directory)


def _asked(connection: socket.socket, answers: Any, method: str, arguments: dict[str, Any]) -> Any:
    try:
        connection.sendall(json.dumps({"method": method, **arguments}).encode() + b"\n")
        line = answers.readline(_LINE_MAX * 16)
    except TimeoutError:
        raise ControlError(f"the drive has not answered for {connection.gettimeout():g} seconds") from None
    except OSError as exc:
        line = b""
        log.debug("the drive has gone: %s", exc)
    if not line.endswith(b"\n"):  # a daemon that is killed lets go of its socket wherever it is
        raise ControlError("the drive is not running: it ended before it had answered", ExitCode.NOT_READY)
    answer = json.loads(line)
    if "ok" not in answer:
        raise ControlError(str(answer.get("error")), ExitCode(answer.get("code", 1)))
    return answer["ok"]
