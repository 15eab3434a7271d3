"""Who reaches whom: all pairs at once, by sets of parties instead of pair by pair.

For one port, a direction's table becomes one set of allowed peers for each group of subjects under the same policies;
a source's row is its egress set cut with the groups that let it in.  Tests hold every pair against the reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import or_

from isoplane.policy.compile import Compilation, Key
from isoplane.policy.model import Cluster
from isoplane.policy.rules import (
    ACCEPT,
    ADMIN,
    DENY,
    DIRECTIONS,
    EGRESS,
    INGRESS,
    MAX_PORT,
    OTHER,
    PASS,
    PORT_PROTOCOLS,
    Block,
    ClusterPolicy,
    Rule,
)
from isoplane.policy.universe import Someone, Universe, bits_of, positions_of

Port = tuple[str, int]
"""(protocol, number)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One answer of the matrix."""

    source: str
    destination: str
    protocol: str
    port: int
    allowed: bool

    def to_dict(self) -> dict[str, object]:
        return {
            "from": self.source,
            "to": self.destination,
            "port": self.port,
            "protocol": self.protocol,
            "allowed": self.allowed,
        }


class Reach:
    """The reachability of a cluster. ``outside`` adds the addresses that policies tell apart as parties."""

    def __init__(self, cluster: Cluster, outside: bool = False, blocks: Iterable[Block] = ()) -> None:
        self.cluster = cluster
        self._compilation = Compilation(cluster)
        self._universe = Universe(cluster, self._compilation.directory, outside, blocks)
        self.parties: Sequence[Someone] = self._universe.parties
        self._groups = {direction: self._grouped(direction) for direction in DIRECTIONS}
        self._judged: dict[Port, list[int]] = {}
        self._matrices: dict[Port, list[int]] = {}

    def matrix(self, protocol: str, port: int) -> list[int]:
        """For each source position the set of destinations it reaches on this port (OTHER has port 0)."""
        key = (protocol, port)
        if key not in self._matrices:
            self._matrices[key] = self._with_self(self._judgement(protocol, port))
        return self._matrices[key]

    def _with_self(self, rows: list[int]) -> list[int]:
        """Everyone reaches itself, but a template stands for several, which may not reach each other."""
        return [
            row if someone.endpoint and someone.endpoint.template else row | 1 << position
            for position, (row, someone) in enumerate(zip(rows, self.parties, strict=False))
        ]

    def _judgement(self, protocol: str, port: int) -> list[int]:
        """The matrix before everyone reaches itself: parties under the same policies have equal rows."""
        key = (protocol, port)
        if key not in self._judged:
            outgoing, incoming = (self._by_subject(direction, protocol, port) for direction in (EGRESS, INGRESS))
            self._judged[key] = self._rows(outgoing, incoming, len(self.parties))
        return self._judged[key]

    def rows(self, ports: Iterable[Port]) -> Iterator[Row]:
        """Every pair on every port, by source, destination, port."""
        listed = list(ports)
        names = [someone.name for someone in self.parties]
        matrices = [(protocol, number, self.matrix(protocol, number)) for protocol, number in listed]
        for i, source in enumerate(names):
            for j, destination in enumerate(names):
                for protocol, number, matrix in matrices:
                    yield Row(source, destination, protocol, number, bool(matrix[i] >> j & 1))

    def classes(self, ports: Iterable[Port]) -> list[list[int]]:
        """Parties that nobody can tell apart on these ports: they reach the same and are reached by the same."""
        matrices = [self._judgement(*port) for port in ports]
        columns = [_transposed(matrix, len(self.parties)) for matrix in matrices]
        found: dict[object, list[int]] = {}
        for position, someone in enumerate(self.parties):
            namespace = someone.endpoint.namespace if someone.endpoint else someone.name
            answers = tuple(lines[position] for lines in (*matrices, *columns))
            found.setdefault((namespace, answers), []).append(position)
        return sorted(found.values())

    def _grouped(self, direction: str) -> dict[Key, list[int]]:
        groups: dict[Key, list[int]] = {}
        for position in range(len(self._compilation.directory.endpoints)):
            key = self._compilation.key(position, direction)
            if key is not None:
                groups.setdefault(key, []).append(position)
        return groups

    @property
    def inside(self) -> int:
        """How many parties are workloads: they come first."""
        return sum(someone.endpoint is not None for someone in self.parties)

    def lines(self, protocol: str, port: int) -> tuple[list[int], list[int]]:
        """For each workload whom it reaches, and who may come in, as they are judged; nothing is kept.

        Reaching oneself and the node's exemption are only in the first.
        """
        outgoing = self._by_subject(EGRESS, protocol, port)
        incoming = self._by_subject(INGRESS, protocol, port)
        return self._with_self(self._rows(outgoing, incoming, self.inside)), incoming

    def _by_subject(self, direction: str, protocol: str, port: int) -> list[int]:
        """For each workload the peers that its direction lets pass."""
        found = [self._universe.everyone] * self.inside
        for members in self._groups[direction].values():
            allowed = self._allowed(members[0], direction, protocol, port)
            for position in members:
                found[position] = allowed
        return found

    def _rows(self, outgoing: list[int], incoming: list[int], width: int) -> list[int]:
        """For the first ``width`` sources, whom they reach."""
        everyone = self._universe.everyone
        admitted: dict[int, list[int]] = {}
        for position, allowed in enumerate(incoming):
            admitted.setdefault(allowed, []).append(position)
        outsiders = everyone >> len(incoming) << len(incoming)
        entered = _spread({allowed: bits_of(members) for allowed, members in admitted.items()}, outsiders, width)
        rows = [out & entry for out, entry in zip(outgoing, entered, strict=False)] + entered[len(outgoing) :]
        self._exempt(rows, outgoing)
        return rows

    def _exempt(self, rows: list[int], outgoing: list[int]) -> None:
        """A workload in the node's network reaches the node's workloads."""
        by_node: dict[str, int] = {}
        for position, someone in enumerate(self.parties):
            endpoint = someone.endpoint
            if endpoint is not None and endpoint.governed and endpoint.node:
                by_node[endpoint.node] = by_node.get(endpoint.node, 0) | 1 << position
        for position, someone in enumerate(self.parties):
            endpoint = someone.endpoint
            if endpoint is not None and endpoint.host_network:
                rows[position] |= outgoing[position] & by_node.get(endpoint.node, 0)

    def _allowed(self, subject: int, direction: str, protocol: str, port: int) -> int:
        """Whom a group of subjects lets pass on this port, tier by tier."""
        if direction == INGRESS and not self._compilation.directory.endpoints[subject].exposes(protocol, port):
            return 0
        policies, wide = self._compilation.governing(subject, direction)
        baseline = [p for p in wide if p.tier != ADMIN]
        allowed, open_ = self._tier(
            (p for p in wide if p.tier == ADMIN), subject, direction, protocol, port, self._universe.everyone
        )
        if policies:
            for policy in policies:
                for rule in policy.rules(direction) or ():
                    allowed |= open_ & self._matching(rule, subject, direction, protocol, port)
            return allowed
        accepted, open_ = self._tier(baseline, subject, direction, protocol, port, open_)
        return allowed | accepted | open_

    def _tier(
        self, policies: Iterable[ClusterPolicy], subject: int, direction: str, protocol: str, port: int, open_: int
    ) -> tuple[int, int]:
        """(accepted, left to the next tier) of those that are still open."""
        accepted = passed = 0
        for policy in sorted(policies, key=lambda p: (p.priority, p.name)):
            for rule in policy.rules(direction):
                decided = open_ & self._matching(rule, subject, direction, protocol, port)
                accepted |= decided if rule.action == ACCEPT else 0
                passed |= decided if rule.action == PASS else 0
                assert rule.action in (ACCEPT, PASS, DENY)
                open_ &= ~decided
        return accepted, open_ | passed

    def _matching(self, rule: Rule, subject: int, direction: str, protocol: str, port: int) -> int:
        """The peers for whom a rule matches on this port."""
        if rule.ports is None:
            return self._universe.peers(rule)
        if protocol == OTHER:
            return 0
        served = 0
        for match in rule.ports:
            if not match.name:
                if match.protocol == protocol and match.low <= port <= match.high:
                    return self._universe.peers(rule)
            elif direction == EGRESS:
                served |= self._universe.serving(match, protocol, port)
            elif self._universe.serving(match, protocol, port) >> subject & 1:
                return self._universe.peers(rule)
        return served & self._universe.peers(rule) if served else 0


def _spread(admitted: dict[int, int], unjudged: int, width: int) -> list[int]:
    """For each source the destinations that let it in, given (allowed sources → destinations).

    Sources with the same answers everywhere share one result, so the work is by kinds of sources, not by sources.
    """
    if not admitted:
        return [unjudged] * width
    mask = (1 << width) - 1
    patterns = zip(*(bin(allowed & mask | 1 << width)[:2:-1] for allowed in admitted), strict=True)
    targets = list(admitted.values())
    known: dict[tuple[str, ...], int] = {}
    rows = []
    for pattern in patterns:
        row = known.get(pattern)
        if row is None:
            row = known[pattern] = reduce(
                or_, (t for t, bit in zip(targets, pattern, strict=True) if bit == "1"), unjudged
            )
        rows.append(row)
    return rows


def _transposed(matrix: list[int], width: int) -> list[int]:
    kinds: dict[int, list[int]] = {}
    for position, row in enumerate(matrix):
        kinds.setdefault(row, []).append(position)
    return _spread({row: bits_of(sources) for row, sources in kinds.items()}, 0, width)


def ports_of(cluster: Cluster) -> list[Port]:
    """The ports that workloads declare and policies name (a range by its two bounds), by protocol and number.

    Where nobody names any, all ports are alike, and 80/TCP stands for them.
    """
    found = {(port.protocol, port.number) for endpoint in cluster.endpoints for port in endpoint.ports}
    for low, high, protocol in _ranges(cluster):
        if (low, high) != (0, MAX_PORT):
            found |= {(protocol, low), (protocol, high)}
    order = (*PORT_PROTOCOLS, OTHER)
    return sorted(found or {("TCP", 80)}, key=lambda p: (order.index(p[0]), p[1]))


def pieces_of(clusters: Iterable[Cluster]) -> list[tuple[str, int, int]]:
    """(protocol, low, high): the pieces of the port space within which no policy and no declared port makes a cut."""
    cuts: dict[str, set[int]] = {protocol: {0, MAX_PORT + 1} for protocol in PORT_PROTOCOLS}
    for cluster in clusters:
        for endpoint in cluster.endpoints:
            for port in endpoint.ports:
                cuts[port.protocol] |= {port.number, port.number + 1}
        for low, high, protocol in _ranges(cluster):
            cuts[protocol] |= {low, high + 1}
    pieces = []
    for protocol, bounds in cuts.items():
        ordered = sorted(bounds)
        pieces += [(protocol, low, high - 1) for low, high in pairwise(ordered)]
    return [*pieces, (OTHER, 0, 0)]


def _ranges(cluster: Cluster) -> Iterator[tuple[int, int, str]]:
    for rule in cluster.rules():
        for port in rule.ports or ():
            if not port.name:
                yield port.low, port.high, port.protocol


__all__ = ["Port", "Reach", "Row", "pieces_of", "ports_of", "positions_of"]
