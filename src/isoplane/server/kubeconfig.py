"""The administrator's kubeconfig: our entries in it, everybody else's left alone."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml

from isoplane.http.tls import Identity, write_private

NAME = "isoplane"


class KubeconfigError(Exception):
    """An existing file cannot be merged into; the message names it."""


def write(path: Path, server: str, ca: bytes, admin: Identity) -> None:
    """Write (mode 0600) or merge the cluster, user and context ``isoplane`` and make it current.

    Raises KubeconfigError when the file exists and is not a kubeconfig; it is then left as it is.
    """
    config = _existing(path)
    _put(config, "clusters", "cluster", {"server": server, "certificate-authority-data": _text(ca)})
    _put(
        config,
        "users",
        "user",
        {"client-certificate-data": _text(admin.certificate), "client-key-data": _text(admin.key)},
    )
    _put(config, "contexts", "context", {"cluster": NAME, "user": NAME})
    config["current-context"] = NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, yaml.safe_dump(config, sort_keys=False).encode())


def _existing(path: Path) -> dict[str, Any]:
    fresh: dict[str, Any] = {"apiVersion": "v1", "kind": "Config"}
    try:
        text = path.read_text()
    except FileNotFoundError:
        return fresh
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise KubeconfigError(f"{path} exists and is not YAML; move it away or choose another --kubeconfig") from error
    if found is None:
        return fresh
    if not isinstance(found, dict) or found.get("kind", "Config") != "Config":
        raise KubeconfigError(f"{path} exists and is not a kubeconfig; move it away or choose another --kubeconfig")
    return {**fresh, **found}


def _put(config: dict[str, Any], section: str, key: str, value: dict[str, Any]) -> None:
    others = [
        entry for entry in config.get(section) or [] if not (isinstance(entry, dict) and entry.get("name") == NAME)
    ]
    config[section] = [*others, {"name": NAME, key: value}]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
