"""Whether workloads whose egress is isolated may still ask a name server, over UDP and, for long answers, over TCP.

Where the snapshot has name servers the rules are held against them; where it has none, against whoever might be one.
"""

from __future__ import annotations

from collections.abc import Iterator

from isoplane.policy.compile import Compilation
from isoplane.policy.model import Endpoint
from isoplane.policy.rules import DENY, EGRESS, Peer, PortMatch, Rule
from isoplane.policy.selection import serves
from isoplane.policy.universe import Universe, positions_of

PORT = 53
TRANSPORTS = ("UDP", "TCP")
_LABELS = {"k8s-app": ("kube-dns", "coredns", "node-local-dns"), "app.kubernetes.io/name": ("coredns", "kube-dns")}
_USUAL_NAMES = ("dns", "dns-tcp", "dns-udp", "domain", "domain-tcp", "domain-udp")
Lacking = tuple[Endpoint, tuple[str, ...], tuple[str, ...], bool]
"""(one of the workloads, the ids of the policies they are under, the protocols they lack, whether anything is let out)."""


def lacking(compilation: Compilation, universe: Universe) -> Iterator[Lacking]:
    """One line for each group of workloads under the same policies that cannot ask a name server."""
    servers = [n for n, endpoint in enumerate(compilation.directory.endpoints) if _is_server(endpoint)]
    told: set[tuple[str, ...]] = set()
    for position, endpoint in enumerate(compilation.directory.endpoints):
        policies, wide = compilation.governing(position, EGRESS)
        ids = tuple(policy.id for policy in policies)
        if not policies or ids in told or position in servers:
            continue
        told.add(ids)
        rules = [r for p in policies for r in p.egress or ()] + [r for p in wide for r in p.egress if r.action != DENY]
        lacks = tuple(t for t in TRANSPORTS if not any(_speaks(universe, rule, servers, t) for rule in rules))
        if lacks:
            yield endpoint, ids, lacks, any(policy.egress for policy in policies)


def _is_server(endpoint: Endpoint) -> bool:
    if any(endpoint.labels.get(key) in values for key, values in _LABELS.items()):
        return True
    return any((port.protocol, port.number) == ("UDP", PORT) for port in endpoint.ports)


def _speaks(universe: Universe, rule: Rule, servers: list[int], transport: str) -> bool:
    """Whether a rule lets a workload ask some name server over UDP or TCP."""
    if not servers:
        meant = any(_means_dns(port, transport) for port in rule.ports or (PortMatch(transport),))
        return meant and (rule.peers is None or any(map(_may_be_server, rule.peers)))
    reached = set(positions_of(universe.peers(rule))) & set(servers)
    outside = any(peer.block is not None and not _inside_only(universe, peer) for peer in rule.peers or ())
    if not reached:
        return outside and any(_numbered(port, transport) for port in rule.ports or ())
    if rule.ports is None:
        return True
    endpoints = universe.directory.endpoints
    return any(_numbered(port, transport) for port in rule.ports) or any(
        serves(declared, port) and (declared.protocol, declared.number) == (transport, PORT)
        for port in rule.ports
        if port.name
        for position in reached
        for declared in endpoints[position].ports
    )


def _numbered(port: PortMatch, transport: str) -> bool:
    return not port.name and port.protocol == transport and port.low <= PORT <= port.high


def _means_dns(port: PortMatch, transport: str) -> bool:
    named = port.name in _USUAL_NAMES and port.protocol in ("", transport)
    return named or _numbered(port, transport)


def _inside_only(universe: Universe, peer: Peer) -> bool:
    """Whether a block is there for some workload of the cluster, which is then known to be no name server."""
    alone = universe.peers(Rule("", (peer,), None))
    return any(position < len(universe.directory.endpoints) for position in positions_of(alone))


def _may_be_server(peer: Peer) -> bool:
    """Whether a peer may be a name server that the manifests do not show: the policy's own namespace has none."""
    return peer.namespace is None or peer.namespace == "kube-system"
