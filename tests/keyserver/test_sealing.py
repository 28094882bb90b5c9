import pickle
from dataclasses import replace

import pytest

from keyserver.sealing import SEALED_SIZE, Binding, SealingError, SealingKey, SecretKey, check_public_key, seal

LEASE = Binding("lease", "c0", "m1", "aa" * 16, "bb" * 16, 3)


def test_what_is_sealed_to_a_machine_opens_there():
    machine = SealingKey.generate()
    key = SecretKey.generate("clients")
    sealed = seal(key, machine.public, LEASE)
    assert len(sealed) == SEALED_SIZE
    assert machine.open(sealed, LEASE) == key


@pytest.mark.parametrize(
    "other",
    [
        replace(LEASE, purpose="grant"),
        replace(LEASE, company="c1"),
        replace(LEASE, machine="m2"),
        replace(LEASE, subject="ab" * 16),
        replace(LEASE, key_id="bc" * 16),
        replace(LEASE, version=4),
        replace(LEASE, company="c0m", machine="1"),
    ],
)
def test_a_sealed_key_opens_for_its_own_purpose_only(other):
    machine = SealingKey.generate()
    sealed = seal(SecretKey.generate(), machine.public, LEASE)
    with pytest.raises(SealingError):
        machine.open(sealed, other)


def test_another_machine_cannot_open_it():
    sealed = seal(SecretKey.generate(), SealingKey.generate().public, LEASE)
    with pytest.raises(SealingError):
        SealingKey.generate().open(sealed, LEASE)


@pytest.mark.parametrize("place", [0, 1, 700, 1100, SEALED_SIZE - 1])
def test_a_flipped_bit_is_refused(place):
    machine = SealingKey.generate()
    sealed = bytearray(seal(SecretKey.generate(), machine.public, LEASE))
    sealed[place] ^= 1
    with pytest.raises(SealingError):
        machine.open(bytes(sealed), LEASE)


@pytest.mark.parametrize("bad", [b"", b"\x01", b"\x02" + bytes(1216), b"\x01" + b"\xff" * 1216])
def test_a_malformed_public_key_is_refused(bad):
    with pytest.raises(SealingError):
        check_public_key(bad)
    with pytest.raises(SealingError):
        seal(SecretKey.generate(), bad, LEASE)


def test_a_sealing_key_survives_the_secret_store():
    machine = SealingKey.generate()
    again = SealingKey.from_private_bytes(machine.private_bytes())
    assert again.public == machine.public
    key = SecretKey.generate()
    assert again.open(seal(key, machine.public, LEASE), LEASE) == key
    with pytest.raises(SealingError):
        SealingKey.from_private_bytes(machine.private_bytes()[1:])


def test_no_repr_and_no_pickle_shows_key_bytes():
    value = b"canary-canary-canary-canary-1234"
    key = SecretKey(value, "sales/clients")
    for text in (repr(key), str(key), f"{key}", repr([key])):
        assert "canary" not in text
        assert "sales/clients" in text
    for secret in (key, SealingKey.generate()):
        with pytest.raises(TypeError):
            pickle.dumps(secret)
    with pytest.raises(TypeError):
        hash(key)


def test_a_wiped_key_is_not_read_as_zeros():
    key = SecretKey.generate("clients")
    key.wipe()
    key.wipe()
    assert key.wiped
    with pytest.raises(SealingError, match="clients"):
        bytes(key)
