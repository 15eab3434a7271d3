"""The line of a tenant's waiting workloads: by priority, then age. Those with a hold stand beside it, for their room is sure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import islice

from isoplane.quota.model import Waiting

Order = tuple[int, float, str]


class WaitingLine:
    """Everyone of one tenant who waits. Insertion and removal by bisection; the first is found at once."""

    __slots__ = ("_by_uid", "_held", "_line")

    def __init__(self) -> None:
        self._by_uid: dict[str, Waiting] = {}
        self._line: list[Order] = []
        self._held: list[Order] = []

    def __len__(self) -> int:
        return len(self._by_uid)

    def get(self, uid: str) -> Waiting | None:
        return self._by_uid.get(uid)

    def put(self, waiting: Waiting) -> None:
        """Add, or replace what has the same uid."""
        old = self._by_uid.get(waiting.charge.uid)
        if old is None or old.order != waiting.order or old.held != waiting.held:
            if old is not None:
                self._unlist(old)
            insort(self._held if waiting.held else self._line, waiting.order)
        self._by_uid[waiting.charge.uid] = waiting

    def drop(self, uid: str) -> None:
        """Remove; nothing happens when it is not there."""
        old = self._by_uid.pop(uid, None)
        if old is not None:
            self._unlist(old)

    def _unlist(self, waiting: Waiting) -> None:
        entries = self._held if waiting.held else self._line
        place = bisect_left(entries, waiting.order)
        if place < len(entries) and entries[place] == waiting.order:
            del entries[place]

    def first(self) -> Waiting | None:
        """The first that holds nothing."""
        return self._by_uid[self._line[0][2]] if self._line else None

    def place(self, uid: str) -> int:
        """How many are released before it, and it: 1 for the first; 0 for who has a hold, or is not there."""
        waiting = self._by_uid.get(uid)
        return 0 if waiting is None or waiting.held else bisect_left(self._line, waiting.order) + 1

    def held(self) -> list[Waiting]:
        """Those with a hold, in order."""
        return [self._by_uid[uid] for _, _, uid in self._held]

    def front(self, count: int) -> list[Waiting]:
        """The first ``count`` that hold nothing, in order."""
        return [self._by_uid[uid] for _, _, uid in islice(self._line, count)]

    def ordered(self) -> list[Waiting]:
        """Everyone, in order, holds or not."""
        return [self._by_uid[uid] for _, _, uid in sorted([*self._held, *self._line])]

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self.ordered())
