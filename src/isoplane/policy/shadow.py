"""Rules and peers that change nothing, because another one already says as much."""

from __future__ import annotations

from collections.abc import Iterator

from isoplane.objects.selectors import EVERYTHING
from isoplane.policy.model import Cluster
from isoplane.policy.rules import DIRECTIONS, ClusterPolicy, Peer, Policy, PortMatch, Rule
from isoplane.policy.universe import Universe, bits_of

_PAIRS = 200_000
"""Comparisons at most for one namespace: advice must stay cheap for policies of thousands of rules."""

Shadowed = tuple[str, str, str]
"""(policy, path, message)."""


def shadowed(cluster: Cluster, universe: Universe) -> Iterator[Shadowed]:
    """NetworkPolicy rules inside another one that covers the same subjects; cluster rules behind an earlier one."""
    by_namespace: dict[str, list[Policy]] = {}
    for policy in cluster.policies:
        by_namespace.setdefault(policy.namespace, []).append(policy)
    for policies in by_namespace.values():
        for direction in DIRECTIONS:
            yield from _network(universe, policies, direction)
    for direction in DIRECTIONS:
        yield from _cluster(universe, cluster.cluster_policies, direction)
    for policy in cluster.policies:
        for direction in DIRECTIONS:
            for rule in policy.rules(direction) or ():
                yield from _items(policy, rule)


def _network(universe: Universe, policies: list[Policy], direction: str) -> Iterator[Shadowed]:
    directory = universe.directory
    rules = [
        (policy, rule, bits_of(directory.select(policy.namespace, None, policy.subjects)))
        for policy in policies
        for rule in policy.rules(direction) or ()
    ]
    budget = _PAIRS
    for at, (policy, rule, subjects) in enumerate(rules):
        for other_at, (_, other, other_subjects) in enumerate(rules):
            budget -= 1
            if budget < 0:
                return
            if other_at == at or subjects & ~other_subjects or not _inside(rule, other):
                continue
            mutual = not other_subjects & ~subjects and _inside(other, rule)
            if mutual and other_at > at:
                continue  # of two equal rules only the later one is told
            yield policy.id, _path(rule), f"adds nothing to {other.id}"
            break


def _cluster(universe: Universe, policies: tuple[ClusterPolicy, ...], direction: str) -> Iterator[Shadowed]:
    earlier: list[tuple[str, int, Rule]] = []
    budget = _PAIRS
    for policy in sorted(policies, key=lambda p: (p.tier, p.priority, p.name)):
        subjects = bits_of(universe.directory.select(None, policy.namespaces, policy.pods))
        for rule in policy.rules(direction):
            for tier, other_subjects, other in earlier:
                budget -= 1
                if budget < 0:
                    return
                if tier == policy.tier and not subjects & ~other_subjects and _inside(rule, other):
                    yield policy.id, _path(rule), f"is never reached: {other.id} ({other.action}) decides first"
                    break
            earlier.append((policy.tier, subjects, rule))


def _items(policy: Policy, rule: Rule) -> Iterator[Shadowed]:
    """Items of one from/to list inside another item, as written."""
    peers = rule.peers or ()
    if len(peers) ** 2 > _PAIRS:
        return
    key = "from" if "/ingress[" in rule.id else "to"
    for at, peer in enumerate(peers):
        for other_at, other in enumerate(peers):
            if at == other_at or not _peer_inside(peer, other):
                continue
            if other_at < at or not _peer_inside(other, peer):  # of two equal items only the later one is told
                yield policy.id, f"{_path(rule)}.{key}[{at}]", f"is already covered by {key}[{other_at}]"
                break


def _inside(rule: Rule, other: Rule) -> bool:
    """Whether everything that a rule matches, the other matches as written, whatever workloads come and go."""
    if not _ports_inside(rule.ports, other.ports):
        return False
    if other.peers is None:
        return True
    return rule.peers is not None and all(any(_peer_inside(p, o) for o in other.peers) for p in rule.peers)


def _peer_inside(peer: Peer, other: Peer) -> bool:
    if peer == other:
        return True
    if peer.block and other.block:
        return not other.block.excepts and other.block.cidr.covers(peer.block.cidr)
    if peer.block or other.block or peer.nodes or other.nodes or other.pods not in (None, EVERYTHING):
        return False
    return other.namespaces == EVERYTHING or (peer.namespace, peer.namespaces) == (other.namespace, other.namespaces)


def _ports_inside(ports: tuple[PortMatch, ...] | None, others: tuple[PortMatch, ...] | None) -> bool:
    if others is None:
        return True
    if ports is None:
        return False
    return all(any(_port_inside(port, other) for other in others) for port in ports)


def _port_inside(port: PortMatch, other: PortMatch) -> bool:
    if port.name or other.name:
        return port.name == other.name and other.protocol in ("", port.protocol)
    return port.protocol == other.protocol and other.low <= port.low and port.high <= other.high


def _path(rule: Rule) -> str:
    return f"spec.{rule.id.rpartition('/')[2]}"
