"""The recent changes in memory, from which watches resume and consistent pages are read; older ones are compacted.

What a change replaced is kept on disk exactly as long as the change is kept here, so a restart loses no watch.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter

from isoplane.objects.errors import Expired
from isoplane.objects.kinds import Resource
from isoplane.store.record import Record
from isoplane.store.transaction import Change


@dataclass(frozen=True, slots=True)
class Retention:
    """How much history to keep: at most ``changes`` and ``size`` bytes, nothing older than ``seconds``."""

    changes: int = 10_000
    size: int = 24 << 20
    seconds: float = 300.0


class History:
    """Changes after ``compacted``, in order. Not thread-safe: the loop owns it."""

    def __init__(self, compacted: int, retention: Retention) -> None:
        self.compacted = compacted
        """The newest revision whose change is forgotten; a watch must start at it or later."""
        self._retention = retention
        self._changes: deque[Change] = deque()
        self._size = 0
        self._stamps: deque[tuple[float, int]] = deque()
        self._dead: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._changes)

    def append(self, change: Change) -> None:
        self._changes.append(change)
        self._size += len(change.record.data)
        if change.previous is not None:
            self._dead.append((change.revision, change.previous.revision))
        if change.type == "DELETED":
            self._dead.append((change.revision, change.revision))

    def stamp(self, now: float) -> None:
        """Note that everything appended so far happened at ``now`` (seconds, monotonic) or before; then trim."""
        if self._changes and (not self._stamps or self._stamps[-1][1] < self._changes[-1].revision):
            self._stamps.append((now, self._changes[-1].revision))
        limit = self._retention
        old = 0
        while self._stamps and self._stamps[0][0] < now - limit.seconds:
            old = self._stamps.popleft()[1]
        changes = self._changes
        while changes and (len(changes) > limit.changes or self._size > limit.size or changes[0].revision <= old):
            gone = changes.popleft()
            self._size -= len(gone.record.data)
            self.compacted = gone.revision

    def settle(self) -> None:
        """After loading: forget what was compacted before the restart, and trim to the limits."""
        changes = self._changes
        while changes and changes[0].revision <= self.compacted:
            self._size -= len(changes.popleft().record.data)
        self.stamp(time.monotonic())

    def dead(self, limit: int) -> list[int]:
        """Up to ``limit`` revisions that nobody can ask for any more. They are taken; give them back on failure."""
        found: list[int] = []
        while self._dead and len(found) < limit and self._dead[0][0] <= self.compacted:
            found.append(self._dead.popleft()[1])
        return found

    def give_back(self, revisions: list[int]) -> None:
        self._dead.extendleft((self.compacted, revision) for revision in reversed(revisions))

    def has_dead(self) -> bool:
        return bool(self._dead) and self._dead[0][0] <= self.compacted

    def since(self, revision: int) -> Iterator[Change]:
        """Changes after ``revision``, oldest first. Raises Expired when some of them are compacted."""
        self.require(revision)
        start = bisect_right(self._changes, revision, key=attrgetter("revision"))
        return islice(self._changes, start, None)

    def require(self, revision: int) -> None:
        if revision < self.compacted:
            raise Expired(
                f"The resourceVersion {revision} is too old: changes up to {self.compacted} are compacted. List again"
            )

    def undo(self, resource: Resource, namespace: str | None, revision: int) -> dict[tuple[str, str], Record | None]:
        """What objects of a scope were at ``revision`` where they differ from now; None: did not exist yet."""
        self.require(revision)
        past: dict[tuple[str, str], Record | None] = {}
        for change in reversed(self._changes):
            if change.revision <= revision:
                break
            record = change.record
            if record.resource == resource and (namespace is None or record.namespace == namespace):
                past[(record.namespace, record.name)] = change.previous
        return past
