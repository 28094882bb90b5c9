import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from keyserver.ca.authority import DAY, Authority
from keyserver.ca.names import Peer
from keyserver.errors import Denied, Malformed
from tests.keyserver.company import NOON, make_csr

COMPANY = "0c" * 16
MACHINE = "0a" * 16
KEY = ec.generate_private_key(ec.SECP256R1())
AUTHORITY = Authority.create(COMPANY, "Acme", ["keys.example", "192.0.2.7"], NOON)


def der(certificate):
    return certificate.public_bytes(Encoding.DER)


def test_a_machines_certificate_says_who_it_is_for_a_day():
    peer = Peer.parse(der(AUTHORITY.issue_machine(MACHINE, make_csr(KEY), NOON)))
    assert (peer.company, peer.machine) == (COMPANY, MACHINE)
    assert peer.not_before < NOON
    assert peer.not_after == NOON + DAY


def test_nothing_else_is_taken_from_the_request():
    asked = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "the other machine")])
    other = x509.SubjectAlternativeName([x509.DNSName("keys.example")])
    ca = x509.BasicConstraints(ca=True, path_length=None)
    builder = x509.CertificateSigningRequestBuilder().subject_name(asked).add_extension(other, critical=False)
    request = builder.add_extension(ca, critical=True).sign(KEY, hashes.SHA256())
    issued = AUTHORITY.issue_machine(MACHINE, request.public_bytes(Encoding.PEM).decode(), NOON)
    assert Peer.parse(der(issued)).machine == MACHINE
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert "the other machine" not in issued.subject.rfc4514_string()


@pytest.mark.parametrize(
    "csr",
    [
        "",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        make_csr(rsa.generate_private_key(65537, 2048)),
        make_csr(ec.generate_private_key(ec.SECP384R1())),
    ],
    ids=["empty", "garbage", "rsa", "p384"],
)
def test_requests_that_are_none_are_malformed(csr):
    with pytest.raises(Malformed):
        AUTHORITY.issue_machine(MACHINE, csr, NOON)


def test_a_request_signed_by_another_key_is_malformed():
    good = x509.load_pem_x509_csr(make_csr(KEY).encode()).public_bytes(Encoding.DER)
    forged = x509.load_der_x509_csr(good[:-4] + bytes(4))
    with pytest.raises(Malformed):
        AUTHORITY.issue_machine(MACHINE, forged.public_bytes(Encoding.PEM).decode(), NOON)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "keys.example", "b.keys.example", "192.0.2.7"])
def test_the_server_may_have_the_names_given_at_init(name):
    issued = AUTHORITY.issue_server(KEY.public_key(), [name], NOON)
    with pytest.raises(Denied):
        Peer.parse(der(issued))


@pytest.mark.parametrize("name", ["example", "xkeys.example", "192.0.2.8", "2001:db8::1"])
def test_the_server_may_have_no_other_name(name):
    with pytest.raises(Malformed, match="--name"):
        AUTHORITY.issue_server(KEY.public_key(), [name], NOON)


def test_an_authority_is_the_same_after_loading():
    again = Authority.load(COMPANY, AUTHORITY.pem.encode(), AUTHORITY.private_bytes())
    assert again.fingerprint == AUTHORITY.fingerprint
    issued = again.issue_machine(MACHINE, make_csr(KEY), NOON)
    issued.verify_directly_issued_by(AUTHORITY.certificate)


def test_what_is_no_certificate_names_nobody():
    with pytest.raises(Denied):
        Peer.parse(b"")
    name = x509.Name([])
    bare = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    bare = bare.serial_number(1).not_valid_before(AUTHORITY.certificate.not_valid_before_utc)
    bare = bare.not_valid_after(AUTHORITY.certificate.not_valid_after_utc)
    key = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(Denied):
        Peer.parse(der(bare.sign(key, None)))
