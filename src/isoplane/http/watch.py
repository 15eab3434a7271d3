"""CONTRACT: what a watch is made of: changes and bookmarks, in groups that a connection may hold at once.

The store's changes are such events; a server that keeps nothing makes :class:`ObjectEvent` from what it computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from isoplane.http.items import Item

GROUP = 200
GROUP_BYTES = 32 * 1024
"""Events to a group, and what their objects hold together (one at least): a connection that is not read keeps one group."""


class Event(Protocol):
    """One change of one object: ADDED, MODIFIED or DELETED (then ``record`` is the last state)."""

    line: bytes | None
    """The encoded event that all plain watchers share, once one of them has made it."""

    @property
    def type(self) -> str: ...

    @property
    def record(self) -> Item: ...


@dataclass(slots=True, eq=False)
class ObjectEvent:
    """An event that comes from no store."""

    type: str
    record: Item
    line: bytes | None = None


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Everything up to ``revision`` was sent; ``initial`` marks the end of the initial state."""

    revision: int
    initial: bool = False


Step = Event | Bookmark
S = TypeVar("S", bound=Step)


def groups(steps: Sequence[S]) -> Iterator[Sequence[S]]:
    """The steps in order, cut into groups that a connection may hold at once."""
    begin = size = 0
    for index, step in enumerate(steps):
        weight = 0 if isinstance(step, Bookmark) else len(step.record.data)
        if index > begin and (size + weight > GROUP_BYTES or index - begin == GROUP):
            yield steps[begin:index]
            begin, size = index, 0
        size += weight
    if begin < len(steps):
        yield steps[begin:]
