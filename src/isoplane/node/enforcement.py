"""NetworkPolicy on the live node: the caches' view, compiled and rendered, kept on the engines by the enforcer.

The glue between things that do not know each other: ``policy_view`` (what is declared), ``policy.compile`` (what it means),
``network.enforcer`` (what is loaded), ``denials`` (what that dropped) and ``hits`` (what decided how often).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from isoplane.client.informer import Informers
from isoplane.client.policy_view import PolicyView
from isoplane.node import denials
from isoplane.node.denials import Denials
from isoplane.node.hits import HitCounter
from isoplane.node.network.background import Background
from isoplane.node.network.enforcer import EnforcementStatus, Enforcer, Rendered
from isoplane.node.network.engines.choose import engines_for
from isoplane.node.network.fabric import HostFabric
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.rules import NodeRules, node_network
from isoplane.node.runtime.protocol import NetworkInterface
from isoplane.node.seams import Events
from isoplane.policy.hits import RuleHits
from isoplane.policy.incremental import LiveTables
from isoplane.policy.model import Cluster, Node
from isoplane.policy.table import Tables
from isoplane.workload.registry import adapter_for, workload_resources

LOGGING = ("nftables", "iptables")
"""The engines whose rules log what they drop to the kernel's group."""
LASTING = 1.0
"""Seconds that a failure must last before every workload is marked with it."""


class NodeEnforcement:
    """Implements ``workload_controller.Enforcement`` for a started fabric. ``wake(uid)``: look at a workload again."""

    def __init__(
        self, node: str, fabric: HostFabric, informers: Informers, wake: Callable[[str], None], events: Events
    ) -> None:
        self._node = node
        self._fabric = fabric
        self._view = PolicyView(informers)
        self._informers = informers
        self._wake = wake
        self._events = events
        self._denials: Denials | None = None
        self._hits: HitCounter | None = None
        self._failure = ""
        self._watch = Background()
        self._rules: NodeRules
        self._enforcer: Enforcer | None = None
        self._live: LiveTables | None = None
        self._ids: Mapping[str, str] = {}

    async def start(self) -> None:
        """Close what no rules guard, load the rules of the moment, keep them loaded. EngineFailure when a tool lacks."""
        engines = engines_for(self._fabric)
        self._rules = NodeRules(
            self._node, self._fabric.settings, self._fabric.ranges, [engine.name for engine in engines], self._endpoint
        )
        self._enforcer = Enforcer(engines, self._compile, self._fabric.interfaces, on_enforced=self._told)
        self._fabric.on_reset(self._enforcer.reset)
        await self._enforcer.start()
        self._view.on_change(self._enforcer.poke)
        self._watch.start(self._watch_failures(self._enforcer))
        self._hits = HitCounter(engines, self._rules.counted)
        self._hits.start()
        own = node_network(self._node, self._fabric.settings, self._fabric.ranges)
        group = own.log_group if any(engine.name in LOGGING for engine in engines) else 0
        bridge = self._fabric.bridge
        management = None if bridge is None else lambda: bridge.management
        self._denials = Denials(group, management, own.ips, self._denied)
        self._denials.start()

    async def close(self) -> None:
        """Stop; the loaded rules stay and keep working."""
        if self._denials is not None:
            await self._denials.close()
            self._denials = None
        if self._hits is not None:
            await self._hits.close()
        await self._watch.close()
        if self._enforcer is not None:
            await self._enforcer.close()

    @property
    def status(self) -> EnforcementStatus | None:
        """What is loaded, what failed, how often rules had to be put back; None before the start."""
        return self._enforcer.status if self._enforcer is not None else None

    @property
    def hits(self) -> tuple[list[RuleHits], int]:
        """How often each policy's rule decided here, and how many rules are left out; nothing before the start."""
        return self._hits.told() if self._hits is not None else ([], 0)

    def enforced(self, uid: str) -> str | None:
        """The revision that guards a workload's port on every engine; None while it is closed."""
        return self._enforcer.enforced(uid) if self._enforcer is not None else None

    @property
    def failure(self) -> str:
        """Why the rules that policies ask for are not in force, for longer than a moment; '' when they are."""
        return self._failure

    async def _watch_failures(self, enforcer: Enforcer) -> None:
        """Let every workload here say so while an engine refuses. What the first retry mends is not worth saying."""
        before: frozenset[str] = frozenset()
        marked: frozenset[str] = frozenset()
        while True:
            await asyncio.sleep(LASTING)
            failures = enforcer.status.failures
            now = frozenset(failures)
            lasting = now & before
            before = now
            if lasting == marked:
                continue  # The words may change from try to try; what is told does not.
            try:
                interfaces = await self._fabric.interfaces()
            except FabricFailure:
                continue  # The fabric tells of itself; ask again in a moment.
            marked = lasting
            self._failure = "; ".join(f"{engine}: {failures[engine]}" for engine in sorted(lasting))
            self._told(frozenset(interface.uid for interface in interfaces))

    def changed(self, uid: str) -> None:
        """A workload was plugged in or out."""
        if self._enforcer is not None:
            self._enforcer.changed(uid)

    def _told(self, uids: frozenset[str]) -> None:
        for uid in uids:
            self._wake(uid)

    def _denied(self, endpoint: str, message: str) -> None:
        """An Event on the workload whose policies dropped a packet."""
        for resource in workload_resources():
            informer, adapter = self._informers.of(resource), adapter_for(resource)
            obj = informer.by_key(endpoint.partition("/")[2])
            if obj is None or adapter is None or informer.derived(adapter.project, obj).id != endpoint:
                continue
            named = {**obj, "apiVersion": resource.api_version, "kind": resource.kind}
            self._events(named, "Warning", denials.REASON, message)

    def _endpoint(self, interface: NetworkInterface) -> str:
        """The policies' name of whose it is; no policy opens one that no cache knows (any more)."""
        return self._ids.get(interface.uid, f"unknown/{interface.namespace}/{interface.name}")

    async def _compile(self, interfaces: Sequence[NetworkInterface]) -> Rendered:
        addresses = {interface.uid: interface.addresses for interface in interfaces}
        self._ids = self._view.ids((i.namespace, i.name, i.uid) for i in interfaces)
        ranges = self._fabric.ranges
        cluster = self._view.cluster(addresses, [Node(self._node, ranges.hosts)])
        tables = await asyncio.to_thread(self._tables, cluster)
        if self._hits is not None:
            self._hits.use(cluster)
        if self._denials is not None:
            self._denials.use(tables)
        return await asyncio.to_thread(self._rules.render, tables, interfaces)

    def _tables(self, cluster: Cluster) -> Tables:
        """The tables of a snapshot; only what differs from the last one is compiled. One call at a time."""
        live, self._live = self._live, None
        if live is None:
            live = LiveTables(cluster)
        else:
            # After a failure half of the differences may be in: then the next pass begins anew.
            live.update(cluster)
        tables = live.tables()
        self._live = live
        return tables
