"""Tables that follow a cluster's changes: only what a change concerns is compiled again.

``compile.py`` makes the same tables from a whole snapshot, and tests hold the two equal after any sequence of changes.
Unlike the rest of the core, ``LiveTables`` is a mutable object; the ``Tables`` it gives are values that share
structure with those before.  Which objects changed is the caller's knowledge (or ``update``'s to find out).

What a table depends on is kept as *needs*: the groups of policies that govern it, the selections of its peers, the
port names its egress rules mention, and the nodes.  A change touches needs; their tables are made anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import merge

from isoplane.policy.collector import collector_paused, collector_spared
from isoplane.policy.compile import Governing, Key, spread
from isoplane.policy.directory import Selected
from isoplane.policy.exposure import bounded
from isoplane.policy.livedirectory import LiveDirectory
from isoplane.policy.model import Cluster, Endpoint, NamedPort, Node
from isoplane.policy.rules import DIRECTIONS, EGRESS, INGRESS, ClusterPolicy, Policy
from isoplane.policy.selection import Served, names_in, ordered_rules, select, served_by
from isoplane.policy.table import OPEN, DirectionTable, EndpointTables, Tables

Need = tuple[str, object]
MANY = 10_000
"""So many endpoints moved at once are a cluster that is loaded, not a change in it: what was made for them stays."""


@dataclass(slots=True)
class _Group:
    """The policies of one direction with the same subjects."""

    number: int
    subjects: Selected
    policies: dict[str, Policy] = field(default_factory=dict)
    wide: dict[str, ClusterPolicy] = field(default_factory=dict)


class LiveTables:
    """Start with a snapshot, tell every change, ask for ``tables`` whenever they are wanted; changes add up till then.

    Cost of a change: what it concerns, plus a few milliseconds at 100,000 endpoints for the new mapping.  A policy
    that selects everybody, or whose peers are everybody, concerns everybody.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._directory = LiveDirectory(cluster)
        self._policies: dict[str, Policy] = {}
        self._wide: dict[str, ClusterPolicy] = {}
        self._groups: dict[str, dict[Selected, _Group]] = {direction: {} for direction in DIRECTIONS}
        self._numbered: dict[int, _Group] = {}
        self._by_space: dict[tuple[str, str | None], set[int]] = {}
        self._numbers = 0
        self._keys: dict[str, dict[int, Key]] = {direction: {} for direction in DIRECTIONS}
        self._holders: dict[Key, set[int]] = {}
        self._made: dict[Key, tuple[DirectionTable, tuple[Need, ...]]] = {}
        self._needed: dict[Need, set[Key]] = {}
        self._names: dict[Governing, frozenset[str]] = {}
        self._owners: dict[str, set[str]] = {}
        self._shared: set[str] = set()
        self._entries: dict[str, EndpointTables] = {}
        self._given: dict[str, Endpoint] = {}
        self._spaces = dict(cluster.namespaces)
        self._moved: set[int] = set()
        self._dirty: set[Key] = set()
        for endpoint in cluster.endpoints:
            self._given[endpoint.id] = endpoint
            if endpoint.governed:
                self._own(endpoint, True)
        for policy in cluster.policies:
            self.set_policy(policy)
        for wide in cluster.cluster_policies:
            self.set_cluster_policy(wide)
        self._moved.update(self._directory.positions.values())

    def set_endpoint(self, endpoint: Endpoint) -> None:
        """A workload that is new or has changed. One that policies cannot govern any more leaves the tables."""
        old = self._given.get(endpoint.id)
        if old == endpoint:
            return
        if old is not None and old.governed and not endpoint.governed:
            self._take_out(old)
        self._given[endpoint.id] = endpoint
        if not endpoint.governed:
            return
        if old is not None and old.governed:
            self._own(old, False)
        self._own(endpoint, True)
        position, touched = self._directory.put(endpoint)
        self._moved.add(position)
        self._touch(touched)
        if old is None or not old.governed or (old.ips, old.ports) != (endpoint.ips, endpoint.ports):
            self._ports_changed(*(old.ports if old else ()), *endpoint.ports)

    def remove_endpoint(self, id_: str) -> None:
        """A workload that is gone. KeyError when it was never there."""
        old = self._given.pop(id_)
        if old.governed:
            self._take_out(old)

    def set_policy(self, policy: Policy) -> None:
        """A NetworkPolicy that is new or has changed."""
        old = self._policies.get(policy.id)
        if old == policy:
            return
        if old is not None:
            self.remove_policy(old.id)
        self._policies[policy.id] = policy
        for direction in DIRECTIONS:
            if policy.rules(direction) is not None:
                self._group(direction, (policy.namespace, None, policy.subjects)).policies[policy.id] = policy

    def remove_policy(self, id_: str) -> None:
        """A NetworkPolicy that is gone. KeyError when it was never there."""
        old = self._policies.pop(id_)
        for direction in DIRECTIONS:
            if old.rules(direction) is not None:
                group = self._group(direction, (old.namespace, None, old.subjects))
                del group.policies[id_]
                self._close_if_empty(direction, group)

    def set_cluster_policy(self, policy: ClusterPolicy) -> None:
        """A ClusterNetworkPolicy that is new or has changed."""
        old = self._wide.get(policy.id)
        if old == policy:
            return
        if old is not None:
            self.remove_cluster_policy(old.id)
        self._wide[policy.id] = policy
        for direction in DIRECTIONS:
            if policy.rules(direction):
                self._group(direction, (None, policy.namespaces, policy.pods)).wide[policy.id] = policy

    def remove_cluster_policy(self, id_: str) -> None:
        """A ClusterNetworkPolicy that is gone. KeyError when it was never there."""
        old = self._wide.pop(id_)
        for direction in DIRECTIONS:
            if old.rules(direction):
                group = self._group(direction, (None, old.namespaces, old.pods))
                del group.wide[id_]
                self._close_if_empty(direction, group)

    def set_namespace(self, name: str, labels: Mapping[str, str]) -> None:
        """A namespace that is new or has other labels; for one that is gone, no labels."""
        self._spaces[name] = labels
        self._touch(self._directory.name(name, labels))
        self._moved.update(self._directory.members(name))

    def set_nodes(self, nodes: Iterable[Node]) -> None:
        """All nodes with their addresses and labels."""
        listed = tuple(nodes)
        if listed != self._directory.cluster.nodes:
            self._directory.set_nodes(listed)
            self._dirty |= self._needed.get(("nodes", None), set())

    def update(self, cluster: Cluster) -> None:
        """Find out what differs from a whole snapshot, and tell it; this looks at every object once."""
        endpoints = {e.id: e for e in cluster.endpoints}
        for id_ in [id_ for id_ in self._given if id_ not in endpoints]:
            self.remove_endpoint(id_)
        policies = {p.id: p for p in cluster.policies}
        for id_ in [id_ for id_ in self._policies if id_ not in policies]:
            self.remove_policy(id_)
        wide = {p.id: p for p in cluster.cluster_policies}
        for id_ in [id_ for id_ in self._wide if id_ not in wide]:
            self.remove_cluster_policy(id_)
        for name in [name for name in self._spaces if name not in cluster.namespaces]:
            self.set_namespace(name, {})
        for name, labels in cluster.namespaces.items():
            if self._spaces.get(name) != labels:
                self.set_namespace(name, labels)
        for id_, endpoint in endpoints.items():
            if self._given.get(id_) is not endpoint:
                self.set_endpoint(endpoint)
        for policy in policies.values():
            self.set_policy(policy)
        for cluster_policy in wide.values():
            self.set_cluster_policy(cluster_policy)
        self.set_nodes(cluster.nodes)

    def tables(self) -> Tables:
        """The tables after all changes so far. ValueError when two live endpoints have one address; nothing is lost."""
        for ip in sorted(self._shared):
            one, other, *_ = sorted(self._owners[ip])
            raise ValueError(f"{one} and {other} both have the address {ip}")
        many = len(self._moved) >= MANY
        with collector_paused():
            self._settle()
        if many:
            collector_spared()
        return Tables(dict(self._entries))

    def _settle(self) -> None:
        emptied = self._regroup()
        changed = set(self._moved)
        for key in self._dirty | {self._keys[d][p] for d in DIRECTIONS for p in self._moved if p in self._keys[d]}:
            if not self._holders.get(key):
                emptied.add(key)
            elif key in self._dirty or key not in self._made:
                changed |= self._remake(key)
        for key in emptied:
            if not self._holders.get(key):
                self._drop(key)
        self._moved.clear()
        self._dirty.clear()
        self._tell(changed)

    def _regroup(self) -> set[Key]:
        """Find again under which policies the moved endpoints are; the keys they left."""
        left: set[Key] = set()
        for position in self._moved:
            for direction in DIRECTIONS:
                old, new = self._keys[direction].get(position), self._key(position, direction)
                if old == new:
                    continue
                if old is not None:
                    self._holders[old].discard(position)
                    del self._keys[direction][position]
                    left.add(old)
                if new is not None:
                    self._holders.setdefault(new, set()).add(position)
                    self._keys[direction][position] = new
        return left

    def _key(self, position: int, direction: str) -> Key | None:
        endpoint = self._directory.endpoints[position]
        if self._directory.positions.get(endpoint.id) != position:
            return None
        numbers = [
            number
            for space in (endpoint.namespace, None)
            for number in self._by_space.get((direction, space), ())
            if self._directory.contains(self._numbered[number].subjects, position)
        ]
        exposed = endpoint.exposed if direction == INGRESS else None
        if not numbers and exposed is None:
            return None
        governing = tuple(sorted(numbers))
        served: Served = ()
        if direction == INGRESS:
            if governing not in self._names:
                self._names[governing] = names_in(ordered_rules(direction, *self._governing(governing))[0])
            served = served_by(endpoint, self._names[governing])
        return direction, governing, served, exposed

    def _governing(self, numbers: Governing) -> tuple[tuple[Policy, ...], tuple[ClusterPolicy, ...]]:
        groups = [self._numbered[number] for number in numbers]
        wide = [p for group in groups for p in group.wide.values()]
        return (
            tuple(merge(*(sorted(g.policies.values(), key=_id) for g in groups), key=_id)),
            tuple(sorted(wide, key=lambda p: (p.tier, p.priority, p.name))),
        )

    def _remake(self, key: Key) -> set[int]:
        """Make a key's table; the endpoints that have it, unless it is what it was."""
        old = self._made.get(key)
        self._unneed(key)
        direction, governing, served, exposed = key
        selection = select(self._directory, direction, served, *self._governing(governing))
        table = bounded(spread(selection, self._directory), exposed)
        needs: dict[Need, None] = {("group", number): None for number in governing}
        for peer in {peer for rule in selection.rules for peer in rule.peers or ()}:
            if peer.nodes is not None:
                needs["nodes", None] = None
            elif peer.block is None:
                needs["peer", (peer.namespace, peer.namespaces, peer.pods)] = None
        if direction == EGRESS:
            needs |= {("port", name): None for name in names_in(selection.rules)}
        for need in needs:
            self._needed.setdefault(need, set()).add(key)
        if old is not None:
            self._forget(old[1])
            if old[0].key == table.key:
                table = old[0]
        self._made[key] = (table, tuple(needs))
        return set() if old is not None and old[0] is table else self._holders[key]

    def _drop(self, key: Key) -> None:
        self._holders.pop(key, None)
        self._names.pop(key[1], None)
        self._unneed(key)
        if made := self._made.pop(key, None):
            self._forget(made[1])

    def _unneed(self, key: Key) -> None:
        for need in self._made[key][1] if key in self._made else ():
            self._needed[need].discard(key)

    def _forget(self, needs: Iterable[Need]) -> None:
        """Let go of what nobody needs any more."""
        for need in needs:
            if self._needed.get(need):
                continue
            self._needed.pop(need, None)
            if need[0] == "peer":
                self._release(need[1])  # type: ignore[arg-type]

    def _release(self, selected: Selected) -> None:
        if not self._needed.get(("peer", selected)) and all(selected not in self._groups[d] for d in DIRECTIONS):
            self._directory.forget(selected)

    def _tell(self, changed: Iterable[int]) -> None:
        added = False
        for position in changed:
            endpoint = self._directory.endpoints[position]
            if self._directory.positions.get(endpoint.id) != position:
                continue
            sides = {}
            for direction in DIRECTIONS:
                key = self._keys[direction].get(position)
                sides[direction] = OPEN[direction] if key is None else self._made[key][0]
            added = added or endpoint.id not in self._entries
            self._entries[endpoint.id] = EndpointTables(
                endpoint.id, endpoint.ips, endpoint.node, sides[INGRESS], sides[EGRESS]
            )
        if added:
            self._entries = {id_: self._entries[id_] for id_ in sorted(self._entries)}

    def _group(self, direction: str, subjects: Selected) -> _Group:
        """The group with these subjects, whose policies are about to change."""
        group = self._groups[direction].get(subjects)
        if group is None:
            group = self._groups[direction][subjects] = _Group(self._numbers, subjects)
            self._numbers += 1
            self._numbered[group.number] = group
            self._by_space.setdefault((direction, subjects[0]), set()).add(group.number)
        keys = self._needed.get(("group", group.number), set())
        self._dirty |= keys
        for _, governing, _, _ in keys:
            self._names.pop(governing, None)
        self._moved.update(self._directory.select(*subjects))
        return group

    def _close_if_empty(self, direction: str, group: _Group) -> None:
        if group.policies or group.wide:
            return
        del self._groups[direction][group.subjects], self._numbered[group.number]
        self._by_space[direction, group.subjects[0]].discard(group.number)
        self._release(group.subjects)

    def _take_out(self, old: Endpoint) -> None:
        self._own(old, False)
        position, touched = self._directory.remove(old.id)
        self._entries.pop(old.id, None)
        self._moved.add(position)
        self._touch(touched)
        self._ports_changed(*old.ports)

    def _ports_changed(self, *ports: NamedPort) -> None:
        for name in {port.name for port in ports}:
            self._dirty |= self._needed.get(("port", name), set())

    def _touch(self, selections: Iterable[Selected]) -> None:
        for selected in selections:
            self._dirty |= self._needed.get(("peer", selected), set())

    def _own(self, endpoint: Endpoint, present: bool) -> None:
        """Who has which address, to notice two with the same."""
        for ip in endpoint.ips:
            owners = self._owners.setdefault(ip, set())
            if present:
                owners.add(endpoint.id)
            else:
                owners.discard(endpoint.id)
            if len(owners) > 1:
                self._shared.add(ip)
            else:
                self._shared.discard(ip)
            if not owners:
                del self._owners[ip]


def _id(policy: Policy) -> str:
    return policy.id
