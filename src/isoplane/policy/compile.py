"""Cluster → tables: the compiler that every engine's rules come from.

    1. for each endpoint and direction, the policies that govern it;
    2. endpoints under the same policies form one group, which gets one Selection (which rules match which peers);
    3. the Selection is spread over addresses: prefixes with their class, exceptions cut out, nothing redundant left;
    4. of an interface that lists its ports, only these are left of what may come in.

The result is a value; ``verdict.py`` judges the same cluster without any of this, and tests compare the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from isoplane.objects.selectors import Selector
from isoplane.policy.addresses import BITS, Prefix, address
from isoplane.policy.collector import collector_paused
from isoplane.policy.directory import Directory
from isoplane.policy.exposure import bounded
from isoplane.policy.model import Cluster, Exposed
from isoplane.policy.rules import DIRECTIONS, EGRESS, INGRESS, ClusterPolicy, Policy
from isoplane.policy.selection import Match, Selection, Served, merge, names_in, ordered_rules, select, served_by
from isoplane.policy.table import OPEN, DirectionTable, EndpointTables, PeerClass, Route, Tables, direction_table

Governing = tuple[int, ...]
"""The groups of policies that govern an endpoint in a direction: a group are those with the same subjects."""
Key = tuple[str, Governing, Served, Exposed | None]
"""What endpoints with one table share: direction, policies, what named ports mean there, and the ports let in at all."""


def compile_tables(cluster: Cluster) -> Tables:
    """The tables of every endpoint that policies can govern."""
    with collector_paused():
        compilation = Compilation(cluster)
        endpoints = {}
        for position, endpoint in enumerate(compilation.directory.endpoints):
            endpoints[endpoint.id] = EndpointTables(
                id=endpoint.id,
                ips=endpoint.ips,
                node=endpoint.node,
                ingress=compilation.table(position, INGRESS),
                egress=compilation.table(position, EGRESS),
            )
        return Tables(endpoints)


class Compilation:
    """One cluster's selections and tables, each made when first asked for and shared by all that are alike."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.directory = Directory(cluster)
        self._policies: dict[str, list[list[Policy]]] = {}
        self._cluster_policies: dict[str, list[list[ClusterPolicy]]] = {}
        self._governing = {direction: self._govern(direction) for direction in DIRECTIONS}
        self._selections: dict[Key, Selection] = {}
        self._tables: dict[Key, DirectionTable] = {}
        self._named: dict[Governing, frozenset[str]] = {}

    def governing(self, position: int, direction: str) -> tuple[tuple[Policy, ...], tuple[ClusterPolicy, ...]]:
        """The policies that govern an endpoint in a direction, by id and by precedence."""
        groups = self._governing[direction].get(position, ())
        if len(groups) == 1:  # each group is in order already
            return tuple(self._policies[direction][groups[0]]), tuple(self._cluster_policies[direction][groups[0]])
        policies = [p for group in groups for p in self._policies[direction][group]]
        wide = [p for group in groups for p in self._cluster_policies[direction][group]]
        return (
            tuple(sorted(policies, key=lambda p: p.id)),
            tuple(sorted(wide, key=lambda p: (p.tier, p.priority, p.name))),
        )

    def selection(self, position: int, direction: str) -> Selection | None:
        """The selection of an endpoint's group; None where no policy governs it."""
        key = self.key(position, direction)
        if key is None:
            return None
        found = self._selections.get(key)
        if found is None:
            policies, cluster_policies = self.governing(position, direction)
            found = select(self.directory, direction, key[2], policies, cluster_policies)
            self._selections[key] = found
        return found

    def table(self, position: int, direction: str) -> DirectionTable:
        """The table of an endpoint's group."""
        key = self.key(position, direction)
        if key is None:
            return OPEN[direction]
        found = self._tables.get(key)
        if found is None:
            selection = self.selection(position, direction)
            assert selection is not None
            found = self._tables[key] = bounded(spread(selection, self.directory), key[3])
        return found

    def key(self, position: int, direction: str) -> Key | None:
        """What an endpoint shares with all others under the same policies; None where nothing governs it."""
        exposed = self.directory.endpoints[position].exposed if direction == INGRESS else None
        governing = self._governing[direction].get(position, ())
        if not governing and exposed is None:
            return None
        served: Served = ()
        if direction == INGRESS:
            names = self._named.get(governing)
            if names is None:
                policies, cluster_policies = self.governing(position, direction)
                names = self._named[governing] = names_in(ordered_rules(direction, policies, cluster_policies)[0])
            served = served_by(self.directory.endpoints[position], names)
        return direction, governing, served, exposed

    def _govern(self, direction: str) -> dict[int, Governing]:
        """Ten thousand policies for the same workloads are one group: the work is by groups, not by policies."""
        groups: dict[tuple[str | None, Selector | None, Selector], tuple[list[Policy], list[ClusterPolicy]]] = {}
        for policy in sorted(self.cluster.policies, key=lambda p: p.id):
            if policy.rules(direction) is not None:
                groups.setdefault((policy.namespace, None, policy.subjects), ([], []))[0].append(policy)
        for wide in sorted(self.cluster.cluster_policies, key=lambda p: (p.tier, p.priority, p.name)):
            if wide.rules(direction):
                groups.setdefault((None, wide.namespaces, wide.pods), ([], []))[1].append(wide)
        self._policies[direction] = [found for found, _ in groups.values()]
        self._cluster_policies[direction] = [found for _, found in groups.values()]
        governing: dict[int, list[int]] = {}
        for number, subjects in enumerate(groups):
            for position in self.directory.select(*subjects):
                governing.setdefault(position, []).append(number)
        return {position: tuple(numbers) for position, numbers in governing.items()}


