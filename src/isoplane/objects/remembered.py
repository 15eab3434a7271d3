"""What was found for a value before: most objects are made of templates, and those of one template have the same spec.

A pure function's results, by the value's JSON; so it is for values that decide the result alone.  Bounded by the bytes of what
it remembers values by, the least recently used going first.  A value is remembered when it comes for the second time: those
that come once, as most do that no template makes, cost no memory and push nothing out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

import orjson

T = TypeVar("T")
Key = tuple[Hashable, bytes]

LARGEST = 32 * 1024
"""Larger values are not remembered, as no template that many objects are made of is; but for one use, see ``ahead``."""

_AHEAD = 8
"""So many large values at a time."""
_MARKS = 4096
"""Of so many values it is known at a time that they came once."""


class Remembered(Generic[T]):
    """Results by (what was asked, the value's JSON), at most ``budget`` bytes of JSON in all."""

    def __init__(self, budget: int = 512 * 1024) -> None:
        self._budget = budget
        self._bytes = 0
        self._found: OrderedDict[Key, T] = OrderedDict()
        self._once: set[int] = set()
        self._ahead: OrderedDict[Key, T] = OrderedDict()

    @staticmethod
    def key(asked: Hashable, value: Any) -> Key | None:
        """``asked``: what else decides the result. None for what cannot be written as JSON."""
        try:
            return asked, orjson.dumps(value)
        except TypeError:
            return None

    def get(self, key: Key | None) -> T | None:
        if key is None:
            return None
        if len(key[1]) > LARGEST:
            return self._ahead.pop(key, None)
        if key not in self._found:
            return None
        self._found.move_to_end(key)
        return self._found[key]

    def put(self, key: Key | None, result: T) -> None:
        if key is None or len(key[1]) > LARGEST or key in self._found:
            return
        if (mark := hash(key)) not in self._once:
            if len(self._once) >= _MARKS:
                self._once.clear()
            self._once.add(mark)
            return
        self._found[key] = result
        self._bytes += len(key[1])
        while self._bytes > self._budget:
            (_, text), _ = self._found.popitem(last=False)
            self._bytes -= len(text)

    def ahead(self, key: Key | None, result: T) -> None:
        """Keep what was found for a large value beside the event loop until it is asked for there, once. Thread-safe."""
        if key is not None and len(key[1]) > LARGEST:
            self._ahead[key] = result
            if len(self._ahead) > _AHEAD:
                self._ahead.popitem(last=False)

    def __len__(self) -> int:
        return len(self._found)
