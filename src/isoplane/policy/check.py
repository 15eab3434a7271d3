"""Policies that do not say what their author meant: selecting nothing, shadowed, contradictory, without DNS, too wide.

Findings are advice about good objects; objects that the API would refuse never come this far (``parse.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from isoplane.objects.selectors import EVERYTHING
from isoplane.policy.compile import Compilation
from isoplane.policy.model import Cluster, Endpoint
from isoplane.policy.rules import (
    DENY,
    DIRECTIONS,
    EGRESS,
    INGRESS,
    MAX_PORT,
    Peer,
    Policy,
    PortMatch,
    Rule,
)
from isoplane.policy.selection import serves
from isoplane.policy.shadow import shadowed
from isoplane.policy.universe import Universe, positions_of

WARNING, INFO = "warning", "info"
_WIDE = 32768


@dataclass(frozen=True, slots=True)
class Finding:
    """One piece of advice. ``path`` is the field in the policy; ``code`` is stable, for filters."""

    severity: str
    code: str
    policy: str
    path: str
    message: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "severity": self.severity,
            "code": self.code,
            "policy": self.policy,
            "path": self.path,
            "message": self.message,
        }


def check(cluster: Cluster) -> list[Finding]:
    """All findings, by policy and path; those that only make sense beside workloads need some in the snapshot."""
    compilation = Compilation(cluster)
    universe = Universe(cluster, compilation.directory, outside=True)
    found: list[Finding] = []
    hosts: dict[str, list[Endpoint]] = {}
    for endpoint in cluster.endpoints:
        if endpoint.host_network and not endpoint.finished:
            hosts.setdefault(endpoint.namespace, []).append(endpoint)
    for policy in cluster.policies:
        found += _subjects(universe, policy, hosts)
        found += _ignored(policy)
        for direction in DIRECTIONS:
            for rule in policy.rules(direction) or ():
                found += _peers(universe, policy, rule)
                found += _ports(universe, policy, direction, rule)
                found += _width(policy.id, direction, rule)
    found += [Finding(WARNING, "shadowed", *each) for each in shadowed(cluster, universe)]
    found += _priorities(cluster)
    found += _without_dns(compilation)
    found += _one_sided(compilation, universe)
    return sorted(set(found), key=lambda f: (f.policy, f.path, f.code, f.message))


def path_of(rule: Rule) -> str:
    """``spec.ingress[0]`` of a rule."""
    return f"spec.{rule.id.rpartition('/')[2]}"


def _subjects(universe: Universe, policy: Policy, hosts: Mapping[str, list[Endpoint]]) -> Iterator[Finding]:
    directory = universe.directory
    if directory.endpoints and not directory.select(policy.namespace, None, policy.subjects):
        yield Finding(
            WARNING, "selects-nothing", policy.id, "spec.podSelector", f"no workload of {policy.namespace} is selected"
        )
    if policy.subjects == EVERYTHING:
        return
    for endpoint in hosts.get(policy.namespace, ()):
        if policy.subjects.matches(endpoint.labels):
            yield Finding(
                WARNING,
                "host-network",
                policy.id,
                "spec.podSelector",
                f"{endpoint.id} is selected and uses the host's network, where policies do not apply",
            )


def _ignored(policy: Policy) -> Iterator[Finding]:
    for rule in policy.ignored:
        direction = "Egress" if "/egress[" in rule.id else "Ingress"
        message = f"has no effect: spec.policyTypes leaves out {direction}"
        yield Finding(WARNING, "contradictory", policy.id, path_of(rule), message)


def _peers(universe: Universe, policy: Policy, rule: Rule) -> Iterator[Finding]:
    key = "from" if "/ingress[" in rule.id else "to"
    directory = universe.directory
    for index, peer in enumerate(rule.peers or ()):
        path = f"{path_of(rule)}.{key}[{index}]"
        mistaken = _meant_across_namespaces(universe, policy, rule, index)
        if mistaken:
            yield Finding(WARNING, "namespace-missing", policy.id, path, mistaken)
        elif peer.namespaces is not None and not directory.namespaces(peer.namespaces):
            hint = "labels of a namespace count, not its name; kubernetes.io/metadata.name is always there"
            yield Finding(WARNING, "selects-nothing", policy.id, path, f"no namespace is selected ({hint})")
        elif peer.block is None and directory.endpoints and not directory.peer(peer):
            yield Finding(WARNING, "selects-nothing", policy.id, path, "no workload is selected")


def _meant_across_namespaces(universe: Universe, policy: Policy, rule: Rule, index: int) -> str:
    """A bare podSelector in a list beside a namespaceSelector: two items mean either, and it stays in its namespace.

    Silent where the item does select something here and nothing elsewhere, which is how it may have been meant.
    """
    peers = rule.peers or ()
    peer = peers[index]
    beside = [p for p in peers if p.namespaces is not None]
    if peer.namespace is None or peer.pods is None or peer.pods == EVERYTHING or not beside:
        return ""
    directory = universe.directory
    here = directory.peer(peer)
    everywhere = directory.select(None, None, peer.pods)
    elsewhere = [directory.endpoints[i].id for i in everywhere if directory.endpoints[i].namespace != policy.namespace]
    if here and not elsewhere:
        return ""
    key = "from" if "/ingress[" in rule.id else "to"
    told = f"two items of {key} mean either of them, and a podSelector alone stays within {policy.namespace}"
    told += f", where it selects {len(here)}" if here else ", where it selects nothing" if directory.endpoints else ""
    if elsewhere:
        shown = ", ".join(elsewhere[:3]) + (", …" if len(elsewhere) > 3 else "")
        told += f"; {shown} has these labels in another namespace"
    return f"{told}. To admit such workloads of other namespaces, put a namespaceSelector beside it in the same item"


def _ports(universe: Universe, policy: Policy, direction: str, rule: Rule) -> Iterator[Finding]:
    """Named ports that nobody who could be meant serves."""
    directory = universe.directory
    if direction == INGRESS:
        servers = directory.select(policy.namespace, None, policy.subjects)
    else:
        servers = tuple(i for i in positions_of(universe.peers(rule)) if i < len(directory.endpoints))
    for index, port in enumerate(rule.ports or ()):
        if port.name and servers and not any(serves(p, port) for i in servers for p in directory.endpoints[i].ports):
            others = {p.protocol for i in servers for p in directory.endpoints[i].ports if p.name == port.name}
            hint = f"; it is declared as {', '.join(sorted(others))}" if others else ""
            message = f"no workload concerned declares a {port.protocol} port named {port.name}{hint}"
            yield Finding(WARNING, "port-unserved", policy.id, f"{path_of(rule)}.ports[{index}]", message)


def _width(policy: str, direction: str, rule: Rule) -> Iterator[Finding]:
    if not _any_port(rule.ports):
        return
    whom = "from everywhere" if direction == INGRESS else "to everywhere"
    if rule.peers is None:
        yield Finding(WARNING, "too-wide", policy, path_of(rule), f"allows {whom} on all ports")
        return
    for index, peer in enumerate(rule.peers):
        path = f"{path_of(rule)}.{'from' if direction == INGRESS else 'to'}[{index}]"
        if peer.block is not None and peer.block.cidr.length == 0 and not peer.block.excepts:
            yield Finding(WARNING, "too-wide", policy, path, f"allows {whom} ({peer.block.cidr}) on all ports")
        elif _whole_cluster(peer):
            yield Finding(WARNING, "too-wide", policy, path, "allows every workload of every namespace on all ports")


def _whole_cluster(peer: Peer) -> bool:
    return peer.namespaces == EVERYTHING and peer.pods in (None, EVERYTHING)


def _any_port(ports: tuple[PortMatch, ...] | None) -> bool:
    return ports is None or any(not p.name and p.high - p.low >= _WIDE for p in ports)


def _priorities(cluster: Cluster) -> Iterator[Finding]:
    seen: dict[tuple[str, int], str] = {}
    for policy in cluster.cluster_policies:
        other = seen.setdefault((policy.tier, policy.priority), policy.id)
        if other != policy.id:
            message = (
                f"{other} has the same tier and priority: where both match, which one decides is undefined upstream"
            )
            yield Finding(WARNING, "ambiguous", policy.id, "spec.priority", f"{message} (here: by name)")


def _without_dns(compilation: Compilation) -> Iterator[Finding]:
    """Workloads whose egress is isolated and that nobody lets ask any name server."""
    told: set[tuple[str, ...]] = set()
    for position, endpoint in enumerate(compilation.directory.endpoints):
        policies, wide = compilation.governing(position, EGRESS)
        ids = tuple(p.id for p in policies)
        if not policies or ids in told:
            continue
        told.add(ids)
        rules = [r for p in policies for r in p.egress or ()] + [r for p in wide for r in p.egress if r.action != DENY]
        if any(_speaks_dns(rule) for rule in rules):
            continue
        allows_any = any(policy.egress for policy in policies)
        message = (
            f"{endpoint.id} (and all under the same policies) may not ask any name server: no rule allows port 53/UDP"
        )
        severity = WARNING if allows_any else INFO  # denying everything is hardly an oversight
        yield Finding(severity, "no-dns", ids[0], "spec.egress", message)


def _speaks_dns(rule: Rule) -> bool:
    if rule.ports is None:
        return True
    return any(p.name or (p.protocol == "UDP" and p.low <= 53 <= p.high) for p in rule.ports)


def _one_sided(compilation: Compilation, universe: Universe) -> Iterator[Finding]:
    """An egress rule for workloads none of which lets the sender in: one side allows what the other denies."""
    directory = compilation.directory
    for policy in compilation.cluster.policies:
        subjects = directory.select(policy.namespace, None, policy.subjects)
        for rule in policy.egress or ():
            targets = [i for i in positions_of(universe.peers(rule)) if i < len(directory.endpoints)]
            if rule.peers is None or not subjects or not targets or any(p.block for p in rule.peers):
                continue
            if len(subjects) * len(targets) > MAX_PORT:
                continue  # too many pairs for a piece of advice
            if not any(_admits(compilation, universe, t, s, rule) for t in targets for s in subjects if t != s):
                names = {directory.endpoints[t].id for t in targets}
                shown = ", ".join(sorted(names)[:3])
                message = (
                    f"lets traffic out to {shown}, whose ingress policies admit none of the senders on these ports"
                )
                yield Finding(WARNING, "contradictory", policy.id, path_of(rule), message)


def _admits(compilation: Compilation, universe: Universe, target: int, source: int, rule: Rule) -> bool:
    policies, wide = compilation.governing(target, INGRESS)
    if not policies or wide:
        return True
    for policy in policies:
        for admitted in policy.ingress or ():
            if universe.peers(admitted) >> source & 1 and _overlap(rule.ports, admitted.ports):
                return True
    return False


def _overlap(one: tuple[PortMatch, ...] | None, other: tuple[PortMatch, ...] | None) -> bool:
    """Whether two port lists may share a port; names may mean any."""
    if one is None or other is None:
        return True
    return any(
        a.name or b.name or (a.protocol == b.protocol and a.low <= b.high and b.low <= a.high)
        for a in one
        for b in other
    )
