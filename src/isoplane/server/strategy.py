"""What differs between resources when their objects are created, changed and deleted, as data.

A resource that appears nowhere here behaves like a plain configuration object: no status, no generation, no grace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from isoplane.objects.kinds import (
    NAMESPACES,
    NETWORKPOLICIES,
    NODES,
    PODDISRUPTIONBUDGETS,
    PODS,
    VIRTUALMACHINEINSTANCES,
    Resource,
)
from isoplane.objects.metadata import Object
from isoplane.store.fields import ResourceKey, resource_key

DEFAULT_GRACE_SECONDS = 30
NAMESPACE_FINALIZER = "kubernetes"
OBSERVED_PREFIX = "isoplane.io/"
"""Annotations that a status update may set: what the node observed and no upstream field can tell (transitions)."""
_FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Strategy:
    """How the server treats one resource.

    ``generation``: count spec changes.  ``initial_status``: the status of a new object (None: as the author wrote it).
    ``node``: where the node's name stands; such objects are deleted gracefully, the node confirms with grace 0.
    """

    generation: bool = False
    initial_status: dict[str, Any] | None = None
    node: tuple[str, str] | None = None
    returns_deleted: bool = False


_PLAIN = Strategy()
_STRATEGIES: dict[ResourceKey, Strategy] = {
    resource_key(PODS): Strategy(True, {"phase": "Pending"}, ("spec", "nodeName"), returns_deleted=True),
    resource_key(VIRTUALMACHINEINSTANCES): Strategy(True, {}, ("status", "nodeName")),
    resource_key(NAMESPACES): Strategy(False, {"phase": "Active"}, returns_deleted=True),
    resource_key(NODES): Strategy(),
    resource_key(NETWORKPOLICIES): Strategy(True),
    resource_key(PODDISRUPTIONBUDGETS): Strategy(True, {}),
}
_CUSTOM = Strategy(True, None)
_CUSTOM_WITH_STATUS = Strategy(True, {})


def of(resource: Resource) -> Strategy:
    key = (resource.group, resource.plural)
    found = _STRATEGIES.get(key)
    if found is not None:
        return found
    if resource.custom:
        return _CUSTOM_WITH_STATUS if "status" in resource.subresources else _CUSTOM
    return _STRATEGIES.setdefault(key, Strategy(initial_status={} if "status" in resource.subresources else None))


def prepare_create(resource: Resource, obj: Object) -> None:
    """Give a new object the status and generation that are the server's to give."""
    strategy = of(resource)
    if strategy.initial_status is not None:
        if strategy.initial_status:
            obj["status"] = dict(strategy.initial_status)
        else:
            obj.pop("status", None)
    if strategy.generation:
        obj["metadata"]["generation"] = 1
    if resource is NAMESPACES:
        spec = obj.get("spec")
        finalizers = spec.get("finalizers") if isinstance(spec, dict) else None
        obj["spec"] = {**(spec if isinstance(spec, dict) else {}), "finalizers": finalizers or [NAMESPACE_FINALIZER]}
        meta = obj["metadata"]
        if isinstance(meta.get("labels") or {}, dict):
            meta["labels"] = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta["name"]}


def isolate(resource: Resource, old: Object, new: Object, subresource: str) -> Object:
    """The new object with everything taken from ``old`` that this (sub)resource does not write.

    Actions (binding, start, …) write exactly what they mean to, so they are taken as they are.
    """
    if subresource == "status":
        merged = {key: value for key, value in old.items() if key != "status"}
        merged["metadata"] = _observed_metadata(old["metadata"], new.get("metadata") or {})
        if "status" in new:
            merged["status"] = new["status"]
        return merged
    if subresource == "finalize":
        merged = {**old, "metadata": dict(old["metadata"])}
        spec = {key: value for key, value in (old.get("spec") or {}).items() if key != "finalizers"}
        wanted = new.get("spec")
        finalizers = wanted.get("finalizers") if isinstance(wanted, dict) else None
        merged["spec"] = {**spec, "finalizers": finalizers} if finalizers else spec
        return merged
    if subresource:
        return new
    if "status" in resource.subresources:
        if "status" in old:
            new["status"] = old["status"]
        else:
            new.pop("status", None)
    if resource is NAMESPACES:
        # A namespace's own finalizers change through /finalize only; it has no other spec.
        if "spec" in old:
            new["spec"] = old["spec"]
        else:
            new.pop("spec", None)
    return new


def _observed_metadata(old: Object, new: Object) -> Object:
    """The stored metadata with our own annotations as the status writer has them: they are observations too."""
    merged = dict(old)
    observed = {k: v for k, v in (new.get("annotations") or {}).items() if k.startswith(OBSERVED_PREFIX)}
    if observed:
        merged["annotations"] = {**(old.get("annotations") or {}), **observed}
    return merged


def changes_generation(resource: Resource, old: Object, new: Object) -> bool:
    if not of(resource).generation:
        return False
    if resource.custom:
        skip = ("metadata", "status")
        return {k: v for k, v in old.items() if k not in skip} != {k: v for k, v in new.items() if k not in skip}
    return old.get("spec") != new.get("spec")


def grace_seconds(resource: Resource, obj: Object, asked: int | None) -> int:
    """How long a deletion waits for the node. 0: nothing to wait for (no node yet, finished, not run at all)."""
    node = of(resource).node
    if node is None:
        return 0
    section = obj.get(node[0]) or {}
    if not section.get(node[1]) or (obj.get("status") or {}).get("phase") in _FINISHED:
        return 0
    if asked is not None:
        return asked
    own = (obj.get("spec") or {}).get("terminationGracePeriodSeconds")
    return max(int(own), 0) if own is not None else DEFAULT_GRACE_SECONDS


def finalizers(obj: Object) -> list[str]:
    """Everything that must let go before the object may leave the store."""
    found = list(obj["metadata"].get("finalizers") or ())
    if obj.get("kind") == NAMESPACES.kind and obj.get("apiVersion") == NAMESPACES.api_version:
        found += (obj.get("spec") or {}).get("finalizers") or ()
    return found


Clock = Callable[[], float]
"""POSIX seconds; injected, so that tests own the time."""
