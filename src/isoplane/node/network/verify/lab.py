"""A cluster in miniature with real packets: endpoints from manifests, links by the fabric, rules by the enforcer."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import random
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isoplane.node.network.enforcer import Enforcer, Rendered
from isoplane.node.network.engines.choose import engines_for
from isoplane.node.network.engines.protocol import Engine, EngineFailure
from isoplane.node.network.fabric import HostFabric
from isoplane.node.network.rules import NodeRules
from isoplane.node.network.settings import FabricSettings, Wiring
from isoplane.node.network.verify.guest import TapGuest
from isoplane.node.network.verify.probes import EchoServer, pings, tcp_reaches, udp_reaches
from isoplane.node.network.verify.sctp import SctpServer, sctp_reaches
from isoplane.node.runtime.protocol import NetworkInterface
from isoplane.objects.errors import ApiError
from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES
from isoplane.policy.compile import compile_tables
from isoplane.policy.endpoints import MACHINE_TEMPLATES
from isoplane.policy.model import Cluster, Endpoint, Node
from isoplane.policy.rules import OTHER, PORT_PROTOCOLS
from isoplane.policy.shrink import shrinking
from isoplane.policy.snapshot import from_objects
from isoplane.policy.verdict import Connection, judge, party
from isoplane.workload.shape import InterfaceType, RestartRule, RunState, Stage, Workload

MIXES = {
    "nftables-and-openvswitch": ("nftables", Wiring.ROUTED, Wiring.BRIDGED),
    "iptables-and-openvswitch": ("iptables", Wiring.ROUTED, Wiring.BRIDGED),
    "openvswitch": ("nftables", Wiring.BRIDGED, Wiring.BRIDGED),
    "nftables": ("nftables", Wiring.ROUTED, Wiring.ROUTED),
    "iptables": ("iptables", Wiring.ROUTED, Wiring.ROUTED),
}
"""Which engines carry containers and machines: every choice that a node can be started with, and each engine alone."""
NODE = "node"
PATIENCE = 4.0
"""Seconds after which a packet that is allowed counts as lost."""
Question = tuple[str, str, str, int, int]
"""(source, target, protocol, port, family)."""
MACHINES = ("vm", "vmi", *(kind.lower() for kind in MACHINE_TEMPLATES))
"""The kinds of endpoint that hang on a tap; every other is a container's."""


def stand_in(
    name: str, interface: InterfaceType = InterfaceType.VETH, uid: str = "", namespace: str = "default"
) -> Workload:
    """A workload of which only identity and interface matter: nothing of it ever runs."""
    machine = interface.set_up_by_guest
    return Workload(
        resource=VIRTUALMACHINEINSTANCES if machine else PODS,
        namespace=namespace,
        name=name,
        uid=uid or str(uuid.uuid4()),
        created="2026-01-01T00:00:00Z",
        generation=1,
        labels={},
        annotations={},
        priority=0,
        priority_class="",
        preemption_policy="PreemptLowerPriority",
        request={},
        limits={},
        disruption_cost=10 if machine else 1,
        desired=RunState.RUN,
        grace_seconds=30,
        stop_deadline=None,
        restart=RestartRule.ALWAYS,
        graceful_resend=0,
        runtime="qemu" if machine else "oci",
        interface=interface,
        units=(),
        volumes=(),
        references=(),
        ports=(),
        hostname=name,
        service_account="",
        node="",
        node_selector={},
        gates=(),
        stage=Stage.PLACED,
        transitions={},
        deleting=False,
        owned_by_tenant=False,
        addresses=(),
    )


def _endpoints(objects: Iterable[Mapping[str, Any]]) -> tuple[Endpoint, ...]:
    """Of manifests by themselves, which may be no workloads at all."""
    try:
        return from_objects(objects).endpoints
    except ApiError:
        return ()


