"""The plane's own certificates: a local CA, the server's certificate, the administrator's.

Everything lives in ``pki/`` of the data directory, keys with mode 0600.  Certificates are made again when they are about
to expire or when the server listens under another name.  The CA stays, so kubeconfigs stay valid.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from isoplane.http.user import ADMIN_GROUP

_CA_DAYS = 3650
_LEAF_DAYS = 365
_RENEW_DAYS = 30
ADMIN = "isoplane-admin"


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


class Pki:
    """The certificates in ``directory``; made on first use."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ca = self._kept("ca", lambda found: True) or self._store("ca", _make_ca())

    def server(self, names: Sequence[str]) -> Identity:
        """The serving certificate for host names and addresses."""
        wanted = set(names)
        kept = self._kept("server", lambda found: wanted <= _names(found))
        return kept or self._store("server", self._issue("isoplane", (), ExtendedKeyUsageOID.SERVER_AUTH, names))

    def admin(self) -> Identity:
        """The administrator's client certificate."""
        made = self._kept("admin", lambda found: True)
        return made or self._store("admin", self._issue(ADMIN, (ADMIN_GROUP,), ExtendedKeyUsageOID.CLIENT_AUTH, ()))

    def client(self, user: str, groups: Sequence[str]) -> Identity:
        """A new client certificate of this CA for a user and its groups; nothing of it is kept here."""
        return self._issue(user, groups, ExtendedKeyUsageOID.CLIENT_AUTH, ())

    def server_context(self, names: Sequence[str]) -> ssl.SSLContext:
        """TLS for the listener: HTTP/1.1, a client certificate of our CA when the client shows one."""
        self.server(names)
        return serving_context(self._path("server.crt"), self._path("server.key"), self.ca.certificate)

    def _path(self, name: str) -> Path:
        return self._directory / name

    def _kept(self, name: str, good: object) -> Identity | None:
        assert callable(good)
        try:
            identity = Identity(self._path(f"{name}.crt").read_bytes(), self._path(f"{name}.key").read_bytes())
            found = x509.load_pem_x509_certificate(identity.certificate)
        except (FileNotFoundError, ValueError):
            return None
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=_RENEW_DAYS)
        if found.not_valid_after_utc < soon or not good(found):
            return None
        if name != "ca" and found.issuer != x509.load_pem_x509_certificate(self.ca.certificate).subject:
            return None
        return identity

    def _store(self, name: str, identity: Identity) -> Identity:
        write_private(self._path(f"{name}.key"), identity.key)
        write_private(self._path(f"{name}.crt"), identity.certificate)
        return identity

    def _issue(self, name: str, groups: Sequence[str], usage: x509.ObjectIdentifier, names: Sequence[str]) -> Identity:
        authority = x509.load_pem_x509_certificate(self.ca.certificate)
        signer = serialization.load_pem_private_key(self.ca.key, None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
        builder = _builder(x509.Name(attributes), authority.subject, key.public_key(), _LEAF_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_alternative(n) for n in names]), critical=False
            )
        return _identity(builder.sign(signer, hashes.SHA256()), key)


def serving_context(certificate: Path, key: Path, authorities: bytes) -> ssl.SSLContext:
    """TLS for a listener: HTTP/1.1, and a client certificate of one of ``authorities`` (PEM) when the client shows one.

    Which of them has issued it, and what that is worth, is the authentication's to ask.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cadata=authorities.decode("ascii"))
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


def _make_ca() -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"isoplane-ca-{x509.random_serial_number() & 0xFFFFFFFF:08x}")]
    )
    builder = _builder(subject, subject, key.public_key(), _CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(
        x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        ),
        critical=True,
    )  # fmt: skip
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return _identity(builder.sign(key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # An hour back: clients whose clock lags a little must not refuse a new plane.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _identity(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Identity:
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Identity(certificate.public_bytes(encoding), private)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in found}


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, in one step: never half-written, never readable in between."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
