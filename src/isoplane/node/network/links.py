"""Links of single workloads, made and removed by a worker thread in one go; every step may be repeated after a crash.

A finished link says so in its alias, which is written last: a link without it is a leftover of a crash and made anew.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from isoplane.node.network import netns, sysctl, tap
from isoplane.node.network.ipam import Lease, mac_of
from isoplane.node.network.ipv6 import link_local
from isoplane.node.network.netlink import Link, Netlink, NetlinkError
from isoplane.node.network.settings import NETNS_DIRECTORY, Names, Ranges, Wiring

HOST_END_MAC = "ee:ee:ee:ee:ee:ee"
"""The host's end of every routed link, the same for all: the workload's neighbour entry never changes."""
SANDBOX_INTERFACE = "eth0"
_PEER_INDEX = 2
_UNREACHABLE_METRIC = 4_000_000
_thread = threading.local()


def host() -> Netlink:
    """This thread's socket in the host's namespace."""
    socket: Netlink | None = getattr(_thread, "host", None)
    if socket is None:
        socket = _thread.host = Netlink()
    return socket


def _fresh_on_failure() -> None:
    """Answers to a failed batch may still be queued: the next one starts on a new socket."""
    socket: Netlink | None = getattr(_thread, "host", None)
    if socket is not None:
        socket.close()
        _thread.host = None


@dataclass(frozen=True, slots=True)
class Links:
    """What is common to all links of a node."""

    names: Names
    ranges: Ranges
    mtu: int

    def make(self, lease: Lease) -> bool:
        """The host's side and the sandbox's side of a workload's link. True when it is new. OSError when the kernel refuses."""
        try:
            return self._make_tap(lease) if lease.type.set_up_by_guest else self._make_veth(lease)
        except BaseException:
            _fresh_on_failure()
            raise

    def _alias(self, lease: Lease) -> str:
        return f"isoplane {lease.uid}"

    def _make_veth(self, lease: Lease) -> bool:
        name, path = self.names.veth(lease.uid), self.names.netns_path(lease.uid)
        here = self._find(name)
        if here is not None and here.alias == self._alias(lease) and netns.is_namespace(path):
            return False
        self.remove(lease.uid)
        routed = lease.wiring is Wiring.ROUTED
        gateway = self.ranges.node if routed else self.ranges.bridge_gateway
        gateway_mac = HOST_END_MAC if routed else mac_of(gateway)

        def inside(namespace: int) -> None:
            host().veth(name, HOST_END_MAC, SANDBOX_INTERFACE, lease.mac, namespace, self.mtu, lease.uid).commit()
            sysctl.apply(SANDBOX_INTERFACE, sysctl.WITH_IPV6 if lease.address6 else sysctl.WITHOUT_IPV6)
            with Netlink() as sandbox:
                sandbox.set_link(1, up=True).set_link(_PEER_INDEX, up=True)
                sandbox.address(_PEER_INDEX, lease.address, 32 if routed else lease.network.prefixlen)
                if routed:
                    sandbox.route(f"{gateway}/32", _PEER_INDEX).neighbour(_PEER_INDEX, gateway, HOST_END_MAC)
                sandbox.route("0.0.0.0/0", _PEER_INDEX, gateway=gateway)
                if lease.address6:
                    gateway6 = link_local(gateway_mac)
                    sandbox.address(_PEER_INDEX, lease.address6, 128).neighbour(_PEER_INDEX, gateway6, gateway_mac)
                    sandbox.route("::/0", _PEER_INDEX, gateway=gateway6)
                sandbox.commit()

        netns.create(path, inside)
        self._make_host_end(name, lease)
        return True

    def _make_tap(self, lease: Lease) -> bool:
        name = self.names.tap(lease.uid)
        here = self._find(name)
        if here is not None and here.alias == self._alias(lease):
            return False
        if here is None:
            tap.create(name)
        self._make_host_end(name, lease)
        return True

    def _make_host_end(self, name: str, lease: Lease) -> None:
        socket = host()
        index = socket.index(name)
        if lease.wiring is Wiring.ROUTED:
            machine = lease.type.set_up_by_guest
            sysctl.apply(name, sysctl.ROUTED_MACHINE if machine else sysctl.ROUTED_PORT)
            sysctl.apply(name, sysctl.WITH_IPV6 if lease.address6 else sysctl.WITHOUT_IPV6)
            socket.set_link(index, up=True, mac=HOST_END_MAC, mtu=self.mtu)
            if machine:
                # DHCP is served where the gateway's address is; the node's own route to it stays the one it had.
                socket.address(index, self.ranges.node, lease.network.prefixlen, routed=False)
            socket.route(f"{lease.address}/32", index, source=self.ranges.node)
            socket.neighbour(index, lease.address, lease.mac)
            if lease.address6 and self.ranges.six:
                socket.address(index, link_local(HOST_END_MAC), 64)
                if machine:
                    socket.address(index, self.ranges.six.node, 64, routed=False)
                socket.route(f"{lease.address6}/128", index, source=self.ranges.six.node)
                socket.neighbour(index, lease.address6, lease.mac)
        else:
            sysctl.apply(name, sysctl.BRIDGED_PORT)
            socket.set_link(index, up=True, mtu=self.mtu)
        socket.set_link(index, alias=self._alias(lease)).commit()

    def _find(self, name: str) -> Link | None:
        return host().link(name)

    def remove(self, uid: str) -> None:
        """The link, its other end and the namespace, as far as they exist."""
        socket = host()
        for name in (self.names.veth(uid), self.names.tap(uid)):
            if socket.index(name):
                socket.delete_link(name).commit()
        netns.delete(self.names.netns_path(uid))

    def prepare_node(self, owner: str) -> None:
        """The node's own address, and nowhere to go for addresses that nobody has. NetlinkError when refused."""
        socket = host()
        socket.bridge(self.names.node_link).commit()
        link = socket.link(self.names.node_link)
        if link is None or link.alias not in ("", owner):
            raise NetlinkError(
                0, f"{self.names.node_link} belongs to the plane in {link and link.alias}: move one of the two"
            )
        six = self.ranges.six
        sysctl.apply(self.names.node_link, sysctl.WITH_IPV6 if six else sysctl.WITHOUT_IPV6)
        socket.set_link(link.index, up=True, alias=owner).address(link.index, self.ranges.node, 32)
        if six:
            socket.address(link.index, six.node, 128)
        for network in self._networks():
            socket.route(network, 0, metric=_UNREACHABLE_METRIC)
        socket.commit()

    def _networks(self) -> list[str]:
        """What is ours to route, in both families."""
        six = self.ranges.six
        halves = (self.ranges.routed, self.ranges.bridged, *((six.routed, six.bridged) if six else ()))
        return [str(network) for network in halves]

    def prepare_gateway(self, bridge: str) -> None:
        """The bridge's LOCAL port as the gateway of bridged workloads; the host itself speaks with the node's address."""
        socket = host()
        index = socket.index(bridge)
        sysctl.apply(bridge, sysctl.ROUTED_PORT)
        network = self.ranges.bridged
        socket.set_link(index, up=True).address(index, self.ranges.bridge_gateway, network.prefixlen, routed=False)
        socket.route(str(network), index, source=self.ranges.node)
        six = self.ranges.six
        sysctl.apply(bridge, sysctl.WITH_IPV6 if six else sysctl.WITHOUT_IPV6)
        if six:
            socket.address(index, link_local(mac_of(self.ranges.bridge_gateway)), 64)
            socket.address(index, six.bridge_gateway, 64, routed=False)
            socket.route(str(six.bridged), index, source=six.node)
        socket.commit()

    def leftovers(self, known: Sequence[str]) -> Sequence[str]:
        """Names of links and namespaces of this plane that belong to none of the uids ``known``."""
        ours = {self.names.veth(uid) for uid in known} | {self.names.tap(uid) for uid in known}
        spaces = {self.names.netns(uid) for uid in known}
        links = [link.name for link in host().links() if link.name.startswith(self.names.link_prefixes)]
        found = [entry.name for entry in NETNS_DIRECTORY.glob(self.names.netns_prefix + "*")]
        return [name for name in links if name not in ours] + [name for name in found if name not in spaces]

    def remove_named(self, names: Sequence[str]) -> None:
        """Remove links and namespaces by name."""
        for name in names:
            if name.startswith(self.names.netns_prefix):
                netns.delete(NETNS_DIRECTORY / name)
            else:
                host().delete_link(name).commit()

    def remove_node(self, routes: bool) -> None:
        """Everything that ``prepare_node`` made; ``routes`` False when the range is not known to be ours."""
        socket = host()
        for network in self._networks() if routes else ():
            socket.delete_unreachable(network, _UNREACHABLE_METRIC)
        socket.delete_link(self.names.node_link)
        socket.commit()
