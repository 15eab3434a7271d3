"""Changes of policies that would allow a blocked connection, as JSON patches, the one that opens least first.

Candidates are one more port in a rule whose peers match, one more peer in a rule whose ports match, a namespaceSelector
beside a podSelector that was meant across namespaces, and a rule of its own.  Each is applied to the typed policy and
judged by the reference; what does not help is never proposed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from isoplane.objects import selectors
from isoplane.policy.addresses import address, host
from isoplane.policy.directory import Directory
from isoplane.policy.model import NAME_LABEL, Cluster, Endpoint
from isoplane.policy.rules import (
    ACCEPT,
    EGRESS,
    INGRESS,
    MAX_PORT,
    OTHER,
    PORT_PROTOCOLS,
    Block,
    Peer,
    Policy,
    PortMatch,
    Rule,
    policy_of,
)
from isoplane.policy.verdict import (
    Connection,
    Party,
    isolating,
    judge_direction,
    peers_match,
    ports_match,
    rule_matches,
)

_GENERATED = ("pod-template-hash", "controller-revision-hash", "pod-template-generation", "controller-uid")
_GENERATED_PARTS = ("statefulset.kubernetes.io/", "batch.kubernetes.io/", "apps.kubernetes.io/")
_ALL_PORTS = MAX_PORT + 1


@dataclass(frozen=True, slots=True)
class Change:
    """A JSON patch for one policy. ``opens``: how many (peer, port) pairs it lets pass beyond what passed before."""

    direction: str
    kind: str
    policy: str
    summary: str
    patch: tuple[dict[str, Any], ...]
    opens: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "direction": self.direction.lower(),
            "kind": self.kind,
            "policy": self.policy,
            "summary": self.summary,
            "patch": [dict(step) for step in self.patch],
        }


def changes_for(cluster: Cluster, connection: Connection, direction: str) -> list[Change]:
    """Every candidate that allows the blocked direction, the one that opens least first; empty when there is none."""
    subject, peer = _ends(connection, direction)
    if subject.endpoint is None:
        return []
    judgement = judge_direction(cluster, connection, direction)
    if judgement.rules:  # a ClusterNetworkPolicy denies
        found = list(_before_denial(cluster, connection, direction, judgement.rules[0]))
    else:
        directory = Directory(cluster)
        found = [
            change
            for policy in isolating(cluster, subject.endpoint, direction)
            for change in _in_policy(cluster, directory, policy, connection, direction, peer)
        ]
    return sorted(found, key=lambda c: c.opens)


def _ends(connection: Connection, direction: str) -> tuple[Party, Party]:
    """(subject, peer) of a direction."""
    ends = (connection.source, connection.destination)
    return ends if direction == EGRESS else (ends[1], ends[0])


def _in_policy(
    cluster: Cluster, directory: Directory, policy: Policy, connection: Connection, direction: str, peer: Party
) -> Iterator[Change]:
    key, peer_key = ("ingress", "from") if direction == INGRESS else ("egress", "to")
    rules = policy.rules(direction) or ()
    new_peer, written = _peer_for(peer, policy.namespace)
    match, port = _port_for(connection)

    def made(summary: str, changed: Rule, opens: int, path: str, value: Any) -> Iterator[Change]:
        # The direction is blocked for want of a rule that matches: one that does is enough.
        if rule_matches(cluster, changed, peer, connection):
            step = {"op": "add", "path": path, "value": value}
            yield Change(direction, "NetworkPolicy", policy.id, f"{policy.id}: {summary}", (step,), opens)

    for index, rule in enumerate(rules):
        where = f"{key}[{index}]"
        size = _size(rule)
        if ports_match(rule, connection) and rule.peers is not None:
            for at, item in enumerate(rule.peers):
                if wider := _across_namespaces(item, peer):
                    selector = {"matchLabels": {NAME_LABEL: peer.endpoint.namespace if peer.endpoint else ""}}
                    yield from made(
                        f"put a namespaceSelector beside the podSelector of {where}.{peer_key}[{at}], which as written "
                        f"matches only {policy.namespace}",
                        replace(rule, peers=_swap(rule.peers, at, wider)),
                        0,
                        f"/spec/{key}/{index}/{peer_key}/{at}/namespaceSelector",
                        selector,
                    )
            changed = replace(rule, peers=(*rule.peers, new_peer))
            yield from made(
                f"add a peer to {where}.{peer_key}",
                changed,
                len(directory.peer(new_peer) or (0,)) * size,
                f"/spec/{key}/{index}/{peer_key}/-",
                written,
            )
        if peers_match(cluster, rule, peer) and rule.ports is not None and match is not None:
            peers = (
                len(directory.endpoints)
                if rule.peers is None
                else sum(len(directory.peer(p) or (0,)) for p in rule.peers)
            )
            yield from made(
                f"add port {_shown(connection)} to {where}.ports",
                replace(rule, ports=(*rule.ports, match)),
                peers,
                f"/spec/{key}/{index}/ports/-",
                port,
            )
    rule = Rule(f"{policy.id}/{key}[{len(rules)}]", (new_peer,), (match,) if match else None)
    value = {peer_key: [written], **({"ports": [port]} if match else {})}
    yield from made(
        f"add a rule for {_shown(connection)} to {key}",
        rule,
        len(directory.peer(new_peer) or (0,)) * _size(rule) + 1,  # at equal effect, a smaller edit is better
        f"/spec/{key}/-" if rules else f"/spec/{key}",
        value if rules else [value],
    )


def _size(rule: Rule) -> int:
    """How many ports a rule covers; for all ports of all protocols, more than any range."""
    if rule.ports is None:
        return _ALL_PORTS * (len(PORT_PROTOCOLS) + 1)
    return sum(1 if p.name else p.high - p.low + 1 for p in rule.ports)


def _across_namespaces(item: Peer, peer: Party) -> Peer | None:
    """The peer with the namespace it lacks, where a bare podSelector matches the labels of a pod elsewhere."""
    if (
        item.namespace is None
        or item.pods is None
        or peer.endpoint is None
        or not item.pods.matches(peer.endpoint.labels)
    ):
        return None
    return replace(item, namespace=None, namespaces=selectors.from_object(_named(peer.endpoint)))


def _named(endpoint: Endpoint) -> dict[str, Any]:
    return {"matchLabels": {NAME_LABEL: endpoint.namespace}}


def _swap(peers: tuple[Peer, ...], index: int, peer: Peer) -> tuple[Peer, ...]:
    return (*peers[:index], peer, *peers[index + 1 :])


def _labels_for(endpoint: Endpoint) -> dict[str, str]:
    """The labels that identify it, without those that controllers generate anew."""
    return {
        k: v for k, v in sorted(endpoint.labels.items()) if k not in _GENERATED and not k.startswith(_GENERATED_PARTS)
    }


def _peer_for(peer: Party, namespace: str) -> tuple[Peer, dict[str, Any]]:
    """The narrowest from/to item for the other end, typed and as it is written."""
    if peer.endpoint is None or not peer.endpoint.governed:
        prefix = host(*address(peer.ip)) if peer.ip else host(4, 0)
        return Peer(block=Block(prefix)), {"ipBlock": {"cidr": str(prefix)}}
    labels = _labels_for(peer.endpoint)
    written: dict[str, Any] = {"podSelector": {"matchLabels": labels} if labels else {}}
    pods = selectors.from_object(written["podSelector"])
    if peer.endpoint.namespace == namespace:
        return Peer(namespace=namespace, pods=pods), written
    spaces = _named(peer.endpoint)
    return Peer(namespaces=selectors.from_object(spaces), pods=pods), {"namespaceSelector": spaces, **written}


def _port_for(connection: Connection) -> tuple[PortMatch | None, dict[str, Any]]:
    """The port as a rule's item; protocols without ports need a rule that names none."""
    if connection.protocol == OTHER:
        return None, {}
    match = PortMatch(connection.protocol, connection.port, connection.port)
    return match, {"protocol": connection.protocol, "port": connection.port}


