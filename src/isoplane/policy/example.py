"""A node made up for ``isoplane policy render``: every workload of some manifests on it, with an address and a link."""

from __future__ import annotations

from dataclasses import replace

from isoplane.policy import addresses
from isoplane.policy.interfaces import EndpointInterface, NodeNetwork
from isoplane.policy.model import Cluster, Endpoint
from isoplane.policy.table import digest

_FIRST = addresses.address("198.18.0.2")[1]
_GATEWAY = "198.18.0.1"


def example_node(cluster: Cluster, bridge: bool) -> tuple[Cluster, list[EndpointInterface], NodeNetwork]:
    """(the cluster with addresses, interfaces, node). With ``bridge`` VMs are its ports, else all are routed.

    Addresses are given from 198.18.0.0/15 (RFC 2544) in the order of ids to workloads that have none.
    """
    taken = {ip for e in cluster.endpoints for ip in e.ips} | {_GATEWAY}
    number = _FIRST
    endpoints: list[Endpoint] = []
    interfaces: list[EndpointInterface] = []
    for endpoint in cluster.endpoints:
        if not endpoint.governed:
            endpoints.append(endpoint)
            continue
        ips = endpoint.ips
        while not ips:
            candidate = addresses.text(4, number)
            number += 1
            ips = () if candidate in taken else (candidate,)
        endpoints.append(replace(endpoint, ips=ips))
        interfaces.append(_interface(endpoint, ips, bridge, len(interfaces) + 1))
    node = NodeNetwork("example", (_GATEWAY,), bridge_mac="0a:58:c6:12:00:01", guarded=("isp",))
    return replace(cluster, endpoints=tuple(endpoints)), interfaces, node


def _interface(endpoint: Endpoint, ips: tuple[str, ...], bridge: bool, number: int) -> EndpointInterface:
    if bridge and endpoint.kind in ("vm", "vmi"):
        tail = ":".join(f"{byte:02x}" for byte in number.to_bytes(4, "big"))
        return EndpointInterface(endpoint.id, ips, "br-isp", number, f"0a:58:{tail}")
    return EndpointInterface(endpoint.id, ips, f"isp{digest(endpoint.id)[:11]}")
