"""Changes of policies that would allow a blocked connection, as JSON patches, the one that opens least first.

A change only adds: one more port in a rule whose peers match, one more peer in a rule whose ports match, or a rule of its
own.  Each is applied to the typed policy and judged by the reference, and what it opens is the difference of the cluster
with it and without; what does not help, or closes anything, is never proposed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from isoplane.objects import selectors
from isoplane.policy.addresses import address, host
from isoplane.policy.diff import CLOSED, Difference, diff
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


_TRIED, _FEWEST = 24, 3
"""How many candidates are applied and compared, those first that seem to open least; fewer in a large cluster."""
_COMPARED = 60_000
"""Endpoints that the comparisons of all candidates may look at in sum."""


@dataclass(frozen=True, slots=True)
class Change:
    """A JSON patch for one policy. ``opens``: everything that applying it opens; it closes nothing."""

    direction: str
    kind: str
    policy: str
    summary: str
    patch: tuple[dict[str, Any], ...]
    opens: tuple[Difference, ...]
    after: Cluster
    """The cluster with the change applied."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "direction": self.direction.lower(),
            "kind": self.kind,
            "policy": self.policy,
            "summary": self.summary,
            "patch": [dict(step) for step in self.patch],
            "opens": [difference.to_dict() for difference in self.opens],
        }


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A change before it was tried. ``guess`` is how much it seems to open, ``rule`` the rule as it would be."""

    kind: str
    policy: str
    summary: str
    patch: tuple[dict[str, Any], ...]
    guess: int
    rule: Rule
    after: Cluster


def changes_for(cluster: Cluster, connection: Connection, direction: str) -> list[Change]:
    """Candidates that allow the blocked direction and close nothing, the one that opens least first."""
    subject, peer = _ends(connection, direction)
    if subject.endpoint is None:
        return []
    directory = Directory(cluster)
    judgement = judge_direction(cluster, connection, direction)
    if judgement.unexposed:
        return []
    if judgement.rules:  # a ClusterNetworkPolicy denies
        candidates = list(_before_denial(cluster, directory, connection, direction, judgement.rules[0]))
    else:
        candidates = [
            candidate
            for policy in isolating(cluster, subject.endpoint, direction)
            for candidate in _in_policy(cluster, directory, policy, connection, direction, peer)
        ]
    candidates.sort(key=lambda c: c.guess)
    other = INGRESS if direction == EGRESS else EGRESS
    blocked_there = not judge_direction(cluster, connection, other).allowed
    found: list[tuple[int, int, Change]] = []
    tried = min(_TRIED, max(_FEWEST, _COMPARED // (len(directory.endpoints) + 1)))
    for candidate in candidates[:tried]:
        opened = diff(cluster, candidate.after, candidate.rule.ports)
        if any(each.change == CLOSED for each in opened.differences):
            continue
        # What the other direction still blocks would be opened by the change that follows: it counts as well.
        weighed = opened
        if blocked_there:
            weighed = diff(_without(cluster, other), _without(candidate.after, other), candidate.rule.ports)
        change = Change(
            direction,
            candidate.kind,
            candidate.policy,
            candidate.summary,
            candidate.patch,
            opened.differences,
            candidate.after,
        )
        found.append((sum(each.high - each.low + 1 for each in weighed.differences), len(found), change))
    return [change for _, _, change in sorted(found, key=lambda each: each[:2])]


def beyond(opened: Iterable[Difference], connection: Connection) -> Iterator[Difference]:
    """What is opened beside the connection that was asked about."""
    asked = tuple(
        p.endpoint.id if p.endpoint else f"ip:{host(*address(p.ip))}"
        for p in (connection.source, connection.destination)
    )
    for each in opened:
        inside = each.protocol == connection.protocol and each.low <= connection.port <= each.high
        if not inside or (each.source, each.destination) != asked:
            yield each
            continue
        if each.low < connection.port:
            yield replace(each, high=connection.port - 1)
        if each.high > connection.port:
            yield replace(each, low=connection.port + 1)


def _without(cluster: Cluster, direction: str) -> Cluster:
    """The cluster as it would be if nothing governed a direction."""
    return replace(
        cluster,
        policies=tuple(
            replace(policy, ingress=None) if direction == INGRESS else replace(policy, egress=None)
            for policy in cluster.policies
        ),
        cluster_policies=tuple(policy.with_rules(direction, ()) for policy in cluster.cluster_policies),
    )


def _ends(connection: Connection, direction: str) -> tuple[Party, Party]:
    """(subject, peer) of a direction."""
    ends = (connection.source, connection.destination)
    return ends if direction == EGRESS else (ends[1], ends[0])


def _in_policy(
    cluster: Cluster, directory: Directory, policy: Policy, connection: Connection, direction: str, peer: Party
) -> Iterator[_Candidate]:
    key, peer_key = ("ingress", "from") if direction == INGRESS else ("egress", "to")
    rules = policy.rules(direction) or ()
    match, port = _port_for(connection)

    def made(summary: str, index: int, changed: Rule, guess: int, path: str, value: Any) -> Iterator[_Candidate]:
        # The direction is blocked for want of a rule that matches: one that does is enough.
        if rule_matches(cluster, changed, peer, connection):
            step = {"op": "add", "path": path, "value": value}
            trial = policy.with_rules(direction, (*rules[:index], changed, *rules[index + 1 :]))
            after = replace(cluster, policies=tuple(trial if p is policy else p for p in cluster.policies))
            summary = f"{policy.id}: {summary}"
            yield _Candidate("NetworkPolicy", policy.id, summary, (step,), guess, changed, after)

    for new_peer, written in _peers_for(directory, peer, policy.namespace):
        selected = len(directory.peer(new_peer) or (0,))
        for index, rule in enumerate(rules):
            if ports_match(rule, connection) and rule.peers is not None:
                yield from made(
                    f"add a peer to {key}[{index}].{peer_key}",
                    index,
                    replace(rule, peers=(*rule.peers, new_peer)),
                    selected * _size(rule),
                    f"/spec/{key}/{index}/{peer_key}/-",
                    written,
                )
        rule = Rule(f"{policy.id}/{key}[{len(rules)}]", (new_peer,), (match,) if match else None)
        value = {peer_key: [written], **({"ports": [port]} if match else {})}
        yield from made(
            f"add a rule for {_shown(connection)} to {key}",
            len(rules),
            rule,
            selected * _size(rule),
            f"/spec/{key}/-" if rules else f"/spec/{key}",
            value if rules else [value],
        )
    for index, rule in enumerate(rules):
        if peers_match(cluster, rule, peer) and rule.ports is not None and match is not None:
            peers = len(directory.endpoints)
            if rule.peers is not None:
                peers = sum(len(directory.peer(p) or (0,)) for p in rule.peers)
            yield from made(
                f"add port {_shown(connection)} to {key}[{index}].ports",
                index,
                replace(rule, ports=(*rule.ports, match)),
                peers,
                f"/spec/{key}/{index}/ports/-",
                port,
            )


def _size(rule: Rule) -> int:
    """How many ports a rule covers; for all ports of all protocols, more than any range."""
    if rule.ports is None:
        return _ALL_PORTS * (len(PORT_PROTOCOLS) + 1)
    return sum(1 if p.name else p.high - p.low + 1 for p in rule.ports)


def _named(endpoint: Endpoint) -> dict[str, Any]:
    return {"matchLabels": {NAME_LABEL: endpoint.namespace}}


def _labels_for(endpoint: Endpoint) -> dict[str, str]:
    """The labels that identify it, without those that controllers generate anew."""
    return {k: v for k, v in sorted(endpoint.labels.items()) if not _generated(k)}


def _peers_for(directory: Directory, peer: Party, namespace: str) -> Iterator[tuple[Peer, dict[str, Any]]]:
    """From/to items for the other end, typed and as they are written: by its labels; and so that nobody else has them."""
    if peer.endpoint is None or not peer.endpoint.governed:
        prefix = host(*address(peer.ip)) if peer.ip else host(4, 0)
        yield Peer(block=Block(prefix)), {"ipBlock": {"cidr": str(prefix)}}
        return
    spaces = _named(peer.endpoint)
    for written in _selectors_for(directory, peer.endpoint):
        pods = selectors.from_object(written)
        if peer.endpoint.namespace == namespace:
            yield Peer(namespace=namespace, pods=pods), {"podSelector": written}
        else:
            item = Peer(namespaces=selectors.from_object(spaces), pods=pods)
            yield item, {"namespaceSelector": spaces, "podSelector": written}


def _selectors_for(directory: Directory, endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    """Selectors of one endpoint in its namespace: by its labels, and by what others have beside the same labels too."""
    labels = _labels_for(endpoint)
    plain: dict[str, Any] = {"matchLabels": labels} if labels else {}
    yield plain
    alike = directory.select(endpoint.namespace, None, selectors.from_object(plain))
    more = {key for i in alike for key in directory.endpoints[i].labels if key not in endpoint.labels}
    absent = sorted(key for key in more if not _generated(key))
    if absent:
        yield {**plain, "matchExpressions": [{"key": key, "operator": "DoesNotExist"} for key in absent]}


def _generated(key: str) -> bool:
    return key in _GENERATED or key.startswith(_GENERATED_PARTS)


def _port_for(connection: Connection) -> tuple[PortMatch | None, dict[str, Any]]:
    """The port as a rule's item; protocols without ports need a rule that names none."""
    if connection.protocol == OTHER:
        return None, {}
    match = PortMatch(connection.protocol, connection.port, connection.port)
    return match, {"protocol": connection.protocol, "port": connection.port}


