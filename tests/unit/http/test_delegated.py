"""The cluster's ConfigMap about authentication, read whole or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from isoplane.http.delegated import access_review, authentication, decision
from isoplane.http.peer import PeerCertificate, of_connection
from isoplane.http.request_info import read
from isoplane.http.tls import Pki
from isoplane.http.user import User


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    return Pki(tmp_path_factory.mktemp("ca")).ca.certificate.decode()


def test_a_cluster_without_a_front_proxy(ca: str, tmp_path: Path) -> None:
    chain, authorities = authentication({"client-ca-file": ca})
    assert authorities.decode().strip() == ca.strip()
    assert chain.known(None, ()) is None
    assert of_connection(None) is None
    other = x509.load_pem_x509_certificate(Pki(tmp_path).client("ann", ()).certificate)
    foreign = PeerCertificate({"commonName": ["ann"]}, other.public_bytes(serialization.Encoding.DER))
    assert chain.known(foreign, ((b"x-remote-user", b"root"),)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"client-ca-file": "no certificate"},
        {"requestheader-client-ca-file": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
        {"requestheader-allowed-names": "front-proxy"},
        {"requestheader-username-headers": '{"a": 1}'},
        {"requestheader-group-headers": "[1]"},
    ],
)
def test_what_cannot_be_read_is_refused(ca: str, change: dict[str, str]) -> None:
    whole = {
        "client-ca-file": ca,
        "requestheader-client-ca-file": ca,
        "requestheader-allowed-names": '["front-proxy-client"]',
        "requestheader-username-headers": '["X-Remote-User"]',
    }
    authentication(whole)
    with pytest.raises(ValueError):
        authentication({**whole, **change})


def test_a_review_and_its_answer() -> None:
    spec = access_review(User("ann", ("a",)), read("GET", "/api/v1/namespaces/x/pods/p/log"))["spec"]
    assert spec == {
        "user": "ann", "groups": ["a"],
        "resourceAttributes": {
            "namespace": "x", "verb": "get", "version": "v1", "resource": "pods", "subresource": "log", "name": "p",
        },
    }  # fmt: skip
    assert decision({"status": {"allowed": True, "reason": "why"}}).reason == "why"
    for status in ({}, None, {"allowed": False}, {"allowed": True, "denied": True}):
        assert not decision({"status": status}).allowed
