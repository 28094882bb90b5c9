"""Issues certificates. The CA's key exists in memory while the server runs, and wrapped under the root key else.

The CA is constrained (RFC 5280 4.2.1.10) to the server's names given at `init` and to this company's machine URIs: who
imports it into a browser trusts it for nothing else.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from hashlib import sha256
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyserver.ca.names import machine_uri
from keyserver.errors import Malformed

DAY = 86_400.0
AUTHORITY_TERM = 3650 * DAY
MACHINE_TERM = DAY
SERVER_TERM = 30 * DAY
CLOCK_SKEW = 300.0
"""Certificates begin this much in the past, for machines whose clock is behind."""

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class Authority:
    """The company's CA."""

    def __init__(self, company: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.company = company
        self.certificate = certificate
        self._key = key
        self.pem = certificate.public_bytes(Encoding.PEM).decode()
        self.fingerprint = sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        """SHA-256 of the DER form, hex: what join tokens carry."""

    @classmethod
    def create(cls, company: str, company_name: str, names: Sequence[str], now: float) -> Self:
        """A new CA whose server may be called `names` and below (DNS), or have these IP addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, company_name[:64]),
                x509.NameAttribute(NameOID.COMMON_NAME, f"GrantFS {company[:8]}"),
            ]
        )
        permitted: list[x509.GeneralName] = [_subtree(name) for name in dict.fromkeys((*LOCAL_NAMES, *names))]
        permitted.append(x509.UniformResourceIdentifier(company))
        certificate = (
            _builder(subject, subject, key.public_key(), now, AUTHORITY_TERM)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.NameConstraints(permitted, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(company, certificate, key)

    @classmethod
    def load(cls, company: str, pem: bytes, private_key: bytes) -> Self:
        """`private_key` is what `private_bytes` gave."""
        key = load_der_private_key(private_key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(company, x509.load_pem_x509_certificate(pem), key)

    def private_bytes(self) -> bytes:
        """PKCS#8 DER: to be wrapped under the root key and nothing else."""
        return self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def issue_machine(self, machine: str, csr: str, now: float) -> x509.Certificate:
        """A machine's certificate for the key in `csr`; of what else the request says, nothing is taken.

        Raises `Malformed`.
        """
        try:
            request = x509.load_pem_x509_csr(csr.encode())
            key = request.public_key()
            if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
                raise Malformed("the certificate request must be for a P-256 key")
            if not request.is_signature_valid:
                raise Malformed("the certificate request is not signed by its own key")
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise Malformed(f"not a certificate request: {exc}") from None
        uri = x509.UniformResourceIdentifier(machine_uri(self.company, machine))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, machine)])
        return self._issue(subject, key, [uri], ExtendedKeyUsageOID.CLIENT_AUTH, now, MACHINE_TERM)

    def issue_server(self, key: ec.EllipticCurvePublicKey, names: Sequence[str], now: float) -> x509.Certificate:
        """The server's own certificate, for localhost and `names`. Raises `Malformed` outside the CA's constraints."""
        wanted = [_name(name) for name in dict.fromkeys((*LOCAL_NAMES, *names))]
        for name in wanted:
            if not self._permits(name):
                raise Malformed(f"{name.value} is not among the names given at `keyserver init --name`")
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "GrantFS key server")])
        return self._issue(subject, key, wanted, ExtendedKeyUsageOID.SERVER_AUTH, now, SERVER_TERM)

    def _issue(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        names: Sequence[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        now: float,
        term: float,
    ) -> x509.Certificate:
        issuer = self.certificate
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            _builder(subject, issuer.subject, key, now, term)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(signer, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _permits(self, name: x509.GeneralName) -> bool:
        constraints = self.certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        return any(_within(name, permitted) for permitted in constraints.permitted_subtrees or ())

    def __repr__(self) -> str:
        return f"<Authority {self.company}>"


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: float, term: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(now - CLOCK_SKEW, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(now + term, datetime.UTC))
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _name(name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _within(name: x509.GeneralName, permitted: x509.GeneralName) -> bool:
    if isinstance(name, x509.DNSName) and isinstance(permitted, x509.DNSName):
        return name.value == permitted.value or name.value.endswith(f".{permitted.value}")
    if isinstance(name, x509.IPAddress) and isinstance(permitted, x509.IPAddress):
        address, network = name.value, ipaddress.ip_network(permitted.value)
        return isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address) and address in network
    return False


def _subtree(name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_network(name))
    except ValueError:
        return x509.DNSName(name)
