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
from isoplane.policy.nameservice import PORT, lacking
from isoplane.policy.rules import (
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
    namespaces = cluster.namespaces
    for policy in cluster.policies:
        found += _subjects(universe, policy, hosts)
        found += _ignored(policy)
        found += _default_types(policy)
        for direction in DIRECTIONS:
            for rule in policy.rules(direction) or ():
                found += _peers(universe, policy, rule)
                found += _host_peers(policy, rule, hosts, namespaces)
                found += _blocks(universe, policy, rule)
                found += _ports(universe, policy, direction, rule)
                found += _width(policy.id, direction, rule)
    found += [Finding(WARNING, "shadowed", *each) for each in shadowed(cluster, universe)]
    found += _priorities(cluster)
    found += _without_dns(compilation, universe)
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
    # That all workloads were meant to be selected is no sign that this one was thought of.
    severity = INFO if policy.subjects == EVERYTHING else WARNING
    for endpoint in hosts.get(policy.namespace, ()):
        if policy.subjects.matches(endpoint.labels):
            yield Finding(
                severity,
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


def _default_types(policy: Policy) -> Iterator[Finding]:
    """What an absent policyTypes means, where it is likely that something else was meant."""
    if policy.types_written:
        return
    if policy.egress is not None and not policy.ingress:
        message = "is absent, so this policy governs Ingress too and lets nobody in; for egress alone write [Egress]"
        yield Finding(WARNING, "default-types", policy.id, "spec.policyTypes", message)
    if policy.empty_egress:
        message = "is empty and without effect: policyTypes is absent, so Egress is governed only where there are rules"
        yield Finding(WARNING, "default-types", policy.id, "spec.egress", message)


def _host_peers(
    policy: Policy, rule: Rule, hosts: Mapping[str, list[Endpoint]], namespaces: Mapping[str, Mapping[str, str]]
) -> Iterator[Finding]:
    """Workloads on the host's network that a peer's labels name: their packets have the node's address."""
    key = "from" if "/ingress[" in rule.id else "to"
    for index, peer in enumerate(rule.peers or ()):
        if peer.block is not None or peer.pods in (None, EVERYTHING):
            continue
        for namespace, listed in hosts.items():
            chosen = _in(peer, namespace, namespaces)
            for endpoint in listed if chosen else ():
                if peer.pods is not None and peer.pods.matches(endpoint.labels):
                    message = f"{endpoint.id} has these labels and uses the host's network: only an ipBlock with its "
                    message += "node's address can name it"
                    yield Finding(WARNING, "host-network", policy.id, f"{path_of(rule)}.{key}[{index}]", message)


def _in(peer: Peer, namespace: str, namespaces: Mapping[str, Mapping[str, str]]) -> bool:
    if peer.namespaces is None:
        return namespace == peer.namespace
    return peer.namespaces.matches(namespaces[namespace])


def _blocks(universe: Universe, policy: Policy, rule: Rule) -> Iterator[Finding]:
    """Blocks with workloads' addresses in them: those change, and network plugins differ about what such a block means."""
    key = "from" if "/ingress[" in rule.id else "to"
    endpoints = universe.directory.endpoints
    for index, peer in enumerate(rule.peers or ()):
        if peer.block is None:
            continue
        alone = universe.peers(Rule(rule.id, (peer,), None))
        inside = [endpoints[position].id for position in positions_of(alone) if position < len(endpoints)]
        if not inside:
            continue
        shown = ", ".join(inside[:3]) + (", …" if len(inside) > 3 else "")
        message = (
            f"{peer.block.cidr} covers the addresses of workloads ({shown}): select workloads by their labels, and "
        )
        message += "leave the cluster's range out by except"
        # The whole world is written where the outside was meant, and often enough everybody.
        severity = INFO if peer.block.cidr.length == 0 else WARNING
        yield Finding(severity, "block-covers-workloads", policy.id, f"{path_of(rule)}.{key}[{index}]", message)


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
    """Ports that nobody who could be meant serves: by name, or by number where all of them declare what they serve."""
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
    outside = direction == EGRESS and (rule.peers is None or any(peer.block for peer in rule.peers))
    if outside or not all(directory.endpoints[i].ports for i in servers):
        return
    declared = sorted({(p.number, p.protocol) for i in servers for p in directory.endpoints[i].ports})
    for index, port in enumerate(rule.ports or ()):
        if port.name or not servers or (port.low, port.high) == (0, MAX_PORT):
            continue
        if not any(protocol == port.protocol and port.low <= number <= port.high for number, protocol in declared):
            wanted = str(port.low) if port.low == port.high else f"{port.low}-{port.high}"
            shown = ", ".join(f"{number}/{protocol}" for number, protocol in declared[:4])
            message = f"port {wanted}/{port.protocol} is declared by no selected workload (declared: {shown}): the "
            message += "container's port counts here, never that of a Service in front of it"
            yield Finding(WARNING, "port-undeclared", policy.id, f"{path_of(rule)}.ports[{index}]", message)


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


def _without_dns(compilation: Compilation, universe: Universe) -> Iterator[Finding]:
    """Workloads whose egress is isolated and that nobody lets ask any name server, or only over UDP or TCP."""
    for endpoint, ids, lacks, lets_out in lacking(compilation, universe):
        who = f"{endpoint.id} (and all under the same policies)"
        missing = " nor ".join(f"{PORT}/{transport}" for transport in lacks)
        message = f"{who} may not ask any name server: no rule allows port {missing} to one"
        if lacks == ("TCP",):
            message = f"{who} may ask name servers over UDP only: longer answers need port {PORT}/TCP too"
        severity = WARNING if lets_out else INFO  # denying everything is hardly an oversight
        yield Finding(severity, "no-dns", ids[0], "spec.egress", message)


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
            pairs = [(t, s) for t in targets for s in subjects if t != s]
            if pairs and not any(_admits(compilation, universe, t, s, rule) for t, s in pairs):
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
