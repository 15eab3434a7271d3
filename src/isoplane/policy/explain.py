"""Can A reach B, which policies decide, and the smallest change that would allow it.

The answer is the reference's; every proposed change is tried on the cluster before it is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from isoplane.policy.change import Change, beyond, changes_for
from isoplane.policy.diff import Difference
from isoplane.policy.model import Cluster, Endpoint
from isoplane.policy.rules import DIRECTIONS, OTHER, policy_of
from isoplane.policy.selection import serves
from isoplane.policy.universe import blocks_of
from isoplane.policy.verdict import Connection, Judgement, Party, Verdict, judge


@dataclass(frozen=True, slots=True)
class Explanation:
    """``changes``: for each blocked direction the best proposal that was found, each to be applied after those before.

    ``also_opens`` is what all of them open beside the connection that was asked about.  ``port_name`` is what the
    destination calls the port; ``named`` tells what rules with a named port mean there.
    """

    source: str
    destination: str
    protocol: str
    port: int
    verdict: Verdict
    changes: tuple[Change, ...]
    also_opens: tuple[Difference, ...]
    assumptions: tuple[str, ...]
    port_name: str = ""
    named: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "from": self.source,
            "to": self.destination,
            "port": self.port,
            "protocol": self.protocol,
            "allowed": self.verdict.allowed,
            "egress": _side(self.verdict.egress),
            "ingress": _side(self.verdict.ingress),
            "changes": [change.to_dict() for change in self.changes],
            "alsoOpens": [difference.to_dict() for difference in self.also_opens],
            "portName": self.port_name,
            "namedPorts": list(self.named),
            "assumptions": list(self.assumptions),
        }


def explain(cluster: Cluster, source: Party, destination: Party, protocol: str, port: int) -> Explanation:
    """Judge one connection and tell why. An endpoint with several addresses is judged at its first."""
    connection = Connection(source, destination, protocol, 0 if protocol == OTHER else port)
    verdict = judge(cluster, connection)
    changes: list[Change] = []
    after = cluster
    for direction in DIRECTIONS:
        if not verdict.side(direction).allowed:
            for best in changes_for(after, connection, direction)[:1]:
                changes.append(best)
                after = best.after
    target = destination.endpoint
    names = [p.name for p in (target.ports if target else ()) if p.name and (p.protocol, p.number) == (protocol, port)]
    return Explanation(
        source=name_of(source),
        destination=name_of(destination),
        protocol=protocol,
        port=connection.port,
        verdict=verdict,
        changes=tuple(changes),
        also_opens=tuple(each for change in changes for each in beyond(change.opens, connection)),
        assumptions=tuple(_assumptions(cluster, connection, verdict)),
        port_name=", ".join(names),
        named=tuple(_named_ports(cluster, connection, verdict)),
    )


def _named_ports(cluster: Cluster, connection: Connection, verdict: Verdict) -> Iterator[str]:
    """What the named ports of the policies that decide mean at the destination."""
    target = connection.destination.endpoint
    told: set[str] = set()
    for direction in DIRECTIONS:
        policies = verdict.side(direction).policies
        for rule in cluster.rules():
            if policy_of(rule.id) not in policies or rule.id.rpartition("/")[2].partition("[")[0] != direction.lower():
                continue
            for port in rule.ports or ():
                if not port.name or target is None:
                    continue
                declared = [f"{p.number}/{p.protocol}" for p in target.ports if serves(p, port)]
                meant = f"is {', '.join(declared)} at" if declared else "is declared by nothing in"
                line = f"port {port.name} of {rule.id} {meant} {target.id}"
                if line not in told:
                    told.add(line)
                    yield line


def name_of(party: Party) -> str:
    """How an end is written: the endpoint's id, or ip:ADDR."""
    return party.endpoint.id if party.endpoint else f"ip:{party.ip}"


def _side(judgement: Judgement) -> dict[str, Any]:
    return {
        "allowed": judgement.allowed,
        "policies": list(judgement.policies),
        "rules": list(judgement.rules),
        "reason": judgement.reason,
    }


def _assumptions(cluster: Cluster, connection: Connection, verdict: Verdict) -> list[str]:
    told = []
    ends = (connection.source, connection.destination)
    judged_by_address = bool(blocks_of(cluster))
    for end in ends:
        if end.endpoint is None:
            continue
        if not end.ip and judged_by_address:
            told.append(f"{end.endpoint.id} has no address in the manifests: it matches selectors, never an ipBlock")
        if end.endpoint.kind == "vm":
            told.append(f"{end.endpoint.id} stands for the instance that its template describes")
        elif end.endpoint.template:
            told.append(f"{end.endpoint.id} stands for the Pods that its template describes")
    if _families_differ(cluster, connection, verdict):
        told.append("IPv4 and IPv6 have different answers here: this is the one for each end's first address")
    if not told and any(e.endpoint and not e.endpoint.node for e in ends) and len(cluster.nodes) > 1:
        told.append("a workload without a node is judged as if it ran on none of the nodes given")
    return told


def _families_differ(cluster: Cluster, connection: Connection, verdict: Verdict) -> bool:
    """Whether another pair of addresses of one family would be judged differently."""
    for marker in (".", ":"):
        ends = [_at(p.endpoint, p, marker) for p in (connection.source, connection.destination)]
        if None in ends or ends == [connection.source, connection.destination]:
            continue
        source, destination = ends
        if source and destination:
            other = Connection(source, destination, connection.protocol, connection.port)
            if judge(cluster, other).allowed != verdict.allowed:
                return True
    return False


def _at(endpoint: Endpoint | None, party: Party, marker: str) -> Party | None:
    """The party at its first address of a family; None when it has none."""
    if endpoint is None:
        return party if marker in party.ip else None
    found = [ip for ip in endpoint.ips if marker in ip]
    return Party(endpoint, found[0]) if found else None
