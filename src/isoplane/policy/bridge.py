"""The bridge below the policies: who may send, address resolution, DHCP, delivery.  Part of the OpenFlow text.

A guest may send only from its port with its MAC and its addresses.  ARP requests and neighbour solicitations go to
the one port that owns the address asked for, or to the host; nothing is flooded from one guest to another.  Delivery
looks at the destination address alone and writes the owner's MAC, so no frame reaches a guest that was judged as
another one's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from isoplane.policy.addresses import address, text
from isoplane.policy.interfaces import EndpointInterface, NodeNetwork


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The bridge's own flow tables."""

    arp: int = 1
    neighbours: int = 2
    dhcp: int = 3
    deliver: int = 50


PORTS = _Numbers()
TRACKED = 10
_BROADCAST = "ff:ff:ff:ff:ff:ff"


def base_flows(attached: list[EndpointInterface], node: NodeNetwork) -> Iterator[str]:
    """Tables 0 to 3."""
    ports = [a for a in attached if a.ofport]
    track = f"ct(zone={node.zone},table={TRACKED})"
    yield "table=0,priority=300,vlan_tci=0x1000/0x1000,actions=drop"
    for interface in ports:
        yield from _guest(interface, node, track)
    yield from _host(ports, node, track)
    yield "table=0,priority=0,actions=drop"
    yield from _arp(ports)
    yield from _neighbours(ports)
    yield from _dhcp(ports)


def _guest(interface: EndpointInterface, node: NodeNetwork, track: str) -> Iterator[str]:
    """What a guest may send."""
    sender = f"in_port={interface.ofport},dl_src={interface.mac}"
    mac = interface.mac
    dhcp4 = f"table=0,priority=120,udp,{sender},tp_src=68,tp_dst=67"
    yield f"{dhcp4},nw_src=0.0.0.0,nw_dst=255.255.255.255,actions=LOCAL"
    yield f"table=0,priority=120,udp6,{sender},ipv6_src=fe80::/10,tp_src=546,tp_dst=547,actions=LOCAL"
    # Nobody but the host answers DHCP: whoever gives others their addresses and routers reads what they send.
    for protocol, answers, asks in (("udp", 67, 68), ("udp6", 547, 546)):
        yield f"table=0,priority=140,{protocol},in_port={interface.ofport},tp_src={answers},tp_dst={asks},actions=drop"
    yield f"table=0,priority=120,arp,{sender},arp_sha={mac},arp_spa=0.0.0.0,arp_op=1,actions=resubmit(,{PORTS.arp})"
    for kind, option in ((133, ""), (135, f",nd_sll={mac}")):
        solicit = f"table=0,priority=130,icmp6,{sender},icmp_type={kind},icmp_code=0"
        yield f"{solicit},ipv6_src=fe80::/10{option},actions=resubmit(,{PORTS.neighbours})"
        yield f"{solicit},ipv6_src=::,actions=resubmit(,{PORTS.neighbours})"
    yield (
        f"table=0,priority=130,icmp6,{sender},icmp_type=136,icmp_code=0,nd_target=fe80::/10,nd_tll={mac},"
        f"actions=resubmit(,{PORTS.neighbours})"
    )
    for ip in interface.ips:
        family, number = address(ip)
        own = text(family, number)
        if family == 4:
            yield f"table=0,priority=120,arp,{sender},arp_sha={mac},arp_spa={own},actions=resubmit(,{PORTS.arp})"
            for server in (*_of(4, node.ips), "255.255.255.255"):
                yield f"{dhcp4},nw_src={own},nw_dst={server},actions=LOCAL"
            yield f"table=0,priority=100,ip,{sender},nw_src={own},actions={track}"
            continue
        yield (
            f"table=0,priority=130,icmp6,{sender},icmp_type=135,icmp_code=0,ipv6_src={own},nd_sll={mac},"
            f"actions=resubmit(,{PORTS.neighbours})"
        )
        yield (
            f"table=0,priority=130,icmp6,{sender},icmp_type=136,icmp_code=0,nd_target={own},nd_tll={mac},"
            f"actions=resubmit(,{PORTS.neighbours})"
        )
        yield f"table=0,priority=100,ipv6,{sender},ipv6_src={own},actions={track}"
    # Discovery is judged by the flows above alone: what they do not let pass must not slip through as traffic.
    for kind in (133, 134, 135, 136, 137):
        yield f"table=0,priority=110,icmp6,in_port={interface.ofport},icmp_type={kind},actions=drop"


