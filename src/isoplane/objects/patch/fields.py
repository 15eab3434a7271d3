"""Sets of fields as metadata.managedFields stores them (FieldsV1), and their algebra.

A set is a tree of dicts.  Keys: ``f:NAME`` a field, ``k:{…}`` a list item by its key fields, ``v:…`` an item of a set by
its value.  An empty dict is a member; a member that also has members below it carries the key ``.``.  Source:
sigs.k8s.io/structured-merge-diff, fieldpath.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson

from isoplane.objects.remembered import Key, Remembered
from isoplane.objects.schema.structure import Node

Fields = dict[str, Any]
MEMBER = "."
_NESTED = frozenset((dict, list))
_SHARED_SETS = 64
"""How many sets a place in a schema keeps, whatever fields hostile objects combine."""


def fields_of(value: Any, node: Node | None) -> Fields:
    """The set that a value's owner owns, relative to it: leaves, list items, empty containers."""
    if isinstance(value, dict):
        return _fields_of_map(value, node) if granular_map(node) else {}
    if isinstance(value, list) and node is not None and node.form == "list" and value:
        if node.list_type == "map":
            result = {}
            for item in value:
                if (key := item_key(item, node)) is not None:
                    result[key] = {MEMBER: {}, **fields_of(item, node.element)}
            return result
        if node.list_type == "set":
            return {value_key(item): {} for item in value}
    return {}


def _fields_of_map(value: dict[str, Any], node: Node | None) -> Fields:
    result: Fields = {}
    is_map = node is None or node.form in ("map", "any")
    for name, child in value.items():
        if isinstance(child, (dict, list)):
            below = fields_of(child, node.child(name) if node is not None else None)
            result["f:" + name] = {MEMBER: {}, **below} if is_map and below else below
        else:
            result["f:" + name] = {}
    return result


def whole(value: Any, node: Node | None) -> Fields:
    """The set of a value that came or went as a whole: all that it holds, and every container on the way.

    This runs at every create.  Objects without anything below their fields (an env entry, a port) are most of what a
    Pod consists of; those of one kind with the same fields have the same set, which is made once and shared: sets are
    never changed in place.
    """
    if isinstance(value, dict) and value and granular_map(node):
        if node is not None and node.form == "object" and _NESTED.isdisjoint(map(type, value.values())):
            names = tuple(value)
            if (known := node.flat_sets.get(names)) is None:
                known = {MEMBER: {}, **{"f:" + name: {} for name in names}}
                if len(node.flat_sets) < _SHARED_SETS:
                    node.flat_sets[names] = known
            return known
        result: Fields = {MEMBER: {}}
        for name, child in value.items():
            if type(child) in _NESTED and child:
                result["f:" + name] = whole(child, node.child(name) if node is not None else None)
            else:
                result["f:" + name] = {}
        return result
    if isinstance(value, list) and value and node is not None and node.list_type == "map":
        element = node.element
        result = {MEMBER: {}}
        for item in value:
            if (key := item_key(item, node)) is not None:
                result[key] = whole(item, element)
        return result if len(result) > 1 else {}
    result = fields_of(value, node)
    return {MEMBER: {}, **result} if result else {}


_SETS: Remembered[Fields] = Remembered()
_MANY = 1000
"""Fields other than the spec are worth remembering from so many keys on: the data of a large ConfigMap."""


def of_new(obj: dict[str, Any], node: Node) -> Fields:
    """The set of an object that is new: ``whole`` of each of its fields. Objects of one template share that of the spec."""
    result: Fields = {}
    for name, value in obj.items():
        key = _key(name, value, node)
        if (fields := _SETS.get(key)) is None:
            fields = whole(value, node.child(name))
            _SETS.put(key, fields)
        result["f:" + name] = fields
    return result


def of_new_ahead(obj: dict[str, Any], node: Node) -> None:
    """Make the sets of a large object's fields beside the event loop; ``of_new`` takes them."""
    for name, value in obj.items():
        if (key := _key(name, value, node)) is not None:
            _SETS.ahead(key, whole(value, node.child(name)))


def _key(name: str, value: Any, node: Node) -> Key | None:
    if name == "spec" or (type(value) is dict and len(value) > _MANY):
        return Remembered.key((node, name), value)
    return None


def granular_map(node: Node | None) -> bool:
    """Whether the fields of a map are owned one by one; an atomic one has one owner as a whole."""
    return node is None or node.map_type != "atomic"


def item_key(item: Any, node: Node) -> str | None:
    """The path element of an item of a list-map; None when it lacks a key field."""
    if not isinstance(item, dict):
        return None
    if (values := node.map_key(item)) is None:
        return None
    if len(values) == 1:  # The usual case, written without an encoder.
        value = values[0]
        if type(value) is str and value.isascii() and value.isidentifier():
            return f'k:{{"{node.map_keys[0]}":"{value}"}}'
    pairs = dict(zip(node.map_keys, values, strict=True))
    try:
        return "k:" + orjson.dumps(pairs, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:  # a number of more than 64 bits, which the schema of no key allows
        return "k:" + json.dumps(pairs, separators=(",", ":"), ensure_ascii=False, sort_keys=True)


def value_key(item: Any) -> str:
    """The path element of an item of a list that is a set."""
    return "v:" + json.dumps(item, separators=(",", ":"), ensure_ascii=False, sort_keys=True)


def is_member(fields: Fields) -> bool:
    return not fields or MEMBER in fields


def union(left: Fields, right: Fields) -> Fields:
    """Members of either, below a common root that is no member itself."""
    if not left or not right:
        return left or right
    result = dict(left)
    for key, below in right.items():
        result[key] = _union_below(left[key], below) if key in left else below
    return result


def _union_below(left: Fields, right: Fields) -> Fields:
    if not left and not right:
        return {}
    if not left or not right:
        return {MEMBER: {}, **(left or right)}
    return union(left, right)


def difference(left: Fields, right: Fields) -> Fields:
    """Members of ``left`` that are not members of ``right``."""
    if not right:
        return left
    result: Fields = {}
    for key, below in left.items():
        if key == MEMBER:
            continue
        if key not in right:
            result[key] = below
            continue
        other = right[key]
        rest = difference(below, other) if below and other else {k: v for k, v in below.items() if k != MEMBER}
        member = is_member(below) and not is_member(other)
        if rest:
            result[key] = {MEMBER: {}, **rest} if member else rest
        elif member:
            result[key] = {}
    return result


def intersection(left: Fields, right: Fields) -> Fields:
    """Members of both."""
    result: Fields = {}
    for key, below in left.items():
        if key == MEMBER or key not in right:
            continue
        other = right[key]
        rest = intersection(below, other)
        member = is_member(below) and is_member(other)
        if rest:
            result[key] = {MEMBER: {}, **rest} if member else rest
        elif member:
            result[key] = {}
    return result


def paths(fields: Fields, prefix: str = "") -> Iterator[str]:
    """The members as text, as conflicts print them: ``.spec.containers[name="web"].image``."""
    for key, below in fields.items():
        if key == MEMBER:
            continue
        path = prefix + _element(key)
        if is_member(below):
            yield path
        yield from paths(below, path)


def _element(key: str) -> str:
    kind, text = key[:2], key[2:]
    if kind == "f:":
        return "." + text
    if kind == "k:":
        try:
            pairs = json.loads(text)
            inner = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in pairs.items())
        except (ValueError, AttributeError):
            inner = text
        return f"[{inner}]"
    return f"[={text}]" if kind == "v:" else f"[{text}]"
