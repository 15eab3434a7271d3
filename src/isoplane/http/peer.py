"""A client's certificate, as TLS has verified it, and whose certificate authority has issued it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from isoplane.http.user import User


class Authorities:
    """The CAs that vouch for one kind of client, of a PEM bundle. Raises ValueError when there is none in it."""

    def __init__(self, pem: bytes) -> None:
        self._certificates = x509.load_pem_x509_certificates(pem)

    def issued(self, der: bytes) -> bool:
        """Whether one of them has signed the certificate itself: no other CA stands between."""
        leaf = x509.load_der_x509_certificate(der)
        return any(_signed(leaf, authority) for authority in self._certificates)


def _signed(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


class PeerCertificate:
    """What a connection's client has shown. TLS has verified it against all CAs that the listener trusts together."""

    __slots__ = ("_der", "_issued", "common_name", "organizations", "user")

    def __init__(self, subject: Mapping[str, list[str]], der: bytes) -> None:
        self.common_name = subject.get("commonName", [""])[-1]
        self.organizations = tuple(subject.get("organizationName", ()))
        self.user = User(self.common_name, self.organizations).authenticated()
        """Whom it names as Kubernetes reads it, if its issuer may say so."""
        self._der = der
        self._issued: dict[Authorities, bool] = {}

    def issued_by(self, authorities: Authorities) -> bool:
        """Verified once for each."""
        known = self._issued.get(authorities)
        if known is None:
            known = self._issued[authorities] = authorities.issued(self._der)
        return known


def of_connection(tls: ssl.SSLObject | None) -> PeerCertificate | None:
    """None: no TLS, no certificate, or one that names nobody."""
    shown: Any = tls.getpeercert() if tls is not None else None
    if tls is None or not shown:
        return None
    subject: dict[str, list[str]] = {}
    for relative in shown.get("subject", ()):
        for key, value in relative:
            subject.setdefault(key, []).append(value)
    der = tls.getpeercert(binary_form=True)
    return PeerCertificate(subject, der) if der and subject.get("commonName", [""])[-1] else None
