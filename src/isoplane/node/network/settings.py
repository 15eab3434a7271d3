"""How one node's network is laid out: address ranges, how each kind of interface is wired, every name used on the host.

All names carry a short hash of the data directory, so that several planes share a host without meeting, and so that whatever
is found on the host can be told to be ours (or not) after a crash.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from isoplane.node.network.ipv6 import Ranges6
from isoplane.workload.shape import InterfaceType

DEFAULT_RANGES = tuple(f"10.{second}.0.0/16" for second in (244, 245, 246, 247, 248, 249, 236, 237, 238, 239))
"""Tried in order when no range is configured; the first that no route of the host overlaps is taken and remembered."""

NETNS_DIRECTORY = Path("/run/netns")
"""Where ``ip netns`` looks, so that people can look into a sandbox with the tool they know."""


class Wiring(StrEnum):
    """How an endpoint's packets reach the others."""

    ROUTED = "routed"
    """A link of its own to the host, which routes: what nftables and iptables judge."""
    BRIDGED = "bridged"
    """A port on the Open vSwitch bridge: what flow tables judge."""


@dataclass(frozen=True, slots=True)
class FabricSettings:
    """What an operator may choose. Ranges are CIDR strings."""

    data_dir: Path
    cidr: str = ""
    """The node's range, halved into routed and bridged addresses; '' probes DEFAULT_RANGES."""
    cidr6: str = ""
    """The node's IPv6 range, a /63 or larger; '' derives a unique local one, 'none' does without IPv6."""
    container_wiring: Wiring = Wiring.ROUTED
    machine_wiring: Wiring = Wiring.BRIDGED
    routed_engine: str = "nftables"
    """nftables or iptables: what judges routed endpoints. The bridge's are judged by its flows."""
    mtu: int = 1500
    masquerade: bool = True
    """Whether workloads reach the outside behind the host's address, as on a usual Kubernetes node."""
    enforced: bool = True
    """Ports stay closed until an engine opens them. False opens every port at once (no policy engine)."""
    quarantine_seconds: float = 60
    """How long a released address rests before it may be given out again."""
    datapath: str = "auto"
    """system (kernel module), netdev (userspace), or auto: the kernel's where it can be had."""
    openvswitch_rundir: Path = Path("/var/run/openvswitch")
    """Where the host's own Open vSwitch would be found; used when it answers, else we start our own."""

    def wiring_of(self, interface: InterfaceType) -> Wiring:
        return self.machine_wiring if interface.set_up_by_guest else self.container_wiring

    @property
    def directory(self) -> Path:
        return self.data_dir / "network"

    @property
    def names(self) -> Names:
        return Names(hashlib.sha256(str(self.data_dir.resolve()).encode()).hexdigest()[:4])


@dataclass(frozen=True, slots=True)
class Ranges:
    """A node's range in two halves: the first address of each is the host's. ``six``: the same for IPv6, None without."""

    whole: ipaddress.IPv4Network
    routed: ipaddress.IPv4Network
    bridged: ipaddress.IPv4Network
    six: Ranges6 | None = None

    @classmethod
    def of(cls, cidr: str, six: Ranges6 | None = None) -> Ranges:
        """ValueError when the text is no IPv4 network or too small to halve (at least a /28)."""
        whole = ipaddress.IPv4Network(cidr)
        if whole.prefixlen > 28:
            raise ValueError(f"{cidr} is too small for a node: use a /28 or larger")
        routed, bridged = whole.subnets(prefixlen_diff=1)
        return cls(whole, routed, bridged, six)

    def by_wiring(self) -> Mapping[Wiring, ipaddress.IPv4Network]:
        return {Wiring.ROUTED: self.routed, Wiring.BRIDGED: self.bridged}

    @property
    def nodes(self) -> tuple[str, ...]:
        """The node's address in each family."""
        return (self.node, *((self.six.node,) if self.six else ()))

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every address that the host itself has in the range."""
        own = (self.node, self.bridge_gateway)
        return own if self.six is None else (*own, self.six.node, self.six.bridge_gateway)

    @property
    def node(self) -> str:
        """The node's address as workloads see it, the source of whatever the host itself sends to them."""
        return str(self.routed[1])

    @property
    def bridge_gateway(self) -> str:
        return str(self.bridged[1])


@dataclass(frozen=True, slots=True)
class Names:
    """Every name on the host, from the plane's four-digit tag. Interface names have at most 15 characters."""

    tag: str

    def _short(self, uid: str) -> str:
        return self.tag + hashlib.sha256(uid.encode()).hexdigest()[:9]

    def netns(self, uid: str) -> str:
        return "iso-" + self._short(uid)

    def netns_path(self, uid: str) -> Path:
        return NETNS_DIRECTORY / self.netns(uid)

    def veth(self, uid: str) -> str:
        return "iv" + self._short(uid)

    def tap(self, uid: str) -> str:
        return "it" + self._short(uid)

    def link(self, interface: InterfaceType, uid: str) -> str:
        return self.tap(uid) if interface.set_up_by_guest else self.veth(uid)

    @property
    def link_prefixes(self) -> tuple[str, str]:
        """What every endpoint's host interface begins with: closed by default as ``iv<tag>*`` and ``it<tag>*``."""
        return ("iv" + self.tag, "it" + self.tag)

    @property
    def netns_prefix(self) -> str:
        return "iso-" + self.tag

    @property
    def bridge(self) -> str:
        return "iso-br" + self.tag

    @property
    def node_link(self) -> str:
        """A bridge without ports that holds the node's address and so outlives any single endpoint (kernels may lack dummy)."""
        return "iso-nd" + self.tag

    @property
    def datapath_link(self) -> str:
        return "iso-dp" + self.tag

    @property
    def table(self) -> str:
        """The nftables table (family inet) that the policy engine owns."""
        return "isoplane_" + self.tag

    @property
    def nat_table(self) -> str:
        return f"isoplane_{self.tag}_nat"
