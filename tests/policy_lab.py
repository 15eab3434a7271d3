"""A cluster in miniature with real packets: endpoints from manifests, links by the fabric, rules by the enforcer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from fabric_support import EchoServer, TapGuest, pings, tcp_reaches, udp_reaches, workload
from isoplane.node.network.enforcer import Enforcer, Rendered
from isoplane.node.network.engines.choose import engines_for
from isoplane.node.network.engines.protocol import Engine
from isoplane.node.network.fabric import HostFabric
from isoplane.node.network.protocol import Plug
from isoplane.node.network.rules import NodeRules
from isoplane.node.network.settings import FabricSettings, Wiring
from isoplane.policy.compile import compile_tables
from isoplane.policy.model import Cluster, Endpoint, Node
from isoplane.policy.snapshot import from_objects
from isoplane.policy.verdict import Connection, judge, party
from isoplane.workload.shape import Attachment

MIXES = {
    "nftables-and-openvswitch": ("nftables", Wiring.ROUTED, Wiring.BRIDGED),
    "iptables-and-openvswitch": ("iptables", Wiring.ROUTED, Wiring.BRIDGED),
    "openvswitch": ("nftables", Wiring.BRIDGED, Wiring.BRIDGED),
    "nftables": ("nftables", Wiring.ROUTED, Wiring.ROUTED),
    "iptables": ("iptables", Wiring.ROUTED, Wiring.ROUTED),
}
"""Which engines carry containers and machines: every choice that a node can be started with, and each engine alone."""
NODE = "node"
PORTS = {"TCP": 8080, "UDP": 53}


def manifests(*files: Path) -> list[dict[str, Any]]:
    return [document for file in files for document in yaml.safe_load_all(file.read_text()) if document]


@dataclass
class Place:
    """Where one endpoint lives."""

    id: str
    path: str
    address: str
    guest: TapGuest | None
    servers: list[EchoServer]


class PolicyLab:
    """One node. Machines are stood in by a tap's other end; every place serves TCP and UDP on the ports asked for."""

    def __init__(
        self, data: Path, cidr: str, mix: str, ports: Sequence[int], *, serve: Sequence[str] | None = None
    ) -> None:
        routed, containers, machines = MIXES[mix]
        settings = FabricSettings(
            data,
            cidr=cidr,
            container_wiring=containers,
            machine_wiring=machines,
            routed_engine=routed,
            quarantine_seconds=0,
        )
        self.fabric = HostFabric(settings)
        self.ports, self._serve = ports, serve
        self.cluster = Cluster()
        self.places: dict[str, Place] = {}
        self.engines: list[Engine] = []
        self.enforcer: Enforcer
        self._threads = ThreadPoolExecutor(48)

    async def start(self, objects: Iterable[Mapping[str, Any]]) -> None:
        fabric, settings = self.fabric, self.fabric.settings
        await fabric.start()
        self.engines += engines_for(fabric)
        self._names: dict[str, str] = {}
        rules = NodeRules(
            NODE, settings, fabric.ranges, [engine.name for engine in self.engines], lambda plug: self._names[plug.uid]
        )

        async def compile(plugs: Sequence[Plug]) -> Rendered:
            return rules.render(compile_tables(self.cluster), plugs)

        self.enforcer = Enforcer(self.engines, compile, fabric.plugs, drift=0.5)
        fabric.on_reset(self.enforcer.reset)
        await self.enforcer.start()
        endpoints = from_objects(objects).endpoints
        for endpoint in endpoints:
            await self._place(endpoint)
        await self.load(objects)

    async def _place(self, endpoint: Endpoint) -> None:
        kind = Attachment.VETH if endpoint.kind == "pod" else Attachment.TAP
        load = workload(endpoint.name, kind, uid=endpoint.id, namespace=endpoint.namespace)
        self._names[load.uid] = endpoint.id
        link = await self.fabric.plug(load)
        guest = None
        path = link.netns
        if kind is Attachment.TAP:
            guest = TapGuest(link.tap, link.mac, "t")
            guest.use(link.address, link.prefix_length, link.gateway)
            path = guest.path
        serves = self._serve is None or endpoint.name in self._serve
        servers = [EchoServer(path, port) for port in self.ports] if serves else []
        self.places[endpoint.id] = Place(endpoint.id, path, link.address, guest, servers)

    async def load(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Other policies from now on; the endpoints stay."""
        found = from_objects(objects)
        placed = tuple(
            replace(endpoint, ips=(self.places[endpoint.id].address,), node=NODE)
            for endpoint in found.endpoints
            if endpoint.id in self.places
        )
        self.cluster = replace(found, endpoints=placed, nodes=(Node(NODE, (self.fabric.node_address,)),))
        await self.enforcer.request()
        assert self.enforcer.status.failures == {}

    def with_address(self, id: str, address: str) -> Cluster:
        """The cluster with one more endpoint, by the address that it was plugged in with."""
        kind, namespace, name = id.split("/")
        late = Endpoint(kind, namespace, name, ips=(address,), node=NODE)
        return replace(self.cluster, endpoints=(*self.cluster.endpoints, late))

    def expected(self, source: str, target: str, protocol: str, port: int) -> bool:
        """The reference's answer."""
        one, two = self.places[source].address, self.places[target].address
        verdict = judge(self.cluster, Connection(party(self.cluster, one), party(self.cluster, two), protocol, port))
        return verdict.allowed

    def reaches(self, source: str, target: str, protocol: str, port: int, timeout: float = 0.4) -> bool:
        path, address = self.places[source].path, self.places[target].address
        if protocol == "TCP":
            return tcp_reaches(path, address, port, timeout=timeout)
        return udp_reaches(path, address, port, timeout) if protocol == "UDP" else pings(path, address, timeout)

    def questions(self) -> list[tuple[str, str, str, int]]:
        """Every pair of places on every port, and ICMP."""
        kinds = [(protocol, port) for protocol in ("TCP", "UDP") for port in self.ports] + [("OTHER", 0)]
        return [(one, two, *kind) for one in self.places for two in self.places if one != two for kind in kinds]

    async def disagreements(self, wanted: Iterable[tuple[str, str, str, int]] | None = None) -> list[str]:
        """Every question whose packet and reference disagree; all pairs on all ports unless told."""
        questions = self.questions() if wanted is None else list(wanted)
        loop = asyncio.get_running_loop()
        got = await asyncio.gather(*(loop.run_in_executor(self._threads, self.reaches, *one) for one in questions))
        found = []
        for question, reached in zip(questions, got, strict=True):
            if reached is not self.expected(*question):
                if not reached and await loop.run_in_executor(self._threads, self.reaches, *question, 4.0):
                    continue  # the host was busy; what should not pass and does, counts at once
                found.append(f"{question}: the packet {'passed' if reached else 'was lost'}")
        return found

    async def stop(self) -> None:
        for place in self.places.values():
            for server in place.servers:
                server.close()
            if place.guest is not None:
                place.guest.close()
        try:
            if hasattr(self, "enforcer"):
                await self.enforcer.clear()
        finally:
            await self.fabric.teardown()
            self._threads.shutdown()
