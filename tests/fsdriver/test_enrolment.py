import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fsdriver.enrolment import enrol_machine
from fsdriver.machine import MachineError, MachineHome
from keyserver import messages as m
from keyserver.client import TokenRefused, WrongAuthority
from keyserver.sealing import check_public_key
from keyserver.secret_store import SecretSettings
from tests.loopback import COMPANY, MACHINE, Company, KeyServer, failure


@pytest.fixture(scope="module")
def company():
    return Company()


@pytest.fixture
def admin(company, tmp_path):
    server = KeyServer(company, tmp_path, mutual=False)

    def enrolled(body):
        request = msgspec.json.decode(body, type=m.EnrolRequest)
        check_public_key(request.sealing_key)
        csr = x509.load_pem_x509_csr(request.csr.encode())
        assert csr.is_signature_valid
        certificate = company.issue(csr.public_key())
        return m.EnrolResponse(
            MACHINE, COMPANY, "Example", certificate, company.pem, "https://127.0.0.1:1", b"b" * 32, b"l" * 32
        )

    server.answers.by_path["/enrol"] = enrolled
    yield server
    server.stop()


@pytest.fixture
def options(tmp_path):
    (tmp_path / "passphrase").write_text("secret")
    (tmp_path / "passphrase").chmod(0o600)
    secrets = SecretSettings("sealed-file", f"file:{tmp_path / 'passphrase'}")
    return {"store": tmp_path / "store", "drive": tmp_path / "drive", "mode": "root", "secrets": secrets}


def token(company):
    return f"gfs1.0123456789abcdef.{'5e' * 32}.{company.fingerprint}"


def test_a_machine_joins_with_keys_that_stay_with_it(company, admin, options, tmp_path):
    home = enrol_machine(tmp_path / "home", admin.url, token(company), name="desk-1", **options)
    again = MachineHome.open(home.path)
    config = again.config()
    assert (config.company, config.machine, config.name) == (COMPANY, MACHINE, "desk-1")
    assert config.store == str(tmp_path / "store")
    identity = again.identity()
    certificate = x509.load_pem_x509_certificate(identity.certificate.encode())
    assert certificate.public_key() == identity.key.public_key()
    assert isinstance(identity.key.curve, ec.SECP256R1)

    (request,) = (msgspec.json.decode(r.body, type=m.EnrolRequest) for r in admin.answers.requests)
    assert request.sealing_key == identity.sealing_key.public
    secret = format(identity.key.private_numbers().private_value, "x").encode()
    public = identity.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for path in home.path.rglob("*"):
        content = path.read_bytes()
        assert b"PRIVATE KEY" not in content
        assert secret not in content
        assert identity.sealing_key.private_bytes() not in content
        assert path.stat().st_mode & 0o077 == 0
    assert public not in b"".join(r.body for r in admin.answers.requests if b"PRIVATE" in r.body)


@pytest.mark.parametrize(
    "secrets",
    [
        SecretSettings("sealed-file", "file:/nowhere/passphrase"),
        SecretSettings("sealed-file", ""),
        SecretSettings("keyrings.alt.file.PlaintextKeyring"),  # type: ignore[arg-type]
    ],
)
def test_the_token_is_not_spent_when_the_keys_cannot_be_kept(company, admin, options, tmp_path, secrets):
    with pytest.raises(MachineError):
        enrol_machine(tmp_path / "home", admin.url, token(company), **options | {"secrets": secrets})
    assert admin.answers.requests == []


def test_a_refused_token_leaves_a_home_that_can_be_tried_again(company, admin, options, tmp_path):
    working = admin.answers.by_path["/enrol"]
    admin.answers.by_path["/enrol"] = lambda body: failure(403, "token-used")
    with pytest.raises(TokenRefused):
        enrol_machine(tmp_path / "home", admin.url, token(company), **options)
    with pytest.raises(MachineError):
        MachineHome.open(tmp_path / "home")
    admin.answers.by_path["/enrol"] = working
    enrol_machine(tmp_path / "home", admin.url, token(company), **options)
    with pytest.raises(MachineError, match="already"):
        enrol_machine(tmp_path / "home", admin.url, token(company), **options)


def test_a_server_in_between_gets_nothing(admin, options, tmp_path):
    with pytest.raises(WrongAuthority):
        enrol_machine(tmp_path / "home", admin.url, token(Company("Other")), **options)
    assert admin.answers.requests == []
    with pytest.raises(MachineError, match="join token"):
        enrol_machine(tmp_path / "home", admin.url, "gfs1.x", **options)


def test_a_certificate_for_another_key_is_refused(company, admin, options, tmp_path):
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    answer = m.EnrolResponse(
        MACHINE, COMPANY, "Example", company.issue(other), company.pem, "https://x", b"b" * 32, b"l" * 32
    )
    admin.answers.by_path["/enrol"] = lambda body: answer
    with pytest.raises(MachineError, match="another key"):
        enrol_machine(tmp_path / "home", admin.url, token(company), **options)
