import msgspec
import pytest

from fsdriver.machine import LastSync, MachineConfig, MachineError, MachineHome
from keyserver.messages import SignedBundle
from keyserver.secret_store import SecretSettings


@pytest.fixture
def config(tmp_path):
    return MachineConfig(
        company="c0" * 16,
        company_name="Example",
        machine="a1" * 16,
        name="desk-1",
        agent_url="https://127.0.0.1:1",
        admin_url="https://127.0.0.1:2",
        store="/srv/store",
        drive="/srv/drive",
        mode="root",
        secrets=SecretSettings("sealed-file", f"file:{tmp_path}/passphrase"),
        bundle_key=b"b" * 32,
        log_key=b"l" * 32,
    )


@pytest.fixture
def home(tmp_path, config):
    home = MachineHome.create(tmp_path / "home")
    home.write_config(config)
    return home


def test_a_home_is_private_and_enrolled_once(home, config):
    assert home.path.stat().st_mode & 0o777 == 0o700
    assert MachineHome.open(home.path).config() == config
    with pytest.raises(MachineError, match="already"):
        MachineHome.create(home.path)
    home.path.chmod(0o750)
    with pytest.raises(MachineError, match="0700"):
        MachineHome.open(home.path)


def test_a_home_that_is_not_there_names_the_command(tmp_path):
    with pytest.raises(MachineError, match="fsdriver enroll"):
        MachineHome.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir(mode=0o700)
    with pytest.raises(MachineError, match="fsdriver enroll"):
        MachineHome.open(tmp_path / "empty")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"unheard_of": 1}, "unheard_of"),
        ({"mode": "other"}, "mode"),
        ({"machine": None}, "machine"),
        ({"secrets": {"backend": "keyrings.alt.file.PlaintextKeyring"}}, "secrets.backend"),
    ],
)
def test_a_wrong_setting_is_named(home, change, named):
    path = home.path / "config.json"
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(path.read_bytes()) | change))
    with pytest.raises(MachineError, match=named):
        home.config()


def test_the_last_sync_is_kept_and_a_damaged_one_is_none(home):
    assert home.last_sync() is None
    last = LastSync(SignedBundle(3, b"{}", b"s"), {"1000": "li"}, 5.0, "checkpoint")
    home.write_last_sync(last)
    assert home.last_sync() == last
    path = home.path / "last-sync.json"
    path.write_bytes(path.read_bytes()[:-3])
    assert home.last_sync() is None


def test_an_identity_without_keys_says_so(home, tmp_path):
    (tmp_path / "passphrase").write_text("secret")
    (tmp_path / "passphrase").chmod(0o600)
    with pytest.raises(MachineError, match="machine-key"):
        home.identity()