def _shown(connection: Connection) -> str:
    return "ICMP (all protocols)" if connection.protocol == OTHER else f"{connection.port}/{connection.protocol}"


def _before_denial(cluster: Cluster, connection: Connection, direction: str, denial: str) -> Iterator[Change]:
    """An Accept rule just before the one that denies; only an administrator can write it."""
    key, peer_key = ("ingress", "from") if direction == INGRESS else ("egress", "to")
    _, peer = _ends(connection, direction)
    policy = next(p for p in cluster.cluster_policies if p.id == policy_of(denial))
    rules = policy.rules(direction)
    index = next(i for i, rule in enumerate(rules) if rule.id == denial)
    if peer.endpoint is not None and peer.endpoint.governed:
        labels = _labels_for(peer.endpoint)
        pods = {"matchLabels": labels} if labels else {}
        spaces = _named(peer.endpoint)
        item = Peer(namespaces=selectors.from_object(spaces), pods=selectors.from_object(pods))
        written: dict[str, Any] = {"pods": {"namespaceSelector": spaces, "podSelector": pods}}
    elif direction == EGRESS and peer.ip:
        prefix = host(*address(peer.ip))
        item, written = Peer(block=Block(prefix)), {"networks": [str(prefix)]}
    else:
        return
    match, _ = _port_for(connection)
    value: dict[str, Any] = {"action": ACCEPT, peer_key: [written]}
    if match:
        value["protocols"] = [{match.protocol.lower(): {"destinationPort": {"number": match.low}}}]
    rule = Rule(f"{policy.id}/{key}[new]", (item,), (match,) if match else None, ACCEPT)
    trial = policy.with_rules(direction, (*rules[:index], rule, *rules[index:]))
    changed = replace(cluster, cluster_policies=tuple(trial if p is policy else p for p in cluster.cluster_policies))
    if judge_direction(changed, connection, direction).allowed:
        step = {"op": "add", "path": f"/spec/{key}/{index}", "value": value}
        summary = (
            f"ClusterNetworkPolicy {policy.id}: accept {_shown(connection)} before {key}[{index}], which denies it"
        )
        yield Change(direction, "ClusterNetworkPolicy", policy.id, summary, (step,), 1)
