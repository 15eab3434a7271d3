"""How endpoints hang on a node: what a renderer needs besides the tables.  The fabric fills it in.

Every engine of a node is given the interfaces of all its endpoints, also those that another engine carries, because
each engine judges both directions of every connection that it sees.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from isoplane.policy.addresses import address
from isoplane.policy.rules import EGRESS
from isoplane.policy.table import CLOSED, DirectionTable, Tables


@dataclass(frozen=True, slots=True)
class EndpointInterface:
    """One endpoint's interface on this node.

    ``device``: the host's interface on which its packets arrive: its own veth or tap, or for a bridge port the
    bridge's local interface.  ``ofport`` (0: not on the bridge) and ``mac`` (the guest's) matter to Open vSwitch.
    """

    endpoint: str
    ips: tuple[str, ...]
    device: str
    ofport: int = 0
    mac: str = ""


@dataclass(frozen=True, slots=True)
class NodeNetwork:
    """The node's own part.

    ``ips``: its own addresses towards workloads (the gateways); from them and by local processes only, workloads are
    always reachable.  ``bridge_mac``: of the bridge's local port.  ``guarded``: prefixes of the names that only
    workloads' interfaces have; from such an interface nothing passes until its endpoint is attached.  ``zone``: the
    connection tracking zone of the bridge.  ``log_group``: the netlink log group of denied packets.
    """

    name: str
    ips: tuple[str, ...] = ()
    bridge_mac: str = ""
    guarded: tuple[str, ...] = ()
    zone: int = 1
    log_group: int = 100


def addresses_of(interfaces: Iterable[EndpointInterface], family: int) -> list[tuple[int, EndpointInterface]]:
    """(address, interface) of one family in ascending order. Raises ValueError when two share an address."""
    found: dict[int, EndpointInterface] = {}
    for interface in interfaces:
        for ip in interface.ips:
            version, number = address(ip)
            if version != family:
                continue
            other = found.setdefault(number, interface)
            if other is not interface:
                raise ValueError(f"{other.endpoint} and {interface.endpoint} are both attached with {ip}")
    return sorted(found.items(), key=lambda item: item[0])


def table_of(tables: Tables, interface: EndpointInterface, direction: str) -> DirectionTable:
    """The table to enforce; closed for an interface that the tables do not know (yet)."""
    entry = tables.endpoints.get(interface.endpoint)
    if entry is None:
        return CLOSED[direction]
    return entry.egress if direction == EGRESS else entry.ingress
