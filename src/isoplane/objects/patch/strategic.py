"""Strategic merge patch: ``application/strategic-merge-patch+json``, the patch of built-in kinds.

A merge patch that knows lists: the schema names each list's merge key and strategy, and the patch may carry directives:

    $patch: replace | delete | merge       on a map, or on an item of a list of maps
    $deleteFromPrimitiveList/FIELD: […]    takes values out of a list of scalars
    $setElementOrder/FIELD: […]            the order of a merged list
    $retainKeys: […]                       drops the other fields of a map (unions such as a Deployment's strategy)

Source: apimachinery pkg/util/strategicpatch, whose results on well-formed patches this reproduces.  Fields without a
schema merge as maps and replace as lists, since objects keep fields unknown to us.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isoplane.objects.copying import deep_copy, token
from isoplane.objects.errors import BadRequest
from isoplane.objects.resource import Resource
from isoplane.objects.schema.structure import Node

_PATCH, _RETAIN = "$patch", "$retainKeys"
_DELETE_FROM, _ORDER = "$deleteFromPrimitiveList/", "$setElementOrder/"

Map = dict[str, Any]


def apply_strategic(resource: Resource, obj: Map, patch: Any) -> Map:
    """The merged object. Raises BadRequest with the field's path when the patch is malformed."""
    if not isinstance(patch, dict):
        raise BadRequest("a strategic merge patch is an object")
    return _merge_map(deep_copy(obj), deep_copy(patch), resource.schema.root, "")


def _merge_map(original: Map, patch: Map, node: Node | None, path: str) -> Map:
    match patch.pop(_PATCH, "merge"):
        case "replace":
            return _clean_map(patch)
        case "delete":
            return {}
        case "merge":
            pass
        case other:
            raise _bad(path, f"unknown {_PATCH} directive {other!r}: use replace, delete or merge")
    _retain(original, patch, path)
    _order_lists(original, patch, node, path)
    for name, value in patch.items():
        if name.startswith(_DELETE_FROM):
            _delete_from(original, name, value, path)
        elif value is None:
            original.pop(name, None)
        else:
            _merge_field(original, name, value, node, path)
    return original


def _merge_field(original: Map, name: str, value: Any, node: Node | None, path: str) -> None:
    current = original.get(name)
    child = node.child(name) if node else None
    if isinstance(value, dict) and isinstance(current, dict):
        if child is not None and child.strategy == "replace":
            original[name] = _clean_map(value)
        else:
            merged = _merge_map(current, value, child, _join(path, name))
            original[name] = merged
    elif isinstance(value, list) and isinstance(current, list):
        original[name] = _merge_list(current, value, child, _join(path, name))
    elif (cleaned := _clean(value)) is not _DROPPED:
        original[name] = cleaned
    else:
        original.pop(name, None)


def _merge_list(original: list[Any], patch: list[Any], node: Node | None, path: str) -> list[Any]:
    if node is None or node.strategy != "merge":
        return _clean_list(patch)
    if not any(isinstance(item, dict) for item in (*original, *patch)):
        merged = list({token(item): item for item in (*original, *patch)}.values())
        return _ordered(merged, patch, original, token)
    key = node.merge_key
    if not key:
        raise _bad(path, "a list of objects without a merge key cannot be merged; replace it by a JSON patch")
    identity = _identity(key)
    original, patch = _list_directives(original, patch, key, path)
    merged = list(original)
    places: dict[Any, int] = {}
    for at, item in enumerate(merged):
        places.setdefault(identity(item), at)
    for item in patch:
        value = _key_of(item, key, path)
        place = places.get(token(value))
        if place is not None and isinstance(merged[place], dict):
            merged[place] = _merge_map(merged[place], item, node.element, f"{path}[{value}]")
        elif (cleaned := _clean(item)) is not _DROPPED:
            places[token(value)] = len(merged)
            merged.append(cleaned)
    return _ordered(merged, patch, original, identity)


def _list_directives(original: list[Any], patch: list[Any], key: str, path: str) -> tuple[list[Any], list[Any]]:
    """Carry out the ``$patch`` items of a list of maps; what is left to merge, and into what."""
    rest: list[Any] = []
    replace = False
    deleted = set()
    for item in patch:
        if not isinstance(item, dict):
            raise _bad(path, "the list mixes objects with other values")
        directive = item.get(_PATCH)
        if directive in (None, "merge"):
            item.pop(_PATCH, None)
            rest.append(item)
        elif directive == "replace":
            replace = True
        elif directive == "delete":
            deleted.add(token(_key_of(item, key, path)))
        else:
            raise _bad(path, f"unknown {_PATCH} directive {directive!r}: use replace, delete or merge")
    identity = _identity(key)
    kept = [] if replace else [old for old in original if identity(old) not in deleted] if deleted else original
    return kept, rest


def _delete_from(original: Map, name: str, values: Any, path: str) -> None:
    if not isinstance(values, list):
        raise _bad(_join(path, name), "must be a list of the values to delete")
    field = name.removeprefix(_DELETE_FROM)
    current = original.get(field)
    if isinstance(current, list):
        deleted = {token(value) for value in values}
        original[field] = [item for item in current if token(item) not in deleted]


