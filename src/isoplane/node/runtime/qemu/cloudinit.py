"""The NoCloud seed of a machine: user-data, meta-data and network-config as cloud-init reads them.

The network is configured statically with the address the fabric reserved, matched by MAC, unless the user brought their
own network data.  Writing the disk is iso.py's job.  Source: cloud-init's NoCloud and network-config v2 documentation.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from isoplane.node.runtime.protocol import NetworkInterface, RuntimeFailure, RuntimeReason
from isoplane.node.runtime.qemu.volumes import CloudInit

LABEL = "cidata"


def seed(
    source: CloudInit,
    *,
    instance_id: str,
    hostname: str,
    network: NetworkInterface,
    objects: Mapping[str, Mapping[str, Any]],
) -> dict[str, bytes]:
    """File name → content. Raises RuntimeFailure when a Secret or its key is missing or base64 is malformed."""
    user = _text(source.user_data, source.user_data_base64, source.user_secret, "userdata", objects)
    files = {
        "meta-data": json.dumps({"instance-id": instance_id, "local-hostname": hostname}, indent=1).encode() + b"\n",
        "user-data": user if user is not None else b"#cloud-config\n",
    }
    own = _text(source.network_data, source.network_data_base64, source.network_secret, "networkdata", objects)
    if own is not None:
        files["network-config"] = own
    elif network.mac and network.address:
        files["network-config"] = _network(network)
    return files


def _network(network: NetworkInterface) -> bytes:
    interface: dict[str, Any] = {
        "match": {"macaddress": network.mac.lower()},
        "addresses": [f"{network.address}/{network.prefix_length}"],
        "mtu": network.mtu,
    }
    routes = [{"to": "0.0.0.0/0", "via": network.gateway}] if network.gateway else []
    if network.address6:
        interface["addresses"].append(f"{network.address6}/128")
        routes.append({"to": "::/0", "via": network.gateway6})
    if routes:
        interface["routes"] = routes
    return json.dumps({"version": 2, "ethernets": {"pod": interface}}, indent=1).encode() + b"\n"


def _text(plain: str, encoded: str, secret: str, key: str, objects: Mapping[str, Mapping[str, Any]]) -> bytes | None:
    if plain:
        return plain.encode()
    if encoded:
        return _decode(encoded, f"cloudInitNoCloud's {key}")
    if not secret:
        return None
    data = (objects.get(f"secrets/{secret}") or {}).get("data") or {}
    value = next((data[k] for k in (key, key.replace("data", "Data")) if k in data), None)
    if value is None:
        raise RuntimeFailure(RuntimeReason.CREATE_CONFIG, f'secret "{secret}" has no key {key!r} for cloudInitNoCloud')
    return _decode(value, f'secret "{secret}", key {key}')


def _decode(value: str, where: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise RuntimeFailure(RuntimeReason.CREATE_CONFIG, f"{where} is not base64") from None
