"""Reading a kubeconfig: where the cluster is, whom to trust, and who we are."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from isoplane.client.problems import KubeconfigProblem


@dataclass(frozen=True, slots=True)
class Cluster:
    """One context, resolved. ``token`` is '' with certificate authentication."""

    server: str
    context: ssl.SSLContext | None
    token: str = ""
    namespace: str = "default"


def default_path() -> Path:
    """``$KUBECONFIG`` (its first entry) or ``~/.kube/config``."""
    listed = [entry for entry in os.environ.get("KUBECONFIG", "").split(os.pathsep) if entry]
    return Path(listed[0]) if listed else Path.home() / ".kube" / "config"


def load(path: Path, context: str = "") -> Cluster:
    """The cluster of ``context`` ('' for the current one). Raises KubeconfigProblem."""
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise KubeconfigProblem(
            f"{path} cannot be read ({error.strerror}): name a kubeconfig, or set KUBECONFIG"
        ) from error
    except yaml.YAMLError as error:
        raise KubeconfigProblem(f"{path} is not YAML: {error}") from error
    if not isinstance(config, dict):
        raise KubeconfigProblem(f"{path} is not a kubeconfig")
    wanted = context or str(config.get("current-context") or "")
    chosen = _entry(path, config, "contexts", "context", wanted)
    cluster = _entry(path, config, "clusters", "cluster", str(chosen.get("cluster") or ""))
    user = _entry(path, config, "users", "user", str(chosen.get("user") or "")) if chosen.get("user") else {}
    for unsupported in ("exec", "auth-provider"):
        if unsupported in user:
            raise KubeconfigProblem(
                f"{path}: user {chosen['user']!r} authenticates by {unsupported!r}, which is not supported; "
                "use a client certificate or a token"
            )
    server = str(cluster.get("server") or "")
    if not server:
        raise KubeconfigProblem(f"{path}: cluster {chosen.get('cluster')!r} names no server")
    tls = _tls(path, cluster, user) if server.startswith("https://") else None
    return Cluster(server.rstrip("/"), tls, _token(path, user), str(chosen.get("namespace") or "default"))


def _entry(path: Path, config: Mapping[str, Any], section: str, key: str, name: str) -> dict[str, Any]:
    for entry in config.get(section) or ():
        if isinstance(entry, dict) and entry.get("name") == name:
            return dict(entry.get(key) or {})
    raise KubeconfigProblem(f"{path}: there is no {key} {name!r}")


def _token(path: Path, user: Mapping[str, Any]) -> str:
    if user.get("token"):
        return str(user["token"])
    if user.get("tokenFile"):
        return (path.parent / str(user["tokenFile"])).read_text().strip()
    return ""


def _tls(path: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    authority = _material(path, cluster, "certificate-authority")
    try:
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise KubeconfigProblem(f"{path}: the certificate authority cannot be read: {error}") from error
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _material(path, user, "client-certificate"), _material(path, user, "client-key")
    if certificate and key:
        # The ssl module reads certificates from files only; this one is private and gone again at once.
        with tempfile.NamedTemporaryFile(prefix="isoplane-", suffix=".pem") as pem:
            pem.write(certificate + b"\n" + key)
            pem.flush()
            try:
                context.load_cert_chain(pem.name)
            except ssl.SSLError as error:
                raise KubeconfigProblem(f"{path}: the client certificate cannot be used: {error}") from error
    return context


def _material(path: Path, entry: Mapping[str, Any], name: str) -> bytes:
    """PEM given inline (``NAME-data``, base64) or as a file relative to the kubeconfig."""
    inline = entry.get(f"{name}-data")
    if inline:
        try:
            return base64.b64decode(str(inline), validate=True)
        except ValueError as error:
            raise KubeconfigProblem(f"{path}: {name}-data is not base64") from error
    return (path.parent / str(entry[name])).read_bytes() if entry.get(name) else b""
