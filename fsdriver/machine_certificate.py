"""This machine's certificate, renewed with the same key when half of its life is over."""

import logging

from cryptography import x509

from fsdriver.clock import boot_time
from fsdriver.enrolment import signing_request
from fsdriver.machine import Identity, MachineHome
from keyserver.client import AgentClient, ClientError
from keyserver.messages import RenewRequest

__all__ = ["MachineCertificate"]

log = logging.getLogger(__name__)

RETRY = 30.0


class MachineCertificate:
    """The certificate in use."""

    def __init__(self, home: MachineHome, identity: Identity, name: str) -> None:
        """Raises ValueError when the certificate cannot be read."""
        self._home = home
        self._key = identity.key
        self._name = name
        self._certificate = x509.load_pem_x509_certificate(identity.certificate.encode())
        self._next_try = 0.0

    @property
    def expires(self) -> float:
        """Seconds since the epoch."""
        return self._certificate.not_valid_after_utc.timestamp()

    def renew_if_due(self, client: AgentClient, now: float) -> None:
        """Gets, keeps and uses a new one. A failure is logged, and tried again later: there is half a life left."""
        half = (self._certificate.not_valid_before_utc.timestamp() + self.expires) / 2
        if now < half or boot_time() < self._next_try:
            return
        self._next_try = boot_time() + RETRY
        try:
            answer = client.renew(RenewRequest(signing_request(self._key, self._name)))
            certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
            if certificate.public_key() != self._key.public_key():
                raise ValueError("the new certificate is for another key")
            client.use_certificate(answer.certificate)
            self._home.write_certificate(answer.certificate)
            self._certificate = certificate
        except (ClientError, ValueError, OSError) as exc:
            log.warning("the certificate could not be renewed: %s", exc)
