import select
import socket
import threading
from contextlib import contextmanager

import pytest

from fsdriver.control import SOCKET, ControlError, ControlServer, Method, ask, ask_for_bytes
from fsdriver.exitcodes import ExitCode


@contextmanager
def served(home):
    """A drive's control socket in `home`: its methods, for the test to fill in."""
    methods: dict[str, Method] = {}
    server = ControlServer(home, methods)
    server.start()
    yield methods
    server.stop()


@pytest.fixture
def server(tmp_path):
    with served(tmp_path) as methods:
        yield methods


@pytest.fixture
def daemon(tmp_path):
    """`daemon(act)`: one that does `act` with the one connection it gets, and is gone."""
    threads = []

    def daemon(act):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / SOCKET))
        listener.listen(1)

        def run():
            with listener:
                act(listener)

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield daemon
    for thread in threads:
        thread.join()


def test_a_request_is_answered_with_who_asked(server, tmp_path):
    server["echo"] = lambda request, peer: ([request["word"], peer.pid > 0], None)
    assert ask(tmp_path, "echo", word="x") == ["x", True]


def test_content_follows_an_answer(server, tmp_path):
    server["bytes"] = lambda request, peer: (6, iter([b"abc", b"def"]))
    assert b"".join(ask_for_bytes(tmp_path, "bytes")) == b"abcdef"


def test_a_refusal_has_its_exit_code(server, tmp_path):
    def refused(request, peer):
        raise ControlError("not you", ExitCode.DENIED)

    server["refused"] = refused
    with pytest.raises(ControlError, match="not you") as failed:
        ask(tmp_path, "refused")
    assert failed.value.code == ExitCode.DENIED


@pytest.mark.parametrize("length", [90, 107, 108, 255, 1000])
def test_a_home_with_a_long_path(tmp_path, length):
    home = tmp_path
    while (left := length - len(f"{home}/{SOCKET}")) > 1:
        home /= "x" * min(left - 1, 200)
    home.mkdir(parents=True, exist_ok=True)
    with served(home) as methods:
        methods["where"] = lambda request, peer: ("here", None)
        assert ask(home, "where") == "here"
        assert (home / SOCKET).stat().st_mode & 0o777 == 0o600
    assert not (home / SOCKET).exists()


def test_nobody_listens(tmp_path):
    for home in (tmp_path, tmp_path / "none"):
        with pytest.raises(ControlError, match="is not mounted") as failed:
            ask(home, "status")
        assert failed.value.code == ExitCode.NOT_READY


def answers(connection, text):
    connection.recv(1 << 16)
    connection.sendall(text)


def closes(listener):
    listener.accept()[0].close()


def closes_after(text):
    def act(listener):
        connection, _ = listener.accept()
        with connection:
            answers(connection, text)

    return act


def resets(listener):
    """Closed with the request unread: the asker's read ends with ECONNRESET."""
    connection, _ = listener.accept()
    connection.recv(1, socket.MSG_PEEK)
    connection.close()


def never_accepts(listener):
    """Gone with the connection and its request in the backlog."""
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    waiting.poll()


@pytest.mark.parametrize(
    "act",
    [closes, closes_after(b""), closes_after(b'{"ok": {"pid":'), resets, never_accepts],
    ids=lambda act: act.__name__,
)
def test_a_daemon_that_is_killed_while_it_is_asked(daemon, tmp_path, act):
    daemon(act)
    with pytest.raises(ControlError, match="not running: it ended before it had answered") as failed:
        ask(tmp_path, "umount")
    assert failed.value.code == ExitCode.NOT_READY


def test_a_daemon_that_is_killed_while_it_sends_content(daemon, tmp_path):
    def half(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(10)  # what is left unread resets the connection
            connection.sendall(b'{"ok": 1000}\nabc')

    daemon(half)
    with pytest.raises(ControlError, match="broke off") as failed:
        list(ask_for_bytes(tmp_path, "export", file="/x"))
    assert failed.value.code == ExitCode.FAILED
