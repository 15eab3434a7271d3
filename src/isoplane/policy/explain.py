"""Can A reach B, which policies decide, and the smallest change that would allow it.

The answer is the reference's; every proposed change is tried on the cluster before it is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isoplane.policy.change import Change, changes_for
from isoplane.policy.model import Cluster, Endpoint
from isoplane.policy.rules import DIRECTIONS, OTHER
from isoplane.policy.universe import blocks_of
from isoplane.policy.verdict import Connection, Judgement, Party, Verdict, judge


@dataclass(frozen=True, slots=True)
class Explanation:
    """``changes``: for each blocked direction the best proposal that was found, at most one a direction."""

    source: str
    destination: str
    protocol: str
    port: int
    verdict: Verdict
    changes: tuple[Change, ...]
    assumptions: tuple[str, ...]

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
            "assumptions": list(self.assumptions),
        }


def explain(cluster: Cluster, source: Party, destination: Party, protocol: str, port: int) -> Explanation:
    """Judge one connection and tell why. An endpoint with several addresses is judged at its first."""
    connection = Connection(source, destination, protocol, 0 if protocol == OTHER else port)
    verdict = judge(cluster, connection)
    changes = [
        found
        for direction in DIRECTIONS
        if not verdict.side(direction).allowed
        for found in changes_for(cluster, connection, direction)[:1]
    ]
    return Explanation(
        source=name_of(source),
        destination=name_of(destination),
        protocol=protocol,
        port=connection.port,
        verdict=verdict,
        changes=tuple(sorted(changes, key=lambda c: c.direction)),
        assumptions=tuple(_assumptions(cluster, connection, verdict)),
    )


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
