"""Empty maps and lists that a client wrote or left out, against what is stored: the same, where Go's types omit them.

A built-in kind is decoded into Go structures and written without its empty maps and lists, so that ``labels: {}`` and no
labels are one object.  An empty object (``podSelector: {}``, ``emptyDir: {}``) says something, and a custom resource
keeps whatever its author wrote, but for its metadata.
"""

from __future__ import annotations

from typing import Any

from isoplane.objects.resource import Resource
from isoplane.objects.schema.structure import Node


def settled(resource: Resource, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """``new`` with its empty maps and lists as ``old`` has them, where the other has no such field. Touches neither."""
    node = resource.schema.root
    if not resource.custom:
        result: dict[str, Any] = _fields(old, new, node)
        return result
    meta = _settled(old.get("metadata"), new.get("metadata"), node.child("metadata"))
    return new if meta is new.get("metadata") else {**new, "metadata": meta}


def _settled(old: Any, new: Any, node: Node | None) -> Any:
    if node is None or node.form == "any" or old is new or old == new:
        return new
    if isinstance(old, dict) and isinstance(new, dict):
        return _fields(old, new, node)
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        items = [_settled(before, after, node.element) for before, after in zip(old, new, strict=True)]
        return new if all(a is b for a, b in zip(items, new, strict=True)) else items
    return new


def _fields(old: dict[str, Any], new: dict[str, Any], node: Node) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    dropped = []
    for name, value in new.items():
        if name in old:
            after = _settled(old[name], value, node.child(name))
            if after is not value:
                changes[name] = after
        elif _omitted(value, node, name):
            dropped.append(name)
    for name, value in old.items():
        if name not in new and _omitted(value, node, name):
            changes[name] = value
    if not changes and not dropped:
        return new
    return {name: value for name, value in {**new, **changes}.items() if name not in dropped}


def _omitted(value: Any, node: Node, name: str) -> bool:
    """An empty map or list as a declared field; an entry of a map is there, whatever its value."""
    if value not in ({}, []) or node.form != "object":
        return False
    child = node.child(name)
    return child is not None and child.form == ("list" if isinstance(value, list) else "map")
