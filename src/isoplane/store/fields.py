"""Which fields can be selected on (``--field-selector``), said once per resource, and which of them are indexed.

Kubernetes serves a fixed list per kind and refuses the rest; the paths here are upstream's, and for VMIs also the
node and the phase, which the node agent needs.  Values are taken once, when an object is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoplane.objects.kinds import EVENTS, NAMESPACES, NODES, PODS, SECRETS, VIRTUALMACHINEINSTANCES, Resource
from isoplane.objects.selectors import field_text

ResourceKey = tuple[str, str]
"""(group, plural): names a resource in every map of the store."""


def resource_key(resource: Resource) -> ResourceKey:
    return (resource.group, resource.plural)


SELECTABLE: dict[ResourceKey, tuple[str, ...]] = {
    resource_key(PODS): (
        "spec.nodeName", "status.phase", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
        "spec.hostNetwork", "status.podIP", "status.nominatedNodeName",
    ),
    resource_key(EVENTS): (
        "involvedObject.uid", "involvedObject.kind", "involvedObject.namespace", "involvedObject.name",
        "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
        "reportingComponent", "source", "type",
    ),
    resource_key(NODES): ("spec.unschedulable",),
    resource_key(NAMESPACES): ("status.phase",),
    resource_key(SECRETS): ("type",),
    resource_key(VIRTUALMACHINEINSTANCES): ("status.nodeName", "status.phase"),
}  # fmt: skip
"""Selectable paths beyond metadata.name and metadata.namespace."""

INDEXED: dict[ResourceKey, tuple[str, ...]] = {
    resource_key(PODS): ("spec.nodeName",),
    resource_key(EVENTS): ("involvedObject.uid",),
    resource_key(VIRTUALMACHINEINSTANCES): ("status.nodeName",),
}
"""Selectable paths selective enough to keep a map from value to objects."""

_BOOLEAN = frozenset(("spec.hostNetwork", "spec.unschedulable"))


def _split(path: str) -> tuple[str, str, str]:
    """(section, field or '', the text of an absent value); no selectable path is deeper than two steps."""
    section, _, field = ("source.component" if path == "source" else path).partition(".")
    return section, field, "false" if path in _BOOLEAN else ""


_SPLIT: dict[ResourceKey, tuple[tuple[str, str, str], ...]] = {
    key: tuple(_split(path) for path in paths) for key, paths in SELECTABLE.items()
}


def values(key: ResourceKey, obj: Mapping[str, Any]) -> tuple[str, ...]:
    """The selectable values of an object, in the order of ``SELECTABLE[key]``; an absent boolean is ``false``."""
    paths = _SPLIT.get(key)
    if paths is None:
        return ()
    found = []
    for section, field, absent in paths:
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


def position(key: ResourceKey, path: str) -> int | None:
    """The place of ``path`` in :func:`values`; None when it cannot be selected on."""
    paths = SELECTABLE.get(key, ())
    return paths.index(path) if path in paths else None
