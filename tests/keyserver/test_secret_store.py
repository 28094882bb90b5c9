import os
import shutil
import subprocess
import sys

import keyring.backend
import msgspec
import pytest

from keyserver.secret_backends import SealedFileKeyring
from keyserver.secret_store import SecretSettings, SecretStoreError, open_store


@pytest.fixture
def passphrase_file(tmp_path):
    path = tmp_path / "passphrase"
    path.write_text("correct horse\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def home(tmp_path):
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def settings(passphrase_file):
    return SecretSettings("sealed-file", f"file:{passphrase_file}")


def opened(settings, home):
    return open_store(settings, home=home, service="fsdriver")


def test_a_secret_is_there_in_the_next_process(settings, home):
    opened(settings, home).set("machine-key", "canary-of-the-key")
    assert opened(settings, home).require("machine-key") == "canary-of-the-key"
    assert opened(settings, home).get("other") is None
    stored = (home / "secrets.sealed").read_bytes()
    assert b"canary" not in stored
    assert (home / "secrets.sealed").stat().st_mode & 0o777 == 0o600


def test_a_wrong_passphrase_is_refused_before_anything_is_written(settings, home, passphrase_file):
    opened(settings, home).set("a", "1")
    before = (home / "secrets.sealed").read_bytes()
    passphrase_file.write_text("wrong")
    with pytest.raises(SecretStoreError, match="wrong passphrase"):
        opened(settings, home).get("a")
    with pytest.raises(SecretStoreError, match="wrong passphrase"):
        opened(settings, home).set("b", "2")
    assert (home / "secrets.sealed").read_bytes() == before


def test_an_entry_moved_to_another_name_does_not_open(settings, home):
    store = opened(settings, home)
    store.set("a", "1")
    store.set("b", "2")
    path = home / "secrets.sealed"
    content = msgspec.json.decode(path.read_bytes())
    content["entries"]["fsdriver/b"] = content["entries"]["fsdriver/a"]
    path.write_bytes(msgspec.json.encode(content))
    with pytest.raises(SecretStoreError):
        opened(settings, home).get("b")
    assert opened(settings, home).get("a") == "1"


def test_delete_forgets(settings, home):
    store = opened(settings, home)
    store.set("a", "1")
    store.delete("a")
    assert store.get("a") is None
    with pytest.raises(SecretStoreError):
        store.delete("a")


def test_a_damaged_or_open_file_is_refused(settings, home):
    opened(settings, home).set("a", "1")
    path = home / "secrets.sealed"
    path.chmod(0o644)
    with pytest.raises(SecretStoreError, match="0600"):
        opened(settings, home).get("a")
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(SecretStoreError, match="damaged"):
        opened(settings, home).get("a")


def test_absurd_derivation_parameters_are_refused(settings, home):
    opened(settings, home).set("a", "1")
    path = home / "secrets.sealed"
    content = msgspec.json.decode(path.read_bytes())
    content["derivation"]["memory_kib"] = 1 << 30
    path.write_bytes(msgspec.json.encode(content))
    with pytest.raises(SecretStoreError, match="no sense"):
        opened(settings, home).get("a")


def test_a_crash_while_writing_leaves_the_old_file(settings, home, monkeypatch):
    store = opened(settings, home)
    store.set("a", "1")

    def fail(*_, **__):
        raise OSError(5, "injected")

    for call in ("pathlib.Path.unlink", "os.open", "os.fsync", "pathlib.Path.rename"):
        with monkeypatch.context() as patch:
            patch.setattr(call, fail)
            with pytest.raises(SecretStoreError):
                store.set("a", "2")
        assert opened(settings, home).get("a") == "1"
    store.set("a", "3")
    assert opened(settings, home).get("a") == "3"


def test_the_passphrase_file_lies_outside_the_home_and_is_private(home, passphrase_file):
    inside = home / "passphrase"
    shutil.copy(passphrase_file, inside)
    with pytest.raises(SecretStoreError, match="inside"):
        opened(SecretSettings("sealed-file", f"file:{inside}"), home).set("a", "1")
    passphrase_file.chmod(0o640)
    with pytest.raises(SecretStoreError, match="0600"):
        opened(SecretSettings("sealed-file", f"file:{passphrase_file}"), home).set("a", "1")


def test_a_passphrase_from_a_descriptor_or_a_credential(home, tmp_path, monkeypatch):
    read, write = os.pipe()
    os.write(write, b"over the pipe")
    os.close(write)
    store = opened(SecretSettings("sealed-file", f"fd:{read}"), home)
    store.set("a", "1")
    assert store.get("a") == "1"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "gfs").write_text("over the pipe")
    assert opened(SecretSettings("sealed-file", "credential:gfs"), home).get("a") == "1"


@pytest.mark.parametrize("source", ["", "env:X", "fd:x", "fd:9999", "file:relative", "credential:../x", "prompt:x"])
def test_an_unusable_passphrase_source_is_named(source, home):
    with pytest.raises(SecretStoreError, match="passphrase|CREDENTIALS"):
        opened(SecretSettings("sealed-file", source), home).set("a", "1")


@pytest.mark.parametrize("name", ["keyrings.alt.file.PlaintextKeyring", "chainer", "", "auto"])
def test_only_named_backends_of_ours_are_taken(name, home):
    with pytest.raises(SecretStoreError, match="sealed-file, systemd-creds, secret-service"):
        opened(SecretSettings(name), home)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"backend": name}, SecretSettings)


def test_keyring_never_picks_our_backends_by_itself():
    assert SealedFileKeyring in keyring.backend.KeyringBackend._classes
    assert SealedFileKeyring not in set(keyring.backend.KeyringBackend.get_viable_backends())


def test_the_environment_cannot_redirect_the_file(settings, home, monkeypatch):
    monkeypatch.setenv("KEYRING_PROPERTY__PATH", "/tmp/elsewhere")
    opened(settings, home).set("a", "1")
    assert (home / "secrets.sealed").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="systemd-creds needs root")
@pytest.mark.skipif(not shutil.which("systemd-creds"), reason="no systemd-creds")
def test_systemd_creds_keeps_a_secret(home):
    store = opened(SecretSettings("systemd-creds"), home)
    assert store.get("machine-key") is None
    store.set("machine-key", "canary-of-the-key")
    assert opened(SecretSettings("systemd-creds"), home).get("machine-key") == "canary-of-the-key"
    (path,) = (home / "secrets").iterdir()
    assert b"canary" not in path.read_bytes()
    (home / "secrets" / "grantfs.fsdriver.other.cred").write_bytes(path.read_bytes())
    with pytest.raises(SecretStoreError):
        store.get("other")
    store.delete("machine-key")
    assert store.get("machine-key") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="tests what root is told")
def test_the_secret_service_is_not_for_root(home):
    with pytest.raises(SecretStoreError, match="plain users"):
        opened(SecretSettings("secret-service"), home)


def test_a_store_opened_twice_writes_no_plaintext_anywhere(settings, home):
    """The whole home is searched, temporary and lock files included."""
    code = (
        "from pathlib import Path; import sys; from keyserver.secret_store import *;"
        "open_store(SecretSettings('sealed-file', sys.argv[1]), home=Path(sys.argv[2]), service='fsdriver')"
        ".set('k', 'canary-of-the-key')"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, settings.passphrase, str(home)], check=True)
    for path in home.rglob("*"):
        assert b"canary" not in path.read_bytes()
