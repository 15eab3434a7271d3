"""Creating, changing and deleting objects as their kind's :class:`~isoplane.objects.resource.Strategy` has it."""

from __future__ import annotations

from collections.abc import Callable

from isoplane.objects.metadata import Object
from isoplane.objects.phase import has_ended
from isoplane.objects.resource import Resource

DEFAULT_GRACE_SECONDS = 30
OBSERVED_PREFIX = "isoplane.io/"
"""Annotations that a status update may set: what the node observed and no upstream field can tell (transitions)."""


def prepare_create(resource: Resource, obj: Object) -> None:
    """Give a new object the status and generation that are the server's to give."""
    strategy = resource.strategy
    if strategy.initial_status is not None:
        if strategy.initial_status:
            obj["status"] = dict(strategy.initial_status)
        else:
            obj.pop("status", None)
    if strategy.generation:
        obj["metadata"]["generation"] = 1
    strategy.prepare(obj)


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
    resource.strategy.keep(old, new)
    return new


def _observed_metadata(old: Object, new: Object) -> Object:
    """The stored metadata with our own annotations as the status writer has them: they are observations too."""
    merged = dict(old)
    observed = {k: v for k, v in (new.get("annotations") or {}).items() if k.startswith(OBSERVED_PREFIX)}
    if observed:
        merged["annotations"] = {**(old.get("annotations") or {}), **observed}
    return merged


def changes_generation(resource: Resource, old: Object, new: Object) -> bool:
    if not resource.strategy.generation:
        return False
    if resource.custom:
        skip = ("metadata", "status")
        return {k: v for k, v in old.items() if k not in skip} != {k: v for k, v in new.items() if k not in skip}
    return old.get("spec") != new.get("spec")


def grace_seconds(resource: Resource, obj: Object, asked: int | None) -> int:
    """How long a deletion waits for the node. 0: nothing to wait for (no node yet, finished, not run at all)."""
    node = resource.strategy.node
    if node is None:
        return 0
    section = obj.get(node[0]) or {}
    if not section.get(node[1]) or has_ended(obj):
        return 0
    if asked is not None:
        return asked
    own = (obj.get("spec") or {}).get("terminationGracePeriodSeconds")
    return max(int(own), 0) if own is not None else DEFAULT_GRACE_SECONDS


def finalizers(resource: Resource, obj: Object) -> list[str]:
    """Everything that must let go before the object may leave the store."""
    found = list(obj["metadata"].get("finalizers") or ())
    if (own := resource.strategy.own_finalizers) is not None:
        found += (obj.get(own[0]) or {}).get(own[1]) or ()
    return found


Clock = Callable[[], float]
"""POSIX seconds; injected, so that tests own the time."""