def _retain(original: Map, patch: Map, path: str) -> None:
    if _RETAIN not in patch:
        return
    keys = patch.pop(_RETAIN)
    if not isinstance(keys, list):
        raise _bad(_join(path, _RETAIN), "must be a list of field names")
    kept = {token(key) for key in keys}
    for name, value in patch.items():
        if value is not None and not name.startswith((_DELETE_FROM, _ORDER)) and name not in kept:
            raise _bad(_join(path, _RETAIN), f"field {name!r} is in the patch and not in the list")
    for name in [name for name in original if name not in kept]:
        del original[name]


def _order_lists(original: Map, patch: Map, node: Node | None, path: str) -> None:
    """Merge the lists whose order the patch gives, and put them in it; takes them out of the patch."""
    for directive in [name for name in patch if name.startswith(_ORDER)]:
        order, field = patch.pop(directive), directive.removeprefix(_ORDER)
        where = _join(path, directive)
        if not isinstance(order, list):
            raise _bad(where, "must be a list")
        child = node.child(field) if node else None
        key = child.merge_key if child else ""
        changes = patch.pop(field, None)
        identity = _identity(key) if key else token
        if changes is not None and not isinstance(changes, list):
            raise _bad(_join(path, field), "must be a list, as its order is given")
        wanted = {identity(item) for item in order}
        for item in changes or ():
            if not (isinstance(item, dict) and _PATCH in item) and identity(item) not in wanted:
                raise _bad(where, f"{_shown(item, key)} is in the patch's list and not in its order")
        current = original.get(field)
        if isinstance(current, list) and changes is not None:
            merged = _merge_list(list(current), changes, child, _join(path, field))
        elif isinstance(current, list):
            merged = current
        elif changes is not None:
            merged = _clean_list(changes)
        else:
            continue
        original[field] = _ordered(merged, order, current if isinstance(current, list) else [], identity)


def _ordered(merged: list[Any], order: list[Any], live: list[Any], identity: Callable[[Any], Any]) -> list[Any]:
    """The items in the patch's order, the others woven in where the live list had them; both orders are kept."""
    wanted, lived = _places(order, identity), _places(live, identity)
    named: list[tuple[int, int, Any]] = []
    others: list[tuple[int, Any]] = []
    for item in merged:
        key = identity(item)
        if key in wanted:
            named.append((wanted[key], lived.get(key, -1), item))
        else:
            others.append((lived.get(key, -1), item))
    named.sort(key=lambda entry: entry[0])
    others.sort(key=lambda entry: entry[0])
    result: list[Any] = []
    i = j = 0
    while i < len(others) and j < len(named):
        if 0 <= others[i][0] < named[j][1]:
            result.append(others[i][1])
            i += 1
        else:
            result.append(named[j][2])
            j += 1
    result += [item for _, _, item in named[j:]]
    result += [item for _, item in others[i:]]
    return result


def _places(items: list[Any], identity: Callable[[Any], Any]) -> dict[Any, int]:
    places: dict[Any, int] = {}
    for at, item in enumerate(items):
        places.setdefault(identity(item), at)
    return places


_DROPPED = object()


def _clean(value: Any) -> Any:
    """A new value without its directives and nulls; _DROPPED for one that only says delete."""
    if isinstance(value, dict):
        return _DROPPED if value.get(_PATCH) == "delete" else _clean_map(value)
    if isinstance(value, list):
        return _clean_list(value)
    return value


def _clean_map(value: Map) -> Map:
    result = {}
    for name, child in value.items():
        if child is None or name in (_PATCH, _RETAIN) or name.startswith((_DELETE_FROM, _ORDER)):
            continue
        if (cleaned := _clean(child)) is not _DROPPED:
            result[name] = cleaned
    return result


def _clean_list(values: list[Any]) -> list[Any]:
    # An item that is only {$patch: replace} orders a replacement and is no item itself.
    kept = (
        item for item in values if not (isinstance(item, dict) and item.get(_PATCH) == "replace" and len(item) == 1)
    )
    return [cleaned for cleaned in map(_clean, kept) if cleaned is not _DROPPED]


def _identity(key: str) -> Callable[[Any], Any]:
    """What makes two items of a list of maps the same one: the value of their merge key."""
    return lambda item: token(item.get(key) if isinstance(item, dict) else item)


def _shown(item: Any, key: str) -> str:
    return repr(item.get(key) if isinstance(item, dict) else item)


def _key_of(item: Any, key: str, path: str) -> Any:
    if not isinstance(item, dict):
        raise _bad(path, "the list mixes objects with other values")
    value = item.get(key)
    if value is None or isinstance(value, (dict, list)):
        raise _bad(path, f"an item does not contain its merge key {key!r}")
    return value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _bad(path: str, text: str) -> BadRequest:
    return BadRequest(f"the strategic merge patch cannot be applied: {path or 'the patch'}: {text}")
