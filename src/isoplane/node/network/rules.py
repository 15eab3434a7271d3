"""From compiled tables to what the engines load on this node: the fabric's facts and the policies' renderers, put together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from isoplane.node.network.closing import meet_tables
from isoplane.node.network.enforcer import EngineRules, Rendered, revision_of
from isoplane.node.network.engines.iptables import join
from isoplane.node.network.engines.protocol import Connection
from isoplane.node.network.ipam import mac_of
from isoplane.node.network.settings import FabricSettings, Ranges
from isoplane.node.runtime.protocol import NetworkInterface
from isoplane.policy import iptables, nftables, openflow
from isoplane.policy.bridge import TRACKED
from isoplane.policy.hits import Counted, unloaded
from isoplane.policy.interfaces import EndpointInterface, NodeNetwork
from isoplane.policy.packets import PacketJudge
from isoplane.policy.rules import OTHER, PORT_PROTOCOLS
from isoplane.policy.table import Tables

BEGUN = "".join(
    f"table={TRACKED},priority=95,{protocol},ct_state=+trk+new,tcp_flags={flags},actions=drop\n"
    for protocol in ("tcp", "tcp6")
    for flags in ("-syn", "+ack", "+rst", "+fin")
)
"""A TCP connection begins with a SYN: a cut one must not live on the other way round (see engines/nft_guard.py)."""


def node_network(node: str, settings: FabricSettings, ranges: Ranges) -> NodeNetwork:
    """The node's own part of every ruleset. The tracking zone and the log group differ between planes that share a kernel."""
    own = int(settings.names.tag, 16) % 65534 + 1
    return NodeNetwork(
        name=node,
        ips=ranges.hosts,
        bridge_mac=mac_of(ranges.bridge_gateway),
        guarded=settings.names.link_prefixes,
        zone=own,
        log_group=own,
    )


def interfaces_of(
    interfaces: Sequence[NetworkInterface], settings: FabricSettings, ids: Callable[[NetworkInterface], str]
) -> list[EndpointInterface]:
    """How the interfaces hang on the node; behind a bridge port the host sees its packets on the bridge itself."""
    return [
        EndpointInterface(
            ids(interface),
            interface.addresses,
            settings.names.bridge if interface.ofport else interface.host_interface,
            interface.ofport,
            interface.mac,
        )
        for interface in interfaces
    ]


@dataclass(frozen=True, slots=True)
class _Rulesets:
    """What can tell its difference from another of its kind."""

    nftables: nftables.Ruleset | None
    iptables: iptables.Ruleset | None


