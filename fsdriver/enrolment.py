"""Joining a company: keys are made here, the key server signs what it is shown, and the home is filled.

The order matters. The secret store is tried before the one-use token is spent, the server is verified before it sees
the token (`keyserver.client.enrol`), and config.json, which makes the home an enrolled one, is written last.
"""

import platform
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fsdriver.machine import MACHINE_KEY, SEALING_KEY, MachineConfig, MachineError, MachineHome
from keyserver.client import JoinToken, enrol
from keyserver.messages import EnrolRequest, EnrolResponse, Mode
from keyserver.sealing import SealingKey
from keyserver.secret_store import SecretSettings, SecretStoreError

__all__ = ["enrol_machine", "signing_request"]


def enrol_machine(
    home_path: Path,
    admin_url: str,
    token: str,
    *,
    store: Path,
    drive: Path,
    mode: Mode,
    secrets: SecretSettings,
    name: str = "",
    exec: bool = False,
    note: str = "",
    timeout: float = 15.0,
) -> MachineHome:
    """Makes `home_path` the home of a newly enrolled machine.

    Raises MachineError (home, token, secret store, or an answer that is not for us) or keyserver.client's errors.
    """
    try:
        parsed = JoinToken.parse(token)
    except ValueError as exc:
        raise MachineError(str(exc)) from exc
    home = MachineHome.create(home_path)
    name = name or platform.node() or "machine"
    key = ec.generate_private_key(ec.SECP256R1())
    sealing_key = SealingKey.generate()
    try:
        keep = home.secrets(secrets)
        keep.set(MACHINE_KEY, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
        keep.set(SEALING_KEY, sealing_key.private_bytes().hex())
    except SecretStoreError as exc:
        raise MachineError(f"the secret store does not work, so the token was not used: {exc}") from exc

    request = EnrolRequest("", name, mode, signing_request(key, name), sealing_key.public)
    response = enrol(admin_url, parsed, request, timeout=timeout)
    _check(response, key)
    home.write_authority(response.authority)
    home.write_certificate(response.certificate)
    home.write_config(
        MachineConfig(
            company=response.company,
            company_name=response.company_name,
            machine=response.machine,
            name=name,
            agent_url=response.agent_url,
            admin_url=admin_url,
            store=str(store.absolute()),
            drive=str(drive.absolute()),
            mode=mode,
            secrets=secrets,
            bundle_key=response.bundle_key,
            log_key=response.log_key,
            exec=exec,
            note=note,
        )
    )
    return home


def signing_request(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    """A PKCS#10 request in PEM. The name is for people: the server decides who the certificate says this is."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def _check(response: EnrolResponse, key: ec.EllipticCurvePrivateKey) -> None:
    try:
        certificate = x509.load_pem_x509_certificate(response.certificate.encode())
        authority = x509.load_pem_x509_certificate(response.authority.encode())
        certificate.verify_directly_issued_by(authority)
        bytes.fromhex(response.company), bytes.fromhex(response.machine)
    except (ValueError, TypeError, InvalidSignature) as exc:
        raise MachineError(f"the server's answer does not verify: {exc or type(exc).__name__}") from exc
    if certificate.public_key() != key.public_key():
        raise MachineError("the server's certificate is for another key than this machine's")
    if len(response.bundle_key) != 32 or len(response.log_key) != 32:
        raise MachineError("the server's signing keys are malformed")
