"""Workloads that wait for a place: the most important first, and of those that need the same only one is tried. Pure.

With thousands waiting, room that comes free must not mean thousands of tries.  Workloads that ask the same of a node form a
class; when its first does not fit, none of the class does.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from isoplane.workload.shape import Workload

Rank = tuple[int, str, str]
"""Higher priority first, then older, then by uid, so that the order is total."""


def rank(workload: Workload) -> Rank:
    return (-workload.priority, workload.created, workload.uid)


def requirements(workload: Workload) -> Hashable:
    """Equal for workloads that fit on the same nodes, and for which others leave alike."""
    return (
        tuple(sorted(workload.request.items())),
        tuple(sorted(workload.node_selector.items())),
        repr(workload.tolerations),
        repr(workload.node_affinity),
        workload.preemption_policy,
    )


@dataclass(slots=True)
class Waiting:
    """The pool. ``add`` and ``discard`` cost a logarithm; :meth:`drain` tries one workload a class, and what fits."""

    _members: dict[str, tuple[Hashable, Workload]] = field(default_factory=dict)
    _heaps: dict[Hashable, list[tuple[Rank, str]]] = field(default_factory=dict)

    def add(self, workload: Workload) -> None:
        """Enter a workload, or replace it by its newer self."""
        key = requirements(workload)
        known = self._members.get(workload.uid)
        self._members[workload.uid] = (key, workload)
        if known is None or known[0] != key or rank(known[1]) != rank(workload):
            heapq.heappush(self._heaps.setdefault(key, []), (rank(workload), workload.uid))

    def discard(self, uid: str) -> None:
        self._members.pop(uid, None)

    def same(self, workload: Workload) -> bool:
        """Whether it waits here asking for the very same with the same rank."""
        member = self._members.get(workload.uid)
        return member is not None and member[0] == requirements(workload) and rank(member[1]) == rank(workload)

    def __contains__(self, uid: object) -> bool:
        return uid in self._members

    def __len__(self) -> int:
        return len(self._members)

    def head(self, key: Hashable) -> Workload | None:
        """The most important member of a class; stale entries are dropped on the way."""
        heap = self._heaps.get(key, [])
        while heap:
            order, uid = heap[0]
            member = self._members.get(uid)
            if member is not None and member[0] == key and rank(member[1]) == order:
                return member[1]
            heapq.heappop(heap)
        self._heaps.pop(key, None)
        return None

    def drain(self, fits: Callable[[Workload], bool]) -> Iterator[Workload]:
        """Yield, most important first, each workload that fits, taken out of the pool; ``fits`` is asked anew each time."""
        heads: list[tuple[Rank, int, Hashable]] = []
        for number, key in enumerate(list(self._heaps)):
            if (first := self.head(key)) is not None:
                heads.append((rank(first), number, key))
        heapq.heapify(heads)
        while heads:
            _, number, key = heapq.heappop(heads)
            first = self.head(key)
            if first is None or not fits(first):
                continue
            self.discard(first.uid)
            yield first
            if (following := self.head(key)) is not None:
                heapq.heappush(heads, (rank(following), number, key))
