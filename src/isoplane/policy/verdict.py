"""The reference: judges one connection straight from the words of the NetworkPolicy API, slowly and plainly.

It shares the typed rules with the compiler and nothing else; that the two agree is tested, so it must not be made
clever.  ``explain.py`` answers with it, and the engines are held against it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from isoplane.policy.model import Cluster, Endpoint, unexposed
from isoplane.policy.rules import (
    ACCEPT,
    ADMIN,
    BASELINE,
    DIRECTIONS,
    EGRESS,
    INGRESS,
    OTHER,
    PASS,
    Block,
    Peer,
    Policy,
    PortMatch,
    Rule,
    policy_of,
)


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a connection: an endpoint, or an address outside, or an endpoint at one of its addresses.

    ``ip`` is empty for a workload whose address is unknown: it matches selectors and never an ipBlock.
    """

    endpoint: Endpoint | None = None
    ip: str = ""

    @property
    def governed(self) -> bool:
        return self.endpoint is not None and self.endpoint.governed


@dataclass(frozen=True, slots=True)
class Connection:
    """The first packet of a connection. ``protocol`` is TCP, UDP, SCTP or OTHER (ICMP and the rest, with port 0)."""

    source: Party
    destination: Party
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """One direction's answer.

    Of an allow, ``rules`` are those that match and ``policies`` theirs.  Of a block, ``policies`` are all that isolate
    the endpoint, or the cluster policy whose rule denies.  Both are empty where nothing governs; ``reason`` says why.
    """

    allowed: bool
    policies: tuple[str, ...]
    rules: tuple[str, ...]
    reason: str
    unexposed: bool = False
    """Blocked because the destination's interface does not list the port: no policy can change that."""


@dataclass(frozen=True, slots=True)
class Verdict:
    allowed: bool
    egress: Judgement
    ingress: Judgement

    def side(self, direction: str) -> Judgement:
        return self.egress if direction == EGRESS else self.ingress


def judge(cluster: Cluster, connection: Connection) -> Verdict:
    """Both directions of a connection; it passes when both allow it."""
    sides = {direction: judge_direction(cluster, connection, direction) for direction in DIRECTIONS}
    return Verdict(sides[EGRESS].allowed and sides[INGRESS].allowed, sides[EGRESS], sides[INGRESS])


def judge_direction(cluster: Cluster, connection: Connection, direction: str) -> Judgement:
    """The source's egress or the destination's ingress."""
    source, destination = connection.source, connection.destination
    subject, peer = (source, destination) if direction == EGRESS else (destination, source)
    if _same(source, destination):
        return Judgement(True, (), (), "a workload always reaches itself")
    if subject.endpoint is None:
        return Judgement(True, (), (), "outside the cluster: no policy governs this end")
    if not subject.endpoint.governed:
        why = "it uses the host's network" if subject.endpoint.host_network else "it has finished"
        return Judgement(True, (), (), f"no policy governs {subject.endpoint.id}: {why}")
    if direction == INGRESS and _is_own_node(cluster, subject.endpoint, source):
        return Judgement(True, (), (), "a node always reaches its own workloads")
    if direction == INGRESS and not subject.endpoint.exposes(connection.protocol, connection.port):
        return Judgement(False, (), (), unexposed(subject.endpoint.exposed), unexposed=True)
    return _judge_tiers(cluster, subject.endpoint, peer, connection, direction)


def _judge_tiers(cluster: Cluster, subject: Endpoint, peer: Party, connection: Connection, direction: str) -> Judgement:
    decided = _first_in_tier(cluster, ADMIN, subject, peer, connection, direction)
    if decided is not None:
        return decided
    policies = isolating(cluster, subject, direction)
    if policies:
        matching = [
            rule.id
            for policy in policies
            for rule in policy.rules(direction) or ()
            if rule_matches(cluster, rule, peer, connection)
        ]
        if not matching:
            return Judgement(False, tuple(p.id for p in policies), (), "isolated, and no rule allows it")
        return Judgement(True, tuple(dict.fromkeys(map(policy_of, matching))), tuple(matching), "a rule allows it")
    decided = _first_in_tier(cluster, BASELINE, subject, peer, connection, direction)
    return decided or Judgement(True, (), (), "no policy isolates it in this direction")


