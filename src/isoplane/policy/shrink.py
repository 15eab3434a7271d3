"""The smallest manifests that still show a fault: objects, rules, peers, ports and fields go one by one while it stays.

Pure: what "shows it" means, and whether finding out takes packets, is the caller's; so this is a generator that asks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

Object = Mapping[str, Any]
Objects = Sequence[Object]
MOST_QUESTIONS = 400
"""However large the manifests are, no more is asked than this."""
_NAMED = ("kind", "apiVersion", "metadata")


def shrinking(objects: Objects, kept: Callable[[Object], bool]) -> Generator[list[Object], bool, list[Object]]:
    """Yields manifests and is sent whether they still show the fault; returns the smallest that did.

    ``kept``: objects that stay, whatever becomes of their fields.  Manifests that it yields may be invalid: then the
    answer is False.  What it returns was asked for and answered True, or is ``objects``.
    """
    best, asked = list(objects), 0
    while True:
        for smaller in _smaller(best, kept):
            if asked == MOST_QUESTIONS:
                return best
            asked += 1
            if (yield smaller):
                best = smaller
                break
        else:
            return best


def smallest(objects: Objects, shows: Callable[[Objects], bool], kept: Callable[[Object], bool]) -> list[Object]:
    """The same with somebody who answers at once."""
    steps = shrinking(objects, kept)
    try:
        candidate = next(steps)
        while True:
            candidate = steps.send(shows(candidate))
    except StopIteration as done:
        found: list[Object] = done.value
        return found


def _smaller(objects: list[Object], kept: Callable[[Object], bool]) -> Iterator[list[Object]]:
    """What is one step smaller, the largest steps first: many objects, one object, a part of one."""
    spare = [at for at, one in enumerate(objects) if not kept(one)]
    size = len(spare) // 2
    while size:
        for first in range(0, len(spare), size):
            gone = set(spare[first : first + size])
            yield [one for at, one in enumerate(objects) if at not in gone]
        size //= 2
    if len(spare) == 1:
        yield [one for at, one in enumerate(objects) if at not in spare]
    for at, one in enumerate(objects):
        for part in _parts(one):
            yield [*objects[:at], part, *objects[at + 1 :]]


def _parts(one: Object) -> Iterator[Object]:
    """The object without one list item or field of anything but its name; outer ones first."""
    for field in [name for name in one if name not in _NAMED]:
        for less in _less(one[field]):
            yield {**one, field: less}
        yield {name: value for name, value in one.items() if name != field}
    meta = one.get("metadata") or {}
    for less in _less(meta.get("labels") or {}):
        yield {**one, "metadata": {**meta, "labels": less}}


def _less(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key in value:
            yield {name: inner for name, inner in value.items() if name != key}
        for key, inner in value.items():
            for less in _less(inner):
                yield {**value, key: less}
    elif isinstance(value, list | tuple):
        for at in range(len(value)):
            yield [*value[:at], *value[at + 1 :]]
        for at, inner in enumerate(value):
            for less in _less(inner):
                yield [*value[:at], less, *value[at + 1 :]]
