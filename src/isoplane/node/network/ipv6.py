"""A node's IPv6: its range, the addresses in it, and whether the host's kernel has IPv6 at all.

Every workload's IPv6 address names its MAC (modified EUI-64, RFC 4291), and the MAC names its IPv4 address: so one record of
leases gives out both, and a guest that configures itself from router advertisements takes the address that the plane
knows.  The range in use is chosen and remembered by ``ranges``.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

Network6 = ipaddress.IPv6Network
_LINK_LOCAL = ipaddress.IPv6Network("fe80::/64")
_SUBNET = 64
OFF = "none"
"""What an operator writes instead of a range."""


@dataclass(frozen=True, slots=True)
class Ranges6:
    """The first two /64 networks of the node's range; the first address of each is the host's."""

    whole: Network6
    routed: Network6
    bridged: Network6

    @classmethod
    def of(cls, cidr: str) -> Ranges6:
        """ValueError when the text is no IPv6 network or has no room for two /64."""
        whole = ipaddress.IPv6Network(cidr)
        if whole.prefixlen >= _SUBNET:
            raise ValueError(f"{cidr} is too small for a node, which needs two /64 networks: use a /63 or larger")
        subnets = whole.subnets(new_prefix=_SUBNET)
        return cls(whole, next(subnets), next(subnets))

    @property
    def node(self) -> str:
        """The node's address as workloads see it."""
        return str(self.routed[1])

    @property
    def bridge_gateway(self) -> str:
        return str(self.bridged[1])


def derived(seed: str) -> str:
    """A unique local range (RFC 4193) that the seed alone decides: a /48."""
    number = hashlib.sha256(seed.encode()).digest()[:5]
    return str(ipaddress.IPv6Network((b"\xfd" + number + bytes(10), 48)))


def interface_address(network: Network6, mac: str) -> str:
    """The address that an interface with this MAC gives itself in a /64 network."""
    octets = bytes.fromhex(mac.replace(":", ""))
    tail = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(network[int.from_bytes(tail)])


def link_local(mac: str) -> str:
    """The link-local address of an interface with this MAC."""
    return interface_address(_LINK_LOCAL, mac)


def missing(root: Path = Path("/proc/sys/net/ipv6")) -> str:
    """Why this host has no IPv6 to give, and what to do about it; '' when it has."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
        disabled = (root / "conf/all/disable_ipv6").read_text().strip() != "0"
    except OSError:
        return "the kernel was started without IPv6 (ipv6.disable=1, or built without it)"
    return "IPv6 is disabled on this host (sysctl net.ipv6.conf.all.disable_ipv6=0 enables it)" if disabled else ""
