import pytest

from keyserver.errors import Malformed, NotReady
from keyserver.serving import Listener


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("0.0.0.0:7443", "0.0.0.0", 7443), ("[::1]:0", "::1", 0), ("127.0.0.1:1", "127.0.0.1", 1)],
)
def test_a_listener_is_an_address_and_a_port(text, host, port):
    assert Listener.parse(text) == (host, port)


@pytest.mark.parametrize("text", ["", "7443", "localhost:1", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "1:2:3"])
def test_anything_else_is_refused(text):
    with pytest.raises(Malformed, match="ADDRESS:PORT"):
        Listener.parse(text)


def test_a_taken_port_is_named():
    with Listener("127.0.0.1", 0).open() as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NotReady, match=f"127.0.0.1:{port}"):
            Listener("127.0.0.1", port).open()
