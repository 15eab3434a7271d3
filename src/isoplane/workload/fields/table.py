"""The tables' form, and the walk that finds what an object sets of one. Pure.

A path is written as in ``spec.containers[].ports[].hostPort``; ``{a,b}`` stands for either name, and ``[key]`` for one key
of a map (``metadata.annotations[example.com/name]``).  A rule about a field counts for everything below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Honoured = Mapping[str, str]
"""Test, as ``tests/…py::name`` without the ``tests/`` → the paths, between blanks, that it shows to work."""

_STEP = re.compile(r"\[\]|\[([^\]]+)\]|([^.\[\]]+)")
_CHOICE = re.compile(r"\{([^{}]*)\}")
_ITEM = "[]"


@dataclass(frozen=True, slots=True)
class Rule:
    """What is told of some fields. With neither ``only`` nor ``unless``: whenever one is set, ``false`` and ``[]`` aside."""

    paths: str
    """Patterns between blanks."""
    why: str
    only: tuple[Any, ...] = ()
    """The values that are told of."""
    unless: tuple[Any, ...] = ()
    """The values that are not told of; every other is, ``false`` too."""

    @property
    def conditional(self) -> bool:
        return bool(self.only or self.unless)

    def applies(self, value: Any) -> bool:
        """An empty map is something: many a field asks by being there (``sound: {}``)."""
        if value is None:
            return False
        if self.only:
            return any(value is one or (value == one and type(value) is type(one)) for one in self.only)
        if self.unless:
            return value not in self.unless
        return not (value is False or value == "" or value == [])


@dataclass(slots=True)
class _Node:
    """A table as a tree, so that an object is walked along what it has."""

    below: dict[str, _Node] = field(default_factory=dict)
    rules: list[tuple[int, Rule]] = field(default_factory=list)


def expand(patterns: str) -> Iterator[str]:
    """Each path that the patterns stand for."""
    for pattern in patterns.split():
        yield from dict.fromkeys(_choices(pattern))


def _choices(pattern: str) -> Iterator[str]:
    """The innermost choice first, so that choices may stand within choices."""
    found = _CHOICE.search(pattern)
    if found is None:
        yield pattern
        return
    for choice in found.group(1).split(","):
        yield from _choices(pattern[: found.start()] + choice + pattern[found.end() :])


def steps(path: str) -> list[str]:
    """The names on a path; ``[]`` for the items of a list or the values of a map."""
    return [found.group(1) or found.group(2) or _ITEM for found in _STEP.finditer(path)]


class Table:
    """Rules, and what an object sets of them."""

    def __init__(self, *rules: Rule) -> None:
        self.rules = rules
        self._tree = _Node()
        for position, rule in enumerate(rules):
            for path in expand(rule.paths):
                node = self._tree
                for name in steps(path):
                    node = node.below.setdefault(name, _Node())
                node.rules.append((position, rule))

    def found(self, obj: Mapping[str, Any]) -> list[tuple[str, str]]:
        """(path, why) for each field that an object sets, in the table's order."""
        told: list[tuple[int, str, str]] = []
        _walk(obj, None, self._tree, told)
        return [(where, why) for _, where, why in sorted(told, key=lambda one: one[0])] if told else []


_Trail = tuple[Any, str] | None
"""Where the walk stands: what lies above, and the name there. It becomes text only for what is told."""


def _walk(value: Any, trail: _Trail, node: _Node, told: list[tuple[int, str, str]]) -> None:
    for position, rule in node.rules:
        if rule.applies(value):
            told.append((position, _text(trail), rule.why))
    below = node.below
    if not below:
        return
    if isinstance(value, Mapping):
        items = below.get(_ITEM)
        for name in value if len(value) < len(below) else below:
            inner = below.get(name, items)
            if inner is not None and (child := value.get(name)) is not None:
                _walk(child, (trail, name), inner, told)
    elif isinstance(value, list | tuple) and (inner := below.get(_ITEM)) is not None:
        for index, item in enumerate(value):
            _walk(item, (trail, f"[{index}]"), inner, told)


def _text(trail: _Trail) -> str:
    names: list[str] = []
    while trail is not None:
        trail, name = trail
        names.append(name if name.startswith("[") else f"[{name}]" if "/" in name else f".{name}")
    return "".join(reversed(names)).lstrip(".")
