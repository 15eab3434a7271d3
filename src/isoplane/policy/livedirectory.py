"""The directory that follows changes: who matches which selector, kept true endpoint by endpoint.

For ``incremental.py``.  Every selection that was ever asked for stays answered; each change says which of them it
touched, and those are what must be compiled again.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping

from isoplane.objects.selectors import Selector
from isoplane.policy.directory import Directory, Selected
from isoplane.policy.model import NAME_LABEL, Cluster, Endpoint, Node

_GONE = Endpoint("", "", "")
"""Holds the place of a removed endpoint until another takes it; it is in no namespace, so nothing selects it."""


class LiveDirectory(Directory):
    """A mutable Directory. Positions stay with their endpoint; that of a removed one is given to a later one."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._places = list(self.endpoints)
        self.endpoints = self._places
        self._names = {name: dict(labels) for name, labels in cluster.namespaces.items()}
        self.cluster = Cluster(namespaces=self._names, nodes=cluster.nodes)
        self.positions = {endpoint.id: position for position, endpoint in enumerate(self._places)}
        self._free: list[int] = []
        self._asked: dict[str | None, set[Selected]] = {}
        self.serving(())  # from now on the index of port names is kept true, too
        self._label_index()

    def select(self, namespace: str | None, spaces: Selector | None, pods: Selector | None) -> tuple[int, ...]:
        key = (namespace, spaces, pods)
        if key not in self._found:
            self._asked.setdefault(namespace, set()).add(key)
        return super().select(*key)

    def forget(self, key: Selected) -> None:
        """Nobody asks this any more."""
        self._found.pop(key, None)
        if asked := self._asked.get(key[0]):
            asked.discard(key)
            if not asked:
                del self._asked[key[0]]

    def contains(self, key: Selected, position: int) -> bool:
        """Whether a selection contains an endpoint."""
        found = self.select(*key)
        at = bisect_left(found, position)
        return at < len(found) and found[at] == position

    def members(self, namespace: str) -> tuple[int, ...]:
        """The endpoints of a namespace."""
        return tuple(self._members.get(namespace, ()))

    def set_nodes(self, nodes: Iterable[Node]) -> None:
        self.cluster = Cluster(namespaces=self._names, nodes=tuple(nodes))

    def put(self, endpoint: Endpoint) -> tuple[int, set[Selected]]:
        """Add or replace an endpoint: its position and the selections whose answer, or what stands for it, changed."""
        position = self.positions.get(endpoint.id)
        touched: set[Selected] = set()
        if endpoint.namespace not in self._names:
            touched |= self.name(endpoint.namespace, {})
        if position is None:
            position = self._free.pop() if self._free else len(self._places)
            if position == len(self._places):
                self._places.append(_GONE)
            self.positions[endpoint.id] = position
            insort(self._members.setdefault(endpoint.namespace, []), position)
            old = None
        else:
            old = self._places[position]
            self._index(position, old, False)
        self._places[position] = endpoint
        self._index(position, endpoint, True)
        moved = old is None or old.ips != endpoint.ips or old.ports != endpoint.ports
        return position, touched | self._refresh(position, endpoint, moved)

    def remove(self, id_: str) -> tuple[int, set[Selected]]:
        """Take an endpoint out: the position it had and the selections it was in."""
        position = self.positions.pop(id_)
        old = self._places[position]
        self._index(position, old, False)
        members = self._members[old.namespace]
        members.remove(position)
        if not members:
            del self._members[old.namespace]
        touched = self._refresh(position, old, True, gone=True)
        self._places[position] = _GONE
        self._free.append(position)
        return position, touched

    def name(self, namespace: str, labels: Mapping[str, str]) -> set[Selected]:
        """Give a namespace its labels: the selections that changed. Its own name's label is always there."""
        new = {**labels, NAME_LABEL: namespace}
        old = self._names.get(namespace)
        if old == new:
            return set()
        self._names[namespace] = new
        for selector, found in self._spaces.items():
            was, now = old is not None and selector.matches(old), selector.matches(new)
            if was != now:
                self._spaces[selector] = (*found, namespace) if now else tuple(n for n in found if n != namespace)
        touched: set[Selected] = set()
        for position in self.members(namespace):
            touched |= self._refresh(position, self._places[position], False)
        return touched

    def _everyone(self) -> Iterable[int]:
        return sorted(self.positions.values())

    def _refresh(self, position: int, endpoint: Endpoint, moved: bool, gone: bool = False) -> set[Selected]:
        touched: set[Selected] = set()
        for asked in (self._asked.get(endpoint.namespace, ()), self._asked.get(None, ())):
            for key in asked:
                found = self._found[key]
                at = bisect_left(found, position)
                was = at < len(found) and found[at] == position
                now = not gone and self._matches(key, endpoint)
                if was != now:
                    self._found[key] = (*found[:at], position, *found[at:]) if now else (*found[:at], *found[at + 1 :])
                    touched.add(key)
                elif now and moved:
                    touched.add(key)
        return touched

    def _matches(self, key: Selected, endpoint: Endpoint) -> bool:
        namespace, spaces, pods = key
        if namespace is None and spaces is not None and not spaces.matches(self._names[endpoint.namespace]):
            return False
        return pods is None or pods.matches(endpoint.labels)

    def _index(self, position: int, endpoint: Endpoint, present: bool) -> None:
        labels = self._label_index()
        assert self._ports is not None
        sets = [labels.setdefault(key, {}).setdefault(value, set()) for key, value in endpoint.labels.items()]
        sets += [self._ports.setdefault(port.name, set()) for port in endpoint.ports]
        for found in sets:
            if present:
                found.add(position)
            else:
                found.discard(position)
