"""The cluster as NetworkPolicy sees it: endpoints, namespaces with labels, nodes with addresses, and the policies.

A snapshot: immutable values, built offline by ``snapshot.py`` or live from Workloads.  Nothing here decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from isoplane.policy.collector import collector_paused
from isoplane.policy.rules import DIRECTIONS, ClusterPolicy, Policy, Rule

NAME_LABEL = "kubernetes.io/metadata.name"
_SHOWN = 8
"""Ports that a reason names."""


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A port that a workload declares. ``name`` may be empty."""

    name: str
    protocol: str
    number: int


Exposed = tuple[tuple[str, int], ...]
"""(protocol, port), in order: all that can be reached from outside of a machine whose interface lists its ports."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What policies select: a Pod, a VMI, or a VM or workload template that stands for what it would create.

    ``template`` says that it stands for several pods, so that "itself" may be another one.  ``finished`` workloads
    and those with ``host_network`` are neither subject nor peer.  ``exposed`` bounds what comes in, whatever policies
    say; None: they alone decide.
    """

    kind: str
    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ips: tuple[str, ...] = ()
    ports: tuple[NamedPort, ...] = ()
    exposed: Exposed | None = None
    host_network: bool = False
    node: str = ""
    finished: bool = False
    template: bool = False

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"

    @property
    def governed(self) -> bool:
        """Whether policies can select it at all."""
        return not self.host_network and not self.finished

    def exposes(self, protocol: str, port: int) -> bool:
        """Whether its interface lets anything in on this port."""
        return self.exposed is None or (protocol, port) in self.exposed

    def __hash__(self) -> int:
        return hash((self.kind, self.namespace, self.name))


def unexposed(exposed: Exposed | None) -> str:
    """Why nothing reaches a port that the interface does not list."""
    listed = [f"{port}/{protocol}" for protocol, port in exposed or ()]
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return f"not a port of the interface, which lists {', '.join(listed[:_SHOWN])}{more}"


@dataclass(frozen=True, slots=True)
class Node:
    """A node's own addresses: from there its own workloads are always reachable (probes)."""

    name: str
    ips: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cluster:
    """``namespaces``: name → labels, each with kubernetes.io/metadata.name."""

    endpoints: tuple[Endpoint, ...] = ()
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    policies: tuple[Policy, ...] = ()
    cluster_policies: tuple[ClusterPolicy, ...] = ()
    nodes: tuple[Node, ...] = ()

    def rules(self) -> Iterator[Rule]:
        """Every rule of every policy."""
        for direction in DIRECTIONS:
            for policy in self.policies:
                yield from policy.rules(direction) or ()
            for cluster_policy in self.cluster_policies:
                yield from cluster_policy.rules(direction)


def cluster(
    endpoints: Iterable[Endpoint] = (),
    namespaces: Mapping[str, Mapping[str, str]] | None = None,
    policies: Iterable[Policy] = (),
    cluster_policies: Iterable[ClusterPolicy] = (),
    nodes: Iterable[Node] = (),
) -> Cluster:
    """A snapshot in canonical order.  Namespaces that are only mentioned exist, with their name label alone.

    Raises ValueError when two endpoints share an id, or two live ones an address: which of them would be meant?
    """
    with collector_paused():
        return _canonical(endpoints, namespaces or {}, policies, cluster_policies, nodes)


def _canonical(
    endpoints: Iterable[Endpoint],
    given: Mapping[str, Mapping[str, str]],
    policies: Iterable[Policy],
    cluster_policies: Iterable[ClusterPolicy],
    nodes: Iterable[Node],
) -> Cluster:
    ordered = tuple(sorted(endpoints, key=lambda e: e.id))
    chosen = tuple(sorted(policies, key=lambda p: p.id))
    names = {e.namespace for e in ordered} | {p.namespace for p in chosen}
    labelled = {n: {**given.get(n, {}), NAME_LABEL: n} for n in sorted(names | set(given))}
    _refuse_twins(ordered)
    return Cluster(
        endpoints=ordered,
        namespaces=labelled,
        policies=chosen,
        cluster_policies=tuple(sorted(cluster_policies, key=lambda p: (p.tier, p.priority, p.name))),
        nodes=tuple(sorted(nodes, key=lambda n: n.name)),
    )


def _refuse_twins(ordered: tuple[Endpoint, ...]) -> None:
    ids: set[str] = set()
    owners: dict[str, str] = {}
    for endpoint in ordered:
        if endpoint.id in ids:
            raise ValueError(f"{endpoint.id} is given twice")
        ids.add(endpoint.id)
        for ip in endpoint.ips if endpoint.governed else ():
            other = owners.setdefault(ip, endpoint.id)
            if other != endpoint.id:
                raise ValueError(f"{other} and {endpoint.id} both have the address {ip}")
