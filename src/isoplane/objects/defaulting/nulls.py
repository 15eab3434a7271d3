"""Nulls in a document: absent fields, and empty values of maps, as Go's decoder makes of them."""

from __future__ import annotations

from typing import Any

import orjson

from isoplane.objects.schema.structure import Node


def has_nulls(value: Any) -> bool:
    """Whether some field of a JSON value may be null: cheap, and few documents have any."""
    try:
        return b":null" in orjson.dumps(value)
    except TypeError:  # a number too large for it: somebody else says so
        return True


def drop_nulls(value: Any, node: Node | None) -> None:
    """Remove null fields in place; a null in a map of strings becomes '', in a map of amounts 0."""
    if isinstance(value, list):
        element = node.element if node is not None else None
        for item in value:
            if isinstance(item, (dict, list)):
                drop_nulls(item, element)
        return
    empty = None
    for name, child in value.items():
        if child is None:
            empty = [name] if empty is None else [*empty, name]
        elif isinstance(child, (dict, list)):
            drop_nulls(child, node.child(name) if node is not None else None)
    for name in empty or ():
        if node is None or node.form == "any":
            continue  # Free-form: here a null may mean something.
        element = node.element if node.form == "map" else None
        if element is not None and element.form == "scalar":
            value[name] = "0" if element.definition == QUANTITY else ""
        else:
            del value[name]


QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
