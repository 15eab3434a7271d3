"""Counters of the store's commits, kept where they happen and shown elsewhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stats:
    """Since the store was opened. A commit without changes writes side rows or compacts; it counts as a commit."""

    commits: int = 0
    failures: int = 0
    """Commits that the disk refused."""
    changes: int = 0
    seconds: float = 0.0
    """From handing a batch to the writer until the loop hears that it is durable."""
    sizes: Counter[int] = field(default_factory=Counter)
    """Commits of at most 2**n changes, and of more than 2**(n-1), by n."""
    began: float = 0.0
    """When the batch in flight was handed over (monotonic seconds)."""

    def committed(self, changes: int, now: float) -> None:
        """One batch is durable. ``now`` in monotonic seconds."""
        self.commits += 1
        self.seconds += now - self.began
        if changes:
            self.changes += changes
            self.sizes[(changes - 1).bit_length()] += 1
