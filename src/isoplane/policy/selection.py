"""Which rules of a direction match which peers: the compiler's first half, still in endpoints instead of addresses.

Endpoints under the same policies share one Selection.  ``compile.py`` spreads it over addresses; ``reach.py`` reads it
as it is, which is how workloads without addresses are answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from isoplane.objects.selectors import Selector
from isoplane.policy.addresses import Prefix, address, host
from isoplane.policy.directory import Directory
from isoplane.policy.model import Endpoint, NamedPort
from isoplane.policy.rules import (
    ACCEPT,
    ADMIN,
    BASELINE,
    DENY,
    EGRESS,
    INGRESS,
    MAX_PORT,
    OTHER,
    PORT_PROTOCOLS,
    Block,
    ClusterPolicy,
    Peer,
    Policy,
    PortMatch,
    Rule,
)
from isoplane.policy.table import NO_CLASS, Entry, PeerClass, peer_class

Served = tuple[NamedPort, ...]
"""Those ports of a destination whose names the rules mention."""
Match = tuple[tuple[int, ...], Served]
"""The rules that match a peer, as ascending positions in ``Selection.rules``, and what names mean there."""


@dataclass(frozen=True, slots=True)
class Selection:
    """One direction of a group of subjects.

    ``rules`` stand in the order of evaluation: Admin rules, then NetworkPolicy rules from ``first_network``, then
    Baseline rules from ``first_baseline``.  ``everyone`` are the rules for all peers; ``members`` says for each
    endpoint that a selector names (or whose named ports matter) which further rules match.
    """

    direction: str
    rules: tuple[Rule, ...]
    first_network: int
    first_baseline: int
    policies: tuple[str, ...]
    served: Served
    everyone: tuple[int, ...]
    members: Mapping[int, Match]
    blocks: tuple[tuple[int, Block], ...]

    @property
    def isolated(self) -> bool:
        return bool(self.policies)

    def match(self, position: int) -> Match:
        """The rules that match an endpoint without regard to its addresses."""
        rules, served = self.members.get(position, ((), self.served))
        return merge(self.everyone, rules), served

    def entries(self, match: Match) -> PeerClass:
        """The class of peers that exactly these rules match: disjoint intervals with their outcome."""
        positions, served = match
        if not positions:
            return NO_CLASS
        found: list[Entry] = []
        spans: dict[str, list[tuple[int, int, int]]] = {}
        for position in positions:
            for protocol, low, high in spans_of(self.rules[position], served):
                spans.setdefault(protocol, []).append((position, low, high))
        for protocol in PORT_PROTOCOLS:
            if protocol in spans:
                found += self._sweep(protocol, spans[protocol])
        if outcome := self._decide([i for i in positions if self.rules[i].ports is None]):
            found.append(Entry(OTHER, 0, 0, *outcome))
        return peer_class(tuple(found))

    def _sweep(self, protocol: str, spans: list[tuple[int, int, int]]) -> Iterable[Entry]:
        """Cut at every bound, decide each piece by the rules active there, join equal neighbours."""
        starts: dict[int, list[int]] = {}
        ends: dict[int, list[int]] = {}
        for position, low, high in spans:
            starts.setdefault(low, []).append(position)
            ends.setdefault(high + 1, []).append(position)
        cuts = sorted({*starts, *ends})
        active: dict[int, int] = {}
        last: Entry | None = None
        for cut, following in pairwise(cuts):
            for position in ends.get(cut, ()):
                active[position] -= 1
                if not active[position]:
                    del active[position]
            for position in starts.get(cut, ()):
                active[position] = active.get(position, 0) + 1
            outcome = self._decide(sorted(active)) if active else None
            if outcome is None:
                continue
            if last and last.high + 1 == cut and (last.allow, last.rules) == outcome:
                last = Entry(protocol, last.low, following - 1, *outcome)
                continue
            if last:
                yield last
            last = Entry(protocol, cut, following - 1, *outcome)
        if last:
            yield last

    def _decide(self, positions: list[int]) -> tuple[bool, tuple[str, ...]] | None:
        """The outcome where these rules match, in order; None leaves it to the default.

        In the Admin tier the first rule decides, and Pass leaves it to NetworkPolicy.  NetworkPolicy is final for the
        endpoints it isolates; only for others the Baseline tier is asked, in the same manner.
        """
        network: list[str] = []
        tiers_done = -1
        for position in positions:
            rule = self.rules[position]
            if self.first_network <= position < self.first_baseline:
                network.append(rule.id)
                continue
            tier = 0 if position < self.first_network else 1
            if tier == 1 and self.isolated:
                break
            if tier <= tiers_done:
                continue
            if rule.action in (ACCEPT, DENY):
                return rule.action == ACCEPT, (rule.id,)
            tiers_done = tier
        return (True, tuple(network)) if network else None


def merge(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """The ascending union of two ascending tuples."""
    if not one or not other:
        return one or other
    return tuple(sorted({*one, *other}))


def spans_of(rule: Rule, served: Served) -> list[tuple[str, int, int]]:
    """The (protocol, low, high) that a rule's ports mean where the destination serves these named ports."""
    if rule.ports is None:
        return [(protocol, 0, MAX_PORT) for protocol in PORT_PROTOCOLS]
    spans = []
    for port in rule.ports:
        if port.name:
            spans += [(s.protocol, s.number, s.number) for s in served if serves(s, port)]
        else:
            spans.append((port.protocol, port.low, port.high))
    return sorted(set(spans))