def spare_range(length: int = 24) -> str:
    """A range of the shared address space (RFC 6598) that is likely to be nobody's."""
    size = 1 << (32 - length)
    start = int(ipaddress.IPv4Address("100.64.0.0")) + random.randrange((1 << 22) // size) * size
    return f"{ipaddress.IPv4Address(start)}/{length}"


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A packet that did not do what the reference says. ``port`` is 0 for ICMP, whose ``protocol`` is OTHER."""

    source: str
    target: str
    protocol: str
    port: int
    family: int
    passed: bool

    @property
    def question(self) -> Question:
        return self.source, self.target, self.protocol, self.port, self.family

    def __str__(self) -> str:
        what = "ICMP" if self.protocol == OTHER else f"{self.port}/{self.protocol}"
        what += " over IPv6" if self.family == 6 else ""
        told = "passed, the policies forbid it" if self.passed else "was lost, the policies allow it"
        return f"{self.source} -> {self.target} on {what}: the packet {told}"


@dataclass
class Place:
    """Where one endpoint lives."""

    id: str
    path: str
    addresses: tuple[str, ...]
    guest: TapGuest | None
    servers: list[EchoServer | SctpServer]
    bridged: bool = False
    """Whether it hangs on the bridge itself."""

    @property
    def address(self) -> str:
        return self.addresses[0]

    def of(self, family: int) -> str:
        """Its address in family 4 or 6."""
        return next(one for one in self.addresses if (":" in one) is (family == 6))


class PolicyLab:
    """One node. Machines are stood in by a tap's other end; every place serves TCP, UDP and SCTP on the ports asked for."""

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
        self.enforcing = False
        """Whether it is this process that loads the rules, and so takes them away."""
        self.rules: NodeRules
        self._names: dict[str, str] = {}
        """uid → endpoint id."""
        self._own_ports = itertools.cycle(range(32768, 60000))
        self._own_port: dict[tuple[str, str, int, int], int] = {}
        """The port from which SCTP was last sent: (source, target, port, family) → port."""
        self._threads = ThreadPoolExecutor(48)

    async def start(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Plug in every endpoint of the manifests and enforce their policies. Raises FabricFailure, EngineFailure."""
        fabric, settings = self.fabric, self.fabric.settings
        await fabric.start()
        self.engines += engines_for(fabric)
        self.rules = NodeRules(
            NODE,
            settings,
            fabric.ranges,
            [engine.name for engine in self.engines],
            lambda interface: self._names[interface.uid],
        )

        async def compile(interfaces: Sequence[NetworkInterface]) -> Rendered:
            return self.rules.render(compile_tables(self.cluster), interfaces)

        self.enforcer = Enforcer(self.engines, compile, fabric.interfaces, drift=0.5)
        self.enforcing = True
        fabric.on_reset(self.enforcer.reset)
        await self.enforcer.start()
        for endpoint in from_objects(objects).endpoints:
            if endpoint.governed:
                await self._place(endpoint)
        await self.load(objects)

    async def _place(self, endpoint: Endpoint) -> None:
        kind = InterfaceType.TAP if endpoint.kind in MACHINES else InterfaceType.VETH
        load = stand_in(endpoint.name, kind, uid=endpoint.id, namespace=endpoint.namespace)
        self._names[load.uid] = endpoint.id
        link = await self.fabric.plug(load)
        guest = None
        path = link.netns
        if kind.set_up_by_guest:
            guest = TapGuest(link.tap, link.mac, "t")
            guest.use(link.address, link.prefix_length, link.gateway, link.address6, link.gateway6)
            path = guest.path
        serves = self._serve is None or endpoint.name in self._serve
        servers: list[EchoServer | SctpServer] = []
        if serves and self.ports:
            servers = [*(EchoServer(path, port) for port in self.ports), SctpServer(path, self.ports)]
        self.places[endpoint.id] = Place(endpoint.id, path, link.addresses, guest, servers, self._bridged(kind))

    def _bridged(self, kind: InterfaceType) -> bool:
        return self.fabric.settings.wiring_of(kind) is Wiring.BRIDGED

    async def load(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Other policies from now on; the endpoints stay. Raises EngineFailure when an engine refuses their rules."""
        found = from_objects(objects)
        placed = tuple(
            replace(endpoint, ips=self.places[endpoint.id].addresses, node=NODE)
            for endpoint in found.endpoints
            if endpoint.id in self.places
        )
        self.cluster = replace(found, endpoints=placed, nodes=(Node(NODE, self.fabric.node_addresses),))
        await self.enforcer.request()
        if failures := self.enforcer.status.failures:
            raise EngineFailure("; ".join(f"{name}: {why}" for name, why in failures.items()))

    def with_addresses(self, id: str, addresses: tuple[str, ...]) -> Cluster:
        """The cluster with one more endpoint, by the addresses that it was plugged in with."""
        kind, namespace, name = id.split("/")
        late = Endpoint(kind, namespace, name, ips=addresses, node=NODE)
        return replace(self.cluster, endpoints=(*self.cluster.endpoints, late))

    @property
    def families(self) -> tuple[int, ...]:
        """Those that the host has."""
        return (4, 6) if self.fabric.ranges.six else (4,)

    def expected(self, source: str, target: str, protocol: str, port: int, family: int = 4) -> bool:
        """The reference's answer."""
        one, two = self.places[source].of(family), self.places[target].of(family)
        verdict = judge(self.cluster, Connection(party(self.cluster, one), party(self.cluster, two), protocol, port))
        return verdict.allowed

    def reaches(
        self, source: str, target: str, protocol: str, port: int, family: int = 4, timeout: float = 0.4
    ) -> bool:
        """The packet's answer. Blocking, at most ``timeout`` seconds or a little more."""
        path, address = self.places[source].path, self.places[target].of(family)
        if protocol == "TCP":
            return tcp_reaches(path, address, port, timeout=timeout)
        if protocol == "SCTP":
            self._own_port[source, target, port, family] = own = next(self._own_ports)
            return sctp_reaches(path, address, port, timeout, own)
        return udp_reaches(path, address, port, timeout) if protocol == "UDP" else pings(path, address, timeout)

    def claimed(self, source: str, target: str, protocol: str, port: int, family: int = 4) -> bool:
        """Whether the last packet of this question passes for a reply that the policies allow.

        On the bridge SCTP is judged without memory, and no flow can tell what begins an association from what answers one.
        """
        if protocol != "SCTP" or not (self.places[source].bridged and self.places[target].bridged):
            return False
        return self.expected(target, source, protocol, self._own_port[source, target, port, family], family)

    def questions(self) -> list[Question]:
        """Every pair of places on every port, and ICMP, in every family."""
        kinds = [(protocol, port) for protocol in PORT_PROTOCOLS for port in self.ports] + [(OTHER, 0)]
        pairs = [(one, two) for one in self.places for two in self.places if one != two]
        return [(*pair, *kind, family) for pair in pairs for kind in kinds for family in self.families]

    async def disagreements(self, wanted: Iterable[Question] | None = None) -> list[Disagreement]:
        """Every question whose packet and reference disagree; all pairs on all ports unless told."""
        questions = self.questions() if wanted is None else list(wanted)
        loop = asyncio.get_running_loop()
        got = await asyncio.gather(*(loop.run_in_executor(self._threads, self.reaches, *one) for one in questions))
        found = []
        for question, reached in zip(questions, got, strict=True):
            if reached is not self.expected(*question) and not (reached and self.claimed(*question)):
                if not reached and await loop.run_in_executor(self._threads, self.reaches, *question, PATIENCE):
                    continue  # the host was busy; what should not pass and does, counts at once
                found.append(Disagreement(*question, reached))
        return found

    async def smallest(self, objects: Sequence[Mapping[str, Any]], wrong: Disagreement) -> list[Mapping[str, Any]]:
        """The least of these manifests that still makes this packet disagree; all of them when it does so no more."""
        ends = {wrong.source, wrong.target}

        def at_an_end(one: Mapping[str, Any]) -> bool:
            return any(endpoint.id in ends for endpoint in _endpoints([one]))

        steps = shrinking(list(objects), at_an_end)
        try:
            candidate = next(steps)
            while True:
                candidate = steps.send(await self._shows(candidate, wrong))
        except StopIteration as done:
            found: list[Mapping[str, Any]] = done.value
        return found

    async def _shows(self, objects: Sequence[Mapping[str, Any]], wrong: Disagreement) -> bool:
        try:
            await self.load(objects)
        except (ApiError, EngineFailure):
            return False  # not these manifests' fault, but their own
        if self.expected(*wrong.question) is wrong.passed:
            return False
        return await self.disagreements([wrong.question]) == [wrong]

    async def stop(self) -> None:
        """Remove every trace."""
        for place in self.places.values():
            for server in place.servers:
                server.close()
            if place.guest is not None:
                place.guest.close()
        try:
            if self.enforcing:
                await self.enforcer.clear()
        finally:
            await self.fabric.teardown()
            self._threads.shutdown()
