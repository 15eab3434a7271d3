"""The values of an object's selectable fields (``--field-selector``), taken once, when it is written.

Which fields these are, each kind's module says (``Resource.selectable``); Kubernetes serves a fixed list a kind and refuses
the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoplane.objects.resource import Resource
from isoplane.objects.selectors import field_text

ResourceKey = tuple[str, str]
"""(group, plural): names a resource in every map of the store."""


def resource_key(resource: Resource) -> ResourceKey:
    return (resource.group, resource.plural)


def values(resource: Resource, obj: Mapping[str, Any]) -> tuple[str, ...]:
    """The selectable values of an object, in the order of ``resource.selectable``."""
    found = []
    for section, field, absent in resource.selected:
        value = obj.get(section)
        if field:
            value = value.get(field) if isinstance(value, dict) else None
        if value is None:
            found.append(absent)
        elif isinstance(value, str):
            found.append(value)
        else:
            found.append(field_text({"": value}, ("",)))
    return tuple(found)


def position(resource: Resource, path: str) -> int | None:
    """The place of ``path`` in :func:`values`; None when it cannot be selected on."""
    return next((place for place, field in enumerate(resource.selectable) if field.path == path), None)