class NodeRules:
    """Renders for the engines of one node and remembers what it rendered last, for differences and for closing first.

    ``ids`` tells the policies' name of an interface, e.g. ``pod/ns/name``.  Every engine gets the interfaces of all
    endpoints, for each judges both directions of what it sees.
    """

    def __init__(
        self,
        node: str,
        settings: FabricSettings,
        ranges: Ranges,
        engines: Sequence[str],
        ids: Callable[[NetworkInterface], str],
    ) -> None:
        self._settings, self._engines, self._ids = settings, tuple(engines), ids
        self._node = node_network(node, settings, ranges)
        self._tables: Tables | None = None
        self._texts: Mapping[str, str] = {}
        self._made = _Rulesets(None, None)
        self._revision = ""
        self._attached: Sequence[EndpointInterface] = ()

    def render(self, tables: Tables, interfaces: Sequence[NetworkInterface]) -> Rendered:
        """What to load for these tables and interfaces. ValueError when two interfaces share an address."""
        attached = interfaces_of(interfaces, self._settings, self._ids)
        made = self._rulesets(tables, attached)
        texts = self._render(tables, attached, made)
        revision = revision_of(*texts.values())
        rules = {name: EngineRules(text) for name, text in texts.items()}
        closing: Mapping[str, str] = {}
        forbids = True
        if self._tables is not None and revision != self._revision:
            for name, update in self._updates(made).items():
                rules[name] = EngineRules(texts[name], update, revision_of(self._texts[name]))
            met = meet_tables(self._tables, tables)
            narrower = _differ(met, self._tables)
            forbids = narrower or bool(self._tables.endpoints.keys() - tables.endpoints.keys())
            if narrower and (_differ(met, tables) or tables.endpoints.keys() - self._tables.endpoints.keys()):
                closing = self._closing(met, attached, texts)
        self._tables, self._texts, self._made, self._revision = tables, texts, made, revision
        self._attached = attached
        return Rendered(
            revision, rules, closing, self._own(tables, interfaces), forbids, permitting(tables, self._node.ips)
        )

    def counted(self) -> Mapping[str, Counted]:
        """What the counters of what was rendered last stand for, by engine; nothing before the first rendering."""
        made, tables, attached = self._made, self._tables, self._attached
        if tables is None:
            return {}
        found, without = {}, unloaded(tables)
        if made.nftables is not None:
            found["nftables"] = Counted(made.nftables.counted, without)
        if made.iptables is not None:
            found["iptables"] = Counted(made.iptables.counted, without | made.iptables.uncounted)
        if "openvswitch" in self._engines:
            found["openvswitch"] = Counted(openflow.counted(tables, attached), without)
        return found

    def _own(self, tables: Tables, interfaces: Sequence[NetworkInterface]) -> dict[str, str]:
        """Each workload's own revision, which other workloads' rules do not change."""
        found = {}
        for interface in interfaces:
            entry = tables.endpoints.get(self._ids(interface))
            if entry is not None:
                found[interface.uid] = revision_of(*interface.addresses, entry.ingress.key, entry.egress.key)
        return found

    def _rulesets(self, tables: Tables, attached: Sequence[EndpointInterface]) -> _Rulesets:
        return _Rulesets(
            nftables.ruleset(tables, attached, self._node) if "nftables" in self._engines else None,
            iptables.ruleset(tables, attached, self._node) if "iptables" in self._engines else None,
        )

    def _render(self, tables: Tables, attached: Sequence[EndpointInterface], made: _Rulesets) -> dict[str, str]:
        texts = {}
        if made.nftables is not None:
            texts["nftables"] = made.nftables.text()
        if made.iptables is not None:
            texts["iptables"] = join(made.iptables.steps())
        if "openvswitch" in self._engines:
            texts["openvswitch"] = openflow.render_openflow(tables, attached, self._node) + BEGUN
        return texts

    def _updates(self, made: _Rulesets) -> dict[str, str]:
        """What leads from the last rules to these; the flows' difference is found by their engine."""
        updates = {"openvswitch": ""} if "openvswitch" in self._engines else {}
        if made.nftables is not None and self._made.nftables is not None:
            updates["nftables"] = made.nftables.update(self._made.nftables)
        if made.iptables is not None and self._made.iptables is not None:
            updates["iptables"] = join(made.iptables.steps(self._made.iptables))
        return updates

    def _closing(
        self, met: Tables, attached: Sequence[EndpointInterface], texts: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Needed only where more than one engine changes: each by itself is atomic."""
        if sum(self._texts.get(name) != text for name, text in texts.items()) < 2:
            return {}
        return self._render(met, attached, self._rulesets(met, attached))


def _differ(met: Tables, other: Tables) -> bool:
    """Whether any workload's tables are not the same in both."""
    pairs = ((entry, other.endpoints[name]) for name, entry in met.endpoints.items())
    return any(one.ingress.key != two.ingress.key or one.egress.key != two.egress.key for one, two in pairs)


def permitting(tables: Tables, node_ips: Sequence[str]) -> Callable[[Connection], bool]:
    """Whether the tables let a connection exist, by ``PacketJudge``, which is made when it is asked first."""

    @functools.cache
    def judge() -> PacketJudge:
        return PacketJudge(tables, node_ips)

    def permits(connection: Connection) -> bool:
        protocol = connection.protocol if connection.protocol in PORT_PROTOCOLS else OTHER
        port = connection.destination_port if protocol != OTHER else 0
        return judge().judge(connection.source, connection.destination, protocol, port).allowed

    return permits
