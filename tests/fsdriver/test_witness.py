import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fsdriver.witness import Checkpoint, LogContradicted, follow
from tests.loopback import COMPANY

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw()
ORIGIN = f"grantfs.invalid/log/{COMPANY}"


def note(size, root=bytes(32), key=KEY, origin=ORIGIN, others=""):
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    public = key.public_key().public_bytes_raw()
    identity = hashlib.sha256(origin.encode() + b"\n\x01" + public).digest()[:4]
    signature = base64.b64encode(identity + key.sign(text.encode())).decode()
    return f"{text}\n{others}— {origin} {signature}\n"


def parsed(text):
    return Checkpoint.parse(text, company=COMPANY, key=PUBLIC)


def test_a_signed_checkpoint_is_read():
    assert parsed(note(7, b"r" * 32))[:2] == (7, b"r" * 32)
    assert parsed(note(7, others="— somebody.example/witness AAAA\n")).size == 7


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        note(7, key=Ed25519PrivateKey.generate()),
        note(7, origin="grantfs.invalid/log/00"),
        note(7).replace("\n7\n", "\n8\n"),
        note(7).rpartition("—")[0],
        note("many"),
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(LogContradicted):
        parsed(text)


def test_a_log_may_grow_and_nothing_else():
    first = follow(None, parsed(note(7)))
    assert follow(first, parsed(note(7))) == first
    assert follow(first, parsed(note(9, b"x" * 32))).size == 9
    with pytest.raises(LogContradicted, match="had 7"):
        follow(first, parsed(note(6)))
    with pytest.raises(LogContradicted, match="not those"):
        follow(first, parsed(note(7, b"x" * 32)))
