import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyserver.auditlog.checkpoint import Checkpoint, CheckpointInvalid, origin, sign, verify

COMPANY = "0c" * 16
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
CHECKPOINT = Checkpoint(origin(COMPANY), 42, bytes(range(32)))


def test_a_checkpoint_is_a_c2sp_signed_note():
    assert sign(CHECKPOINT, KEY) == (
        "grantfs.invalid/log/0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c\n42\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n\n"
        "— grantfs.invalid/log/0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c " + sign(CHECKPOINT, KEY).rsplit(" ", 1)[1]
    )
    assert verify(sign(CHECKPOINT, KEY), COMPANY, PUBLIC) == CHECKPOINT


def test_signatures_of_others_are_left_to_others():
    note = sign(CHECKPOINT, KEY) + "— witness.example dGhpcyBpcyBubyBzaWduYXR1cmU=\n"
    assert verify(note, COMPANY, PUBLIC) == CHECKPOINT


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda note: note.replace("\n42\n", "\n43\n"), "signature is not the log's"),
        (lambda note: note.replace("AAEC", "AAED"), "signature is not the log's"),
        (lambda note: note.replace("\n42\n", "\n042\n"), "not a checkpoint"),
        (lambda note: note.replace("AAEC", ""), "32 bytes"),
        (lambda note: note.replace("AAEC", "A"), "base64|32 bytes"),
        (lambda note: note.replace("0c0c", "0d0d"), "a checkpoint of"),
        (lambda note: note[: note.index("—")] + "— other AAAA\n", "no signature by the log's key"),
        (lambda note: note[:-2] + "\n", "base64"),
        (lambda note: "", "not a checkpoint"),
    ],
)
def test_a_changed_checkpoint_is_refused(change, problem):
    with pytest.raises(CheckpointInvalid, match=problem):
        verify(change(sign(CHECKPOINT, KEY)), COMPANY, PUBLIC)


def test_another_key_is_refused():
    with pytest.raises(CheckpointInvalid, match="no signature by the log's key"):
        verify(sign(CHECKPOINT, Ed25519PrivateKey.generate()), COMPANY, PUBLIC)
