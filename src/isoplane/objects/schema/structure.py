"""The structure of a kind as a tree of nodes: what strategic merge, server-side apply and unknown-field checks walk.

A node is a field's place: the definition it refers to, merged with what the field itself says about merging.  Nodes are
made on demand and kept, so that a recursive definition costs nothing until it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoplane.objects.schema.sources import REF, Definition

_KEY_DEFAULTS = {"protocol": "TCP"}
"""Defaults of fields that serve as list-map keys: an entry without one still has a key (container and service ports)."""


class Node:
    """One place in a kind's structure. ``form`` is object, map, list, scalar, or any (free-form)."""

    __slots__ = (
        "_children", "_definition", "_element", "_pool", "_properties", "definition", "flat_sets", "form", "keeps_unknown",
        "list_type", "map_keys", "map_type", "merge_key", "name", "retain_keys", "strategy",
    )  # fmt: skip

    def __init__(self, schema: dict[str, Any], name: str, pool: Mapping[str, Definition]) -> None:
        """``pool``: where the definitions are that ``schema`` refers to."""
        definition = schema
        self.definition = ""
        """The name of the definition that the field refers to; '' when it is written out in place."""
        while "$ref" in definition:
            self.definition = definition["$ref"].removeprefix(REF)
            definition = pool[self.definition]
        self.name = name
        self._pool = pool
        self._definition = definition
        self._properties: dict[str, Any] = definition.get("properties") or {}
        self._children: dict[str, Node] = {}
        self._element: Node | None = None
        self.flat_sets: dict[tuple[str, ...], dict[str, Any]] = {}
        """Sets of fields by the names in them, kept for ``patch.fields``."""
        self.form = _form(definition)
        self.keeps_unknown = self.form == "any" or bool(definition.get("x-kubernetes-preserve-unknown-fields"))
        """Whether fields that are not declared here are stored all the same."""
        strategies = str(schema.get("x-kubernetes-patch-strategy") or "").split(",")
        self.retain_keys = "retainKeys" in strategies
        self.strategy = next((s for s in strategies if s in ("merge", "replace")), "")
        """merge, replace or '' (maps merge, lists replace)."""
        self.merge_key: str = schema.get("x-kubernetes-patch-merge-key") or ""
        self.list_type: str = (
            schema.get("x-kubernetes-list-type") or definition.get("x-kubernetes-list-type") or "atomic"
        )
        self.map_keys: tuple[str, ...] = tuple(schema.get("x-kubernetes-list-map-keys") or ())
        self.map_type: str = (
            schema.get("x-kubernetes-map-type") or definition.get("x-kubernetes-map-type") or "granular"
        )

    def child(self, name: str) -> Node | None:
        """The node of a field of an object or of any key of a map; None when the field is unknown."""
        if (found := self._children.get(name)) is not None:
            return found
        if (schema := self._properties.get(name)) is not None:
            found = self._children[name] = Node(schema, name, self._pool)
            return found
        if self.form == "map":
            return self.element
        return None

    @property
    def element(self) -> Node | None:
        """The node of a list's items or of a map's values; None when there is no schema for them."""
        if self._element is None:
            schema = self._definition.get("items" if self.form == "list" else "additionalProperties")
            if isinstance(schema, dict):
                self._element = Node(schema, self.name, self._pool)
        return self._element

    @property
    def fields(self) -> dict[str, Any]:
        """The declared fields of an object: name to schema."""
        return self._properties

    def map_key(self, item: dict[str, Any]) -> tuple[Any, ...] | None:
        """The values of an item's list-map keys, defaults applied; None when one is missing."""
        values = tuple(item.get(key, _KEY_DEFAULTS.get(key)) for key in self.map_keys)
        return None if None in values else values


def _form(definition: dict[str, Any]) -> str:
    match definition.get("type"):
        case "object" if definition.get("properties"):
            return "object"
        case "object" if "additionalProperties" in definition:
            return "map"
        case "array":
            return "list"
        case "object" | None if not definition.get("oneOf") and not definition.get("x-isoplane-number-or-string"):
            return "any"
    return "scalar"