def serves(declared: NamedPort, wanted: PortMatch) -> bool:
    """Whether a declared port is the named port that a rule means."""
    return declared.name == wanted.name and wanted.protocol in ("", declared.protocol)


def names_in(rules: Iterable[Rule]) -> frozenset[str]:
    """The port names that rules mention."""
    return frozenset(p.name for r in rules for p in r.ports or () if p.name)


def served_by(endpoint: Endpoint, names: frozenset[str]) -> Served:
    """Those ports of an endpoint that have one of the names."""
    if not names:
        return ()
    return tuple(sorted((p for p in endpoint.ports if p.name in names), key=lambda p: (p.name, p.protocol, p.number)))


def ordered_rules(
    direction: str, policies: Iterable[Policy], cluster_policies: Iterable[ClusterPolicy]
) -> tuple[tuple[Rule, ...], int, int]:
    """The rules in the order of evaluation, and where NetworkPolicy's and the Baseline tier's begin."""
    tiers: dict[str, list[Rule]] = {ADMIN: [], BASELINE: []}
    for cluster_policy in sorted(cluster_policies, key=lambda p: (p.priority, p.name)):
        tiers[cluster_policy.tier] += cluster_policy.rules(direction)
    network = [rule for policy in policies for rule in policy.rules(direction) or ()]
    rules = (*tiers[ADMIN], *network, *tiers[BASELINE])
    return rules, len(tiers[ADMIN]), len(tiers[ADMIN]) + len(network)


def select(
    directory: Directory,
    direction: str,
    subject_served: Served,
    policies: tuple[Policy, ...],
    cluster_policies: tuple[ClusterPolicy, ...],
) -> Selection:
    """The selection for subjects under these policies (all of which govern the direction).

    ``subject_served`` are the subject's own named ports, which ingress rules mean; egress rules mean the peer's.
    """
    rules, first_network, first_baseline = ordered_rules(direction, policies, cluster_policies)
    by_peers: dict[tuple[Peer, ...] | None, list[int]] = {}
    for position, rule in enumerate(rules):
        by_peers.setdefault(rule.peers, []).append(position)
    everyone = by_peers.pop(None, [])
    blocks: list[tuple[int, Block]] = []
    matched: dict[int, list[int]] = {}
    groups = list(by_peers.items())
    for number, (peers, positions) in enumerate(groups):
        chosen: set[int] = set()
        for peer in peers or ():
            if peer.block is not None:
                blocks += [(position, peer.block) for position in positions]
            elif peer.nodes is not None:
                prefixes = node_prefixes(directory, peer.nodes)
                blocks += [(position, Block(prefix)) for prefix in prefixes for position in positions]
            else:
                chosen.update(directory.peer(peer))
        for chosen_one in chosen:
            matched.setdefault(chosen_one, []).append(number)
    names = names_in(rules) if direction == EGRESS else frozenset()
    own = subject_served if direction == INGRESS else ()
    known: dict[tuple[int, ...], Match] = {}
    members: dict[int, Match] = {}
    for i, numbers in matched.items():
        key = tuple(numbers)
        if key not in known:
            known[key] = (tuple(sorted(p for number in key for p in groups[number][1])), own)
        members[i] = known[key]
    if names:
        for i in directory.serving(names):
            members[i] = (members.get(i, ((), ()))[0], served_by(directory.endpoints[i], names))
    return Selection(
        direction=direction,
        rules=rules,
        first_network=first_network,
        first_baseline=first_baseline,
        policies=tuple(p.id for p in policies),
        served=own,
        everyone=tuple(everyone),
        members=members,
        blocks=tuple(blocks),
    )


def node_prefixes(directory: Directory, selector: Selector) -> list[Prefix]:
    """The addresses of the nodes whose labels match, each as a prefix."""
    nodes = directory.cluster.nodes
    return [host(*address(ip)) for node in nodes if selector.matches(node.labels) for ip in node.ips]