def _first_in_tier(
    cluster: Cluster, tier: str, subject: Endpoint, peer: Party, connection: Connection, direction: str
) -> Judgement | None:
    """The first matching rule by priority decides; Pass, like no match, leaves it to the next tier."""
    labels = cluster.namespaces[subject.namespace]
    for policy in sorted(cluster.cluster_policies, key=lambda p: (p.priority, p.name)):
        if policy.tier != tier or not policy.namespaces.matches(labels) or not policy.pods.matches(subject.labels):
            continue
        for rule in policy.rules(direction):
            if rule_matches(cluster, rule, peer, connection):
                if rule.action == PASS:
                    return None
                accepted = rule.action == ACCEPT
                verb = "accepts" if accepted else "denies"
                return Judgement(accepted, (policy.id,), (rule.id,), f"a rule of the {tier} tier {verb} it")
    return None


def isolating(cluster: Cluster, subject: Endpoint, direction: str) -> list[Policy]:
    """The NetworkPolicies that select the endpoint and govern the direction."""
    return [
        policy
        for policy in cluster.policies
        if policy.namespace == subject.namespace
        and policy.rules(direction) is not None
        and policy.subjects.matches(subject.labels)
    ]


def rule_matches(cluster: Cluster, rule: Rule, peer: Party, connection: Connection) -> bool:
    """Whether a rule's peers and ports both match."""
    return peers_match(cluster, rule, peer) and ports_match(rule, connection)


def peers_match(cluster: Cluster, rule: Rule, peer: Party) -> bool:
    return rule.peers is None or any(_peer_matches(cluster, item, peer) for item in rule.peers)


def ports_match(rule: Rule, connection: Connection) -> bool:
    """Names mean the ports that the destination declares, in either direction."""
    if rule.ports is None:
        return True
    if connection.protocol == OTHER:
        return False
    return any(_port_matches(port, connection) for port in rule.ports)


def _port_matches(port: PortMatch, connection: Connection) -> bool:
    if not port.name:
        return port.protocol == connection.protocol and port.low <= connection.port <= port.high
    target = connection.destination
    if target.endpoint is None or not target.governed or port.protocol not in ("", connection.protocol):
        return False
    return any(
        declared.name == port.name and declared.protocol == connection.protocol and declared.number == connection.port
        for declared in target.endpoint.ports
    )


def _peer_matches(cluster: Cluster, item: Peer, peer: Party) -> bool:
    if item.block is not None:
        return bool(peer.ip) and _in_block(item.block, peer.ip)
    if item.nodes is not None:
        chosen = (node for node in cluster.nodes if item.nodes.matches(node.labels))
        return bool(peer.ip) and any(_equal(peer.ip, ip) for node in chosen for ip in node.ips)
    if not peer.governed or peer.endpoint is None:
        return False
    endpoint = peer.endpoint
    if item.namespaces is None:
        if endpoint.namespace != item.namespace:
            return False
    elif not item.namespaces.matches(cluster.namespaces[endpoint.namespace]):
        return False
    return item.pods is None or item.pods.matches(endpoint.labels)


def _in_block(block: Block, ip: str) -> bool:
    found = ipaddress.ip_address(ip)
    if found not in ipaddress.ip_network(str(block.cidr)):
        return False
    return not any(found in ipaddress.ip_network(str(hole)) for hole in block.excepts)


def _equal(one: str, other: str) -> bool:
    return ipaddress.ip_address(one) == ipaddress.ip_address(other)


def _same(source: Party, destination: Party) -> bool:
    if source.endpoint is not None and destination.endpoint is not None:
        return source.endpoint.id == destination.endpoint.id and not source.endpoint.template
    return source.endpoint is destination.endpoint and source.ip == destination.ip


def _is_own_node(cluster: Cluster, subject: Endpoint, source: Party) -> bool:
    """The node's own address, or a workload in its network; without a node name, the only node there is."""
    if source.endpoint is not None:
        if not source.endpoint.host_network:
            return False
        return subject.node != "" and source.endpoint.node == subject.node
    own: Iterable[str] = ()
    for node in cluster.nodes:
        if node.name == subject.node or (not subject.node and len(cluster.nodes) == 1):
            own = node.ips
    return bool(source.ip) and any(_equal(source.ip, ip) for ip in own)


def party(cluster: Cluster, ip: str) -> Party:
    """Who an address is: the live endpoint that has it, else an outside address."""
    for endpoint in cluster.endpoints:
        if endpoint.governed and any(_equal(own, ip) for own in endpoint.ips):
            return Party(endpoint, ip)
    return Party(None, ip)
