"""What changed between two objects, as sets of fields, in one walk; equal parts are skipped by one comparison."""

from __future__ import annotations

from typing import Any

from isoplane.objects.patch.fields import MEMBER, Fields, fields_of, granular_map, item_key, value_key, whole
from isoplane.objects.schema.structure import Node


def compare(old: dict[str, Any], new: dict[str, Any], node: Node | None) -> tuple[Fields, Fields]:
    """(fields that are new or have another value, fields that are gone), relative to the two objects."""
    changed: Fields = {}
    removed: Fields = {}
    _maps(old, new, node, changed, removed)
    return changed, removed


def _maps(old: dict[str, Any], new: dict[str, Any], node: Node | None, changed: Fields, removed: Fields) -> None:
    for name, value in new.items():
        if name not in old:
            changed["f:" + name] = whole(value, node.child(name) if node is not None else None)
        elif (before := old[name]) is not value and before != value:
            _values("f:" + name, before, value, node.child(name) if node is not None else None, changed, removed)
    if len(old) > len(new) or old.keys() - new.keys():
        for name, value in old.items():
            if name not in new:
                removed["f:" + name] = whole(value, node.child(name) if node is not None else None)


def _values(key: str, old: Any, new: Any, node: Node | None, changed: Fields, removed: Fields) -> None:
    more: Fields = {}
    less: Fields = {}
    if isinstance(old, dict) and isinstance(new, dict) and granular_map(node):
        _maps(old, new, node, more, less)
    elif isinstance(old, list) and isinstance(new, list) and node is not None and node.list_type in ("map", "set"):
        _lists(old, new, node, more, less)
    elif new is None and isinstance(old, (dict, list)):
        # Emptied, not gone: all that it held goes, its own owners stay.
        less = {k: v for k, v in whole(old, node).items() if k != MEMBER}
    elif isinstance(old, (dict, list)) or isinstance(new, (dict, list)):
        changed[key] = whole(new, node)
        if below := fields_of(old, node):
            removed[key] = below
        return
    else:
        changed[key] = {}
        return
    if more:
        changed[key] = more
    if less:
        removed[key] = less


def _lists(old: list[Any], new: list[Any], node: Node, changed: Fields, removed: Fields) -> None:
    if node.list_type == "set":
        before, after = {value_key(item) for item in old}, {value_key(item) for item in new}
        changed.update((key, {}) for key in sorted(after - before))
        removed.update((key, {}) for key in sorted(before - after))
        return
    olds = {item_key(item, node): item for item in old}
    news = {item_key(item, node): item for item in new}
    for key, item in news.items():
        if key is None:
            continue
        if key not in olds:
            changed[key] = whole(item, node.element)
        elif olds[key] != item:
            _values(key, olds[key], item, node.element, changed, removed)
    for key, item in olds.items():
        if key is not None and key not in news:
            removed[key] = whole(item, node.element)
