"""Who a certificate speaks for: a machine is a URI, `spiffe://<company id>/machine/<machine id>`."""

import re
from typing import NamedTuple, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyserver.errors import Denied

_MACHINE = re.compile(r"spiffe://(?P<company>[0-9a-f]{32})/machine/(?P<machine>[0-9a-f]{32})")


def machine_uri(company: str, machine: str) -> str:
    return f"spiffe://{company}/machine/{machine}"


class Peer(NamedTuple):
    """What a verified client certificate says. That its chain is ours has been checked by TLS."""

    company: str
    machine: str
    serial: str
    not_before: float
    not_after: float
    public_key: bytes
    """SubjectPublicKeyInfo, DER."""

    @classmethod
    def parse(cls, der: bytes) -> Self:
        """Raises `Denied` where the certificate is not a machine's."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
            raise Denied("the client certificate names nobody") from None
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        match = _MACHINE.fullmatch(uris[0]) if len(uris) == 1 else None
        if match is None:
            raise Denied("the client certificate is not a machine's")
        return cls(
            match["company"],
            match["machine"],
            serial_hex(certificate.serial_number),
            certificate.not_valid_before_utc.timestamp(),
            certificate.not_valid_after_utc.timestamp(),
            certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        )


def serial_hex(number: int) -> str:
    return f"{number:x}"
