"""How a lease looks to a runtime and to an engine: every name follows from the uid, every address from the lease."""

from __future__ import annotations

from functools import lru_cache

from isoplane.node.network.ipam import Lease, mac_of
from isoplane.node.network.ipv6 import link_local
from isoplane.node.network.links import HOST_END_MAC
from isoplane.node.network.protocol import Plug
from isoplane.node.network.settings import FabricSettings, Wiring
from isoplane.node.runtime.protocol import NetworkAttachment
from isoplane.workload.shape import Attachment


def attachment_of(lease: Lease, settings: FabricSettings) -> NetworkAttachment:
    """How a lease looks from the sandbox: names follow from the uid, addresses from the lease."""
    names = settings.names
    link = names.link(lease.kind, lease.uid)
    tap = lease.kind is Attachment.TAP
    alone = lease.wiring is Wiring.ROUTED and not tap
    gateway = str(lease.network[1])
    gateway_mac = HOST_END_MAC if lease.wiring is Wiring.ROUTED else mac_of(gateway)
    return NetworkAttachment(
        netns="" if tap else str(names.netns_path(lease.uid)),
        tap=link if tap else "",
        mac=lease.mac,
        address=lease.address,
        prefix_length=32 if alone else lease.network.prefixlen,
        gateway=gateway,
        address6=lease.address6,
        gateway6=link_local(gateway_mac) if lease.address6 else "",
        mtu=settings.mtu,
        host_interface=link,
    )


@lru_cache(maxsize=4096)
def plug_of(lease: Lease, settings: FabricSettings) -> Plug:
    """A lease as the engines and the agent know it. Remembered, for every change of a policy asks about every lease."""
    port = lease.port_number
    attachment = attachment_of(lease, settings)
    return Plug(lease.uid, lease.namespace, lease.name, lease.kind, attachment, ofport=port, zone=port)
