"""What of each node is in use: sums kept up to date one workload at a time, never counted again. Pure (a value that grows).

The scheduler enters a workload when it decides, before the write is durable, and takes it back when the write fails; so two
decisions never give the same room away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Usage:
    """Node → resource → amount in use, and who uses it."""

    by_node: dict[str, dict[str, int]] = field(default_factory=dict)
    _placed: dict[str, tuple[str, Mapping[str, int], int]] = field(default_factory=dict)
    """uid → (node, demand, priority)."""
    _priorities: Counter[int] = field(default_factory=Counter)

    def put(self, uid: str, node: str, demand: Mapping[str, int], priority: int = 0) -> bool:
        """Enter (or move, or resize) a workload. Returns whether some room became free."""
        freed = False
        old = self._placed.get(uid)
        if old is not None:
            if old == (node, demand, priority):
                return False
            freed = self.take(uid)
        self._placed[uid] = (node, demand, priority)
        self._priorities[priority] += 1
        sums = self.by_node.setdefault(node, {})
        for name, amount in demand.items():
            sums[name] = sums.get(name, 0) + amount
        return freed

    def take(self, uid: str) -> bool:
        """Remove a workload. Returns whether it was there."""
        old = self._placed.pop(uid, None)
        if old is None:
            return False
        sums = self.by_node[old[0]]
        for name, amount in old[1].items():
            sums[name] -= amount
        self._priorities[old[2]] -= 1
        if not self._priorities[old[2]]:
            del self._priorities[old[2]]
        return True

    @property
    def lowest_priority(self) -> int | None:
        """The lowest priority of those entered; None when nobody is."""
        return min(self._priorities, default=None)

    def node(self, uid: str) -> str:
        """The node a workload is entered on, or ''."""
        return self._placed.get(uid, ("", {}, 0))[0]

    def __contains__(self, uid: object) -> bool:
        return uid in self._placed

    def __len__(self) -> int:
        return len(self._placed)