def _host(ports: list[EndpointInterface], node: NodeNetwork, track: str) -> Iterator[str]:
    """What may come from the host: anything but the addresses of guests on this bridge."""
    for interface in ports:
        for ip in interface.ips:
            family, number = address(ip)
            source = f"nw_src={text(4, number)}" if family == 4 else f"ipv6_src={text(6, number)}"
            yield f"table=0,priority=140,{'ip' if family == 4 else 'ipv6'},in_port=LOCAL,{source},actions=drop"
            if family == 4:
                yield f"table=0,priority=140,arp,in_port=LOCAL,arp_spa={text(4, number)},actions=drop"
    for ip in _of(4, node.ips):
        yield (
            f"table=0,priority=130,udp,in_port=LOCAL,nw_src={ip},tp_src=67,tp_dst=68,actions=resubmit(,{PORTS.dhcp})"
        )
    yield (
        "table=0,priority=130,udp6,in_port=LOCAL,ipv6_src=fe80::/10,tp_src=547,tp_dst=546,"
        f"actions=resubmit(,{PORTS.dhcp})"
    )
    for kind in (134, 135, 136):
        yield f"table=0,priority=130,icmp6,in_port=LOCAL,icmp_type={kind},actions=resubmit(,{PORTS.neighbours})"
    yield f"table=0,priority=110,arp,in_port=LOCAL,actions=resubmit(,{PORTS.arp})"
    for protocol in ("ip", "ipv6"):
        yield f"table=0,priority=100,{protocol},in_port=LOCAL,actions={track}"


def _arp(ports: list[EndpointInterface]) -> Iterator[str]:
    for interface in ports:
        for ip in _of(4, interface.ips):
            yield f"table={PORTS.arp},priority=10,arp,arp_tpa={ip},actions=output:{interface.ofport}"
    yield f"table={PORTS.arp},priority=5,arp,in_port=LOCAL,actions=drop"
    yield f"table={PORTS.arp},priority=0,actions=LOCAL"


def _neighbours(ports: list[EndpointInterface]) -> Iterator[str]:
    table = PORTS.neighbours
    for interface in ports:
        out = f"actions=output:{interface.ofport}"
        for ip in _of(6, interface.ips):
            yield f"table={table},priority=10,icmp6,icmp_type=135,icmp_code=0,nd_target={ip},{out}"
        yield f"table={table},priority=8,icmp6,dl_dst={interface.mac},{out}"
    everyone = ",".join(f"output:{a.ofport}" for a in ports) or "drop"
    for kind in (134, 135):
        yield f"table={table},priority=5,icmp6,in_port=LOCAL,icmp_type={kind},actions={everyone}"
    yield f"table={table},priority=4,in_port=LOCAL,actions=drop"
    yield f"table={table},priority=0,actions=LOCAL"


def _dhcp(ports: list[EndpointInterface]) -> Iterator[str]:
    for interface in ports:
        yield f"table={PORTS.dhcp},priority=10,dl_dst={interface.mac},actions=output:{interface.ofport}"
    everyone = ",".join(f"output:{a.ofport}" for a in ports) or "drop"
    yield f"table={PORTS.dhcp},priority=5,dl_dst={_BROADCAST},actions={everyone}"
    yield f"table={PORTS.dhcp},priority=0,actions=drop"


def deliver_flows(attached: list[EndpointInterface], node: NodeNetwork) -> Iterator[str]:
    """By destination address: to its guest, else to the host, which routes. Nothing goes back where it came from."""
    table = PORTS.deliver
    for match in ("ip,nw_dst=224.0.0.0/4", "ip,nw_dst=255.255.255.255", "ipv6,ipv6_dst=ff00::/8"):
        yield f"table={table},priority=20,{match},actions=drop"
    for interface in attached:
        for ip in interface.ips if interface.ofport else ():
            family, number = address(ip)
            target = f"ip,nw_dst={text(4, number)}" if family == 4 else f"ipv6,ipv6_dst={text(6, number)}"
            actions = f"mod_dl_dst:{interface.mac},output:{interface.ofport}"
            yield f"table={table},priority=10,{target},actions={actions}"
    yield f"table={table},priority=5,in_port=LOCAL,actions=drop"
    to_host = f"mod_dl_dst:{node.bridge_mac},LOCAL" if node.bridge_mac else "LOCAL"
    yield f"table={table},priority=0,actions={to_host}"


def _of(family: int, ips: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text(family, number) for version, number in map(address, ips) if version == family)
