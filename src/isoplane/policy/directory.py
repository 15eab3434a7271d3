"""Who matches a selector: an index over the endpoints of a snapshot, every answer computed once.

Only endpoints that policies can govern are in it; they are named by their position in ``endpoints``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from isoplane.objects.selectors import EVERYTHING, Selector
from isoplane.policy.model import Cluster, Endpoint
from isoplane.policy.rules import Peer

_FEW = 32
"""Endpoints of a namespace that are sooner looked through than looked up."""
Selected = tuple[str | None, Selector | None, Selector | None]
"""What ``Directory.select`` is asked: namespace, selector of namespaces, selector of pods."""


class Directory:
    """Selections of endpoint positions, always ascending."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.endpoints: Sequence[Endpoint] = tuple(e for e in cluster.endpoints if e.governed)
        self._members: dict[str, list[int]] = {}
        self._labels: dict[str, dict[str, set[int]]] | None = None
        self._ports: dict[str, set[int]] | None = None
        self._spaces: dict[Selector, tuple[str, ...]] = {}
        self._found: dict[Selected, tuple[int, ...]] = {}
        for position, endpoint in enumerate(self.endpoints):
            self._members.setdefault(endpoint.namespace, []).append(position)

    def peer(self, peer: Peer) -> tuple[int, ...]:
        """The endpoints that a from/to item selects by labels; none for blocks and nodes."""
        if peer.block is not None or peer.nodes is not None:
            return ()
        return self.select(peer.namespace, peer.namespaces, peer.pods)

    def select(self, namespace: str | None, spaces: Selector | None, pods: Selector | None) -> tuple[int, ...]:
        """Pods selected by ``pods`` (None: all) in one namespace, or in those that ``spaces`` selects."""
        key = (namespace, spaces, pods)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = tuple(self._select(namespace, spaces, pods))
        return found

    def namespaces(self, selector: Selector) -> tuple[str, ...]:
        """The namespaces that a selector selects."""
        found = self._spaces.get(selector)
        if found is None:
            given = self.cluster.namespaces
            found = tuple(name for name, labels in given.items() if selector.matches(labels))
            self._spaces[selector] = found
        return found

    def serving(self, names: Iterable[str]) -> list[int]:
        """The endpoints that declare a port by one of these names."""
        if self._ports is None:
            self._ports = {}
            for position, endpoint in enumerate(self.endpoints):
                for port in endpoint.ports:
                    self._ports.setdefault(port.name, set()).add(position)
        return sorted({position for name in names for position in self._ports.get(name, ())})

    def _everyone(self) -> Iterable[int]:
        return range(len(self.endpoints))

    def _select(self, namespace: str | None, spaces: Selector | None, pods: Selector | None) -> Iterable[int]:
        if namespace is not None:
            inside = self._members.get(namespace, [])
            if pods is None or pods == EVERYTHING:
                return inside
            known = self._candidates(pods, len(inside)) if len(inside) > _FEW else None
            if known is None:
                return self._filter(inside, pods)
            return sorted(i for i in self._filter(known, pods) if self.endpoints[i].namespace == namespace)
        chosen = self.namespaces(spaces if spaces is not None else EVERYTHING)
        everywhere = len(chosen) == len(self.cluster.namespaces)
        if pods is None or pods == EVERYTHING:
            if everywhere:
                return self._everyone()
            return sorted(i for name in chosen for i in self._members.get(name, ()))
        candidates = self._candidates(pods)
        if candidates is None:
            members = self._everyone() if everywhere else (i for n in chosen for i in self._members.get(n, ()))
            return sorted(self._filter(members, pods))
        matching = self._filter(candidates, pods)
        if everywhere:
            return sorted(matching)
        allowed = set(chosen)
        return sorted(i for i in matching if self.endpoints[i].namespace in allowed)

    def _filter(self, positions: Iterable[int], pods: Selector) -> list[int]:
        return [i for i in positions if pods.matches(self.endpoints[i].labels)]

    def _candidates(self, pods: Selector, fewer_than: int | None = None) -> Iterable[int] | None:
        """A superset by the most selective equality requirement; None when none says enough to start from."""
        if pods.nothing:
            return ()
        index = self._label_index()
        best: list[set[int]] | None = None
        size = fewer_than
        for requirement in pods.requirements:
            if requirement.operator != "In":
                continue
            values = index.get(requirement.key, {})
            found = [values[value] for value in requirement.values if value in values]
            count = sum(map(len, found))
            if size is None or count < size:
                best, size = found, count
        return None if best is None else chain.from_iterable(best)

    def _label_index(self) -> dict[str, dict[str, set[int]]]:
        if self._labels is None:
            self._labels = {}
            for position, endpoint in enumerate(self.endpoints):
                for key, value in endpoint.labels.items():
                    self._labels.setdefault(key, {}).setdefault(value, set()).add(position)
        return self._labels
