"""Which ranges a node uses: the configured ones, the remembered, or the first candidates that the host does not route."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from isoplane.node.network.ipam import Ipam
from isoplane.node.network.ipv6 import OFF, Ranges6, derived, missing
from isoplane.node.network.netlink import Netlink
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.settings import DEFAULT_RANGES, FabricSettings, Ranges

log = logging.getLogger(__name__)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
CANDIDATES6 = 4


def clash(whole: Network, routes: Iterable[tuple[str, str]]) -> str:
    """What overlaps the range, of (destination, interface) pairs, or ''. The default route overlaps nothing."""
    for destination, interface in routes:
        network = ipaddress.ip_network(destination, strict=False)
        if network.prefixlen and network.version == whole.version and network.overlaps(whole):
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


def pick6(wanted: str, candidates: Sequence[str], routes: Sequence[tuple[str, str]]) -> Ranges6:
    """The IPv6 range to use, as above. ``candidates``: the remembered one, or those that may be derived."""
    for candidate in [wanted] if wanted else candidates:
        try:
            ranges = Ranges6.of(candidate)
        except ValueError as error:
            raise FabricFailure(f"the node's IPv6 range {candidate!r} is not usable: {error}") from error
        if not (taken := clash(ranges.whole, routes)):
            return ranges
    raise FabricFailure(
        f"the node's IPv6 range {candidate} overlaps a route of this host, {taken}: configure another range, or none"
    )


def settle(settings: FabricSettings, ipam: Ipam) -> tuple[Ranges, str]:
    """Choose, looking at the host's routes, and remember; and why there is no IPv6, '' when there is.

    FabricFailure when what is asked for cannot be had.  A host without IPv6 is served IPv4 alone, unless a range is asked for.
    """
    names = settings.names
    lacks = f"it was turned off ({OFF})" if settings.cidr6 == OFF else missing()
    if lacks and settings.cidr6 not in ("", OFF):
        raise FabricFailure(f"the IPv6 range {settings.cidr6} cannot be used: {lacks}")
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
        known6 = Ranges6.of(ipam.range6) if ipam.range6 else None
        own6 = {str(known6.routed), str(known6.bridged)} if known6 and started_before else set()
        routes6 = [
            (route.destination, links.get(route.interface, ""))
            for route in (host.routes(socket.AF_INET6) if not lacks else ())
            # what is unreachable is the loopback's, as the kernel tells it
            if route.interface not in ours and not (links.get(route.interface) == "lo" and route.destination in own6)
        ]
    ranges = pick(settings.cidr, remembered, routes)
    if not lacks:
        seed = f"{_machine()} {settings.data_dir.resolve()}"
        turns = [ipam.range6] if ipam.range6 else [derived(f"{seed} {turn}") for turn in range(CANDIDATES6)]
        ranges = replace(ranges, six=pick6(settings.cidr6, turns, routes6))
    elif settings.cidr6 != OFF:
        log.warning("workloads have no IPv6 addresses: %s", lacks)
    ipam.settle(ranges)
    return ranges, lacks


def _machine() -> str:
    """What tells this machine from others with the same paths; '' where nothing does."""
    path = Path("/etc/machine-id")
    return path.read_text().strip() if path.exists() else ""