def spread(selection: Selection, directory: Directory) -> DirectionTable:
    """Turn a selection's endpoints and blocks into routes: prefix → class, by longest prefix and without repetition."""
    classes = _Classes(selection)
    addressed: dict[int, dict[int, Match]] = {4: {}, 6: {}}
    endpoints = directory.endpoints
    for position, match in selection.members.items():
        for ip in endpoints[position].ips:
            family, number = address(ip)
            addressed[family][number] = match
    routes = {family: tuple(_routes(family, selection, found, classes)) for family, found in addressed.items()}
    return direction_table(
        selection.direction, selection.isolated, selection.policies, tuple(classes.listed), routes[4], routes[6]
    )


class _Classes:
    """Numbers for the classes of one table, in order of first use; equal content gets one number."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._by_match: dict[Match, int] = {}
        self._by_key: dict[str, int] = {}
        self.listed: list[PeerClass] = []
        self.number((selection.everyone, selection.served))

    def number(self, match: Match) -> int:
        found = self._by_match.get(match)
        if found is None:
            made = self._selection.entries(match)
            found = self._by_key.setdefault(made.key, len(self.listed))
            if found == len(self.listed):
                self.listed.append(made)
            self._by_match[match] = found
        return found


def _routes(family: int, selection: Selection, addressed: Mapping[int, Match], classes: _Classes) -> Iterator[Route]:
    """Every prefix where the class differs from the enclosing one's.

    Whether a block covers an address depends only on the longest prefix, among all blocks, exceptions and endpoint
    addresses, that contains it; so one walk over the nested prefixes decides every address.
    """
    bits = BITS[family]
    if not selection.blocks:
        if not addressed:
            return
        yield from _lone(bits, selection, addressed, classes)
        return
    opening: dict[tuple[int, int], list[tuple[int, bool]]] = {}
    blocks = [(rule, block) for rule, block in selection.blocks if block.cidr.family == family]
    for index, (_, block) in enumerate(blocks):
        for prefix, is_hole in ((block.cidr, False), *((hole, True) for hole in block.excepts)):
            opening.setdefault((prefix.network, prefix.length), []).append((index, is_hole))
    for number in addressed:
        opening.setdefault((number, bits), [])
    stack: list[tuple[Prefix, int, list[tuple[int, bool]]]] = []
    inside: set[int] = set()
    holes: dict[int, int] = {}

    def leave() -> None:
        for index, is_hole in stack.pop()[2]:
            if is_hole:
                holes[index] -= 1
            else:
                inside.discard(index)

    for network, length in sorted(opening):
        prefix = Prefix(family, network, length)
        while stack and stack[-1][0].last < network:
            leave()
        outer = stack[-1][1] if stack else 0
        events = opening[network, length]
        for index, is_hole in events:
            if is_hole:
                holes[index] = holes.get(index, 0) + 1
            else:
                inside.add(index)
        covering = tuple(sorted({blocks[i][0] for i in inside if not holes.get(i)}))
        matched, served = addressed.get(network, ((), selection.served)) if length == bits else ((), selection.served)
        number = classes.number((merge(merge(selection.everyone, covering), matched), served))
        stack.append((prefix, number, events))
        if number != outer:
            yield network, length, number


def _lone(bits: int, selection: Selection, addressed: Mapping[int, Match], classes: _Classes) -> Iterator[Route]:
    """Without blocks there are single addresses only, most of which share the very same match."""
    known: dict[int, int] = {}
    for address_, match in sorted(addressed.items()):
        number = known.get(id(match))
        if number is None:
            number = known[id(match)] = classes.number((merge(selection.everyone, match[0]), match[1]))
        if number:
            yield address_, bits, number
