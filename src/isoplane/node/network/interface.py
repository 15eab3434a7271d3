"""How a lease looks to a runtime and to an engine: every name follows from the uid, every address from the lease."""

from __future__ import annotations

from functools import lru_cache

from isoplane.node.network.ipam import Lease, mac_of
from isoplane.node.network.ipv6 import link_local
from isoplane.node.network.links import HOST_END_MAC
from isoplane.node.network.settings import FabricSettings, Wiring
from isoplane.node.runtime.protocol import NetworkInterface


@lru_cache(maxsize=4096)
def interface_of(lease: Lease, settings: FabricSettings) -> NetworkInterface:
    """Remembered, for every change of a policy asks about every lease."""
    names = settings.names
    link = names.link(lease.type, lease.uid)
    guest = lease.type.set_up_by_guest
    alone = lease.wiring is Wiring.ROUTED and not guest
    gateway = str(lease.network[1])
    gateway_mac = HOST_END_MAC if lease.wiring is Wiring.ROUTED else mac_of(gateway)
    return NetworkInterface(
        netns="" if guest else str(names.netns_path(lease.uid)),
        tap=link if guest else "",
        mac=lease.mac,
        address=lease.address,
        prefix_length=32 if alone else lease.network.prefixlen,
        gateway=gateway,
        address6=lease.address6,
        gateway6=link_local(gateway_mac) if lease.address6 else "",
        mtu=settings.mtu,
        host_interface=link,
        ofport=lease.port_number,
        uid=lease.uid,
        namespace=lease.namespace,
        name=lease.name,
    )
