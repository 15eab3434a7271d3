"""Which range a node uses: the configured one, the remembered one, or the first candidate that the host does not route."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from isoplane.node.network.ipam import Ipam
from isoplane.node.network.netlink import Netlink
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.settings import DEFAULT_RANGES, FabricSettings, Ranges


def clash(whole: ipaddress.IPv4Network, routes: Iterable[tuple[str, str]]) -> str:
    """What overlaps the range, of (destination, interface) pairs, or ''. The default route overlaps nothing."""
    for destination, interface in routes:
        network = ipaddress.IPv4Network(destination, strict=False)
        if network.prefixlen and network.overlaps(whole):
            return f"{destination} on {interface}" if interface else f"{destination} (another plane's)"
    return ""


def pick(wanted: str, remembered: str, routes: Sequence[tuple[str, str]]) -> Ranges:
    """The range to use. FabricFailure when the wanted one is wrong or taken, or when every candidate is."""
    if wanted:
        try:
            ranges = Ranges.of(wanted)
        except ValueError as error:
            raise FabricFailure(f"the node's range {wanted!r} is not usable: {error}") from error
        if taken := clash(ranges.whole, routes):
            raise FabricFailure(
                f"the node's range {wanted} overlaps a route of this host, {taken}: configure another range"
            )
        return ranges
    for candidate in (remembered, *DEFAULT_RANGES) if remembered else DEFAULT_RANGES:
        ranges = Ranges.of(candidate)
        taken = clash(ranges.whole, routes)
        if not taken:
            return ranges
        if candidate == remembered:
            raise FabricFailure(
                f"this node's range {remembered} now overlaps a route of the host, {taken}: remove that route, or delete the "
                "workloads and configure another range"
            )
    raise FabricFailure(
        f"every candidate range ({', '.join(DEFAULT_RANGES)}) overlaps a route of this host: configure one"
    )


def settle(settings: FabricSettings, ipam: Ipam) -> Ranges:
    """Choose, looking at the host's routes, and remember."""
    names = settings.names
    with Netlink() as host:
        links = {link.index: link.name for link in host.links()}
        ours = {index for index, name in links.items() if name in (names.bridge, names.node_link)}
        ours |= {index for index, name in links.items() if name.startswith(names.link_prefixes)}
        started_before = any(name == names.node_link for name in links.values())
        remembered = ipam.range
        own = set(map(str, Ranges.of(remembered).by_wiring().values())) if remembered and started_before else set()
        routes = [
            (route.destination, links.get(route.interface, ""))
            for route in host.routes()
            if route.interface not in ours and not (route.interface == 0 and route.destination in own)
        ]
    ranges = pick(settings.cidr, remembered, routes)
    ipam.settle(ranges)
    return ranges