def _shown(connection: Connection) -> str:
    return "ICMP (all protocols)" if connection.protocol == OTHER else f"{connection.port}/{connection.protocol}"


def _before_denial(
    cluster: Cluster, directory: Directory, connection: Connection, direction: str, denial: str
) -> Iterator[_Candidate]:
    """An Accept rule just before the one that denies; only an administrator can write it."""
    key, peer_key = ("ingress", "from") if direction == INGRESS else ("egress", "to")
    _, peer = _ends(connection, direction)
    policy = next(p for p in cluster.cluster_policies if p.id == policy_of(denial))
    rules = policy.rules(direction)
    index = next(i for i, rule in enumerate(rules) if rule.id == denial)
    items: list[tuple[Peer, dict[str, Any]]] = []
    if peer.endpoint is not None and peer.endpoint.governed:
        spaces = _named(peer.endpoint)
        for pods in _selectors_for(directory, peer.endpoint):
            item = Peer(namespaces=selectors.from_object(spaces), pods=selectors.from_object(pods))
            items.append((item, {"pods": {"namespaceSelector": spaces, "podSelector": pods}}))
    elif direction == EGRESS and peer.ip:
        prefix = host(*address(peer.ip))
        items.append((Peer(block=Block(prefix)), {"networks": [str(prefix)]}))
    match, _ = _port_for(connection)
    for item, written in items:
        value: dict[str, Any] = {"action": ACCEPT, peer_key: [written]}
        if match:
            value["protocols"] = [{match.protocol.lower(): {"destinationPort": {"number": match.low}}}]
        rule = Rule(f"{policy.id}/{key}[new]", (item,), (match,) if match else None, ACCEPT)
        trial = policy.with_rules(direction, (*rules[:index], rule, *rules[index:]))
        changed = replace(
            cluster, cluster_policies=tuple(trial if p is policy else p for p in cluster.cluster_policies)
        )
        if judge_direction(changed, connection, direction).allowed:
            step = {"op": "add", "path": f"/spec/{key}/{index}", "value": value}
            summary = (
                f"ClusterNetworkPolicy {policy.id}: accept {_shown(connection)} before {key}[{index}], which denies it"
            )
            guess = len(directory.peer(item) or (0,))
            yield _Candidate("ClusterNetworkPolicy", policy.id, summary, (step,), guess, rule, changed)
