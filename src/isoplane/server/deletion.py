"""Delete: mark, wait for the node and for finalizers, remove; with preconditions and propagation policies."""

from __future__ import annotations

from dataclasses import dataclass

from isoplane.http import apierrors
from isoplane.http.request_options import Call, DeleteOptions
from isoplane.objects.errors import Forbidden
from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object, posix, rfc3339
from isoplane.server import strategy
from isoplane.server.writes import Writes, released
from isoplane.store.record import Record
from isoplane.store.transaction import Transaction

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Deleted:
    """``removed``: the object is gone; else ``record`` shows it marked and waiting."""

    record: Record
    removed: bool


def delete(
    txn: Transaction,
    writes: Writes,
    resource: Resource,
    namespace: str,
    name: str,
    options: DeleteOptions,
    call: Call,
    *,
    changed: Object | None = None,
) -> Deleted:
    """Raises NotFound, Conflict (preconditions), and what admission raises.

    ``changed``: what the object becomes beside being marked (a condition that says why), in the same write.
    """
    stored = txn.get(resource, namespace, name)
    if stored is None:
        raise apierrors.not_found(resource, name)
    if name in resource.strategy.undeletable:
        raise Forbidden(
            f'{resource.qualified} "{name}" is forbidden: this {resource.singular} may not be deleted',
            details=apierrors.details(resource, name),
        )
    _check_preconditions(stored, options)
    old = stored.object() if changed is None else changed
    request = writes.request(txn, "DELETE", resource, namespace, name, call, old=old)
    new: Object = {**old, "metadata": dict(old["metadata"])}
    _mark(resource, new, options, request.now)
    if released(resource, new):
        if changed is not None:
            stored = txn.put(resource, changed)
        return Deleted(writes.remove(txn, stored, old, call), True)
    if new == old and changed is None:
        return Deleted(stored, False)
    if old["metadata"].get("deletionTimestamp") is None:
        writes.admit(txn, request)
    return Deleted(txn.put(resource, new), False)


def _check_preconditions(stored: Record, options: DeleteOptions) -> None:
    if options.uid and options.uid != stored.uid:
        raise apierrors.conflict(
            stored.resource,
            stored.name,
            f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {stored.uid}",
        )
    if options.resource_version and options.resource_version != str(stored.revision):
        raise apierrors.conflict(
            stored.resource,
            stored.name,
            f"Precondition failed: ResourceVersion in precondition: {options.resource_version}, "
            f"ResourceVersion in object meta: {stored.revision}",
        )


def _mark(resource: Resource, obj: Object, options: DeleteOptions, now: float) -> None:
    """Write the wish into the metadata: the first deletion decides, a later one may only hurry it."""
    meta = obj["metadata"]
    grace = strategy.grace_seconds(resource, obj, options.grace_seconds)
    marked = posix(meta.get("deletionTimestamp"))
    if marked is None:
        meta["deletionTimestamp"] = rfc3339(now + grace)
        meta["deletionGracePeriodSeconds"] = grace
        if isinstance(meta.get("generation"), int):
            meta["generation"] += 1
        resource.strategy.marked(obj)
    else:
        pending = int(meta.get("deletionGracePeriodSeconds") or 0)
        # A repeated delete without a wish of its own changes nothing, unless nothing is left to wait for.
        if grace < pending and (options.grace_seconds is not None or grace == 0):
            meta["deletionTimestamp"] = rfc3339(marked - pending + grace)
            meta["deletionGracePeriodSeconds"] = grace
    _propagate(meta, options.propagation)


def _propagate(meta: dict[str, object], policy: str | None) -> None:
    """Foreground and orphan deletions are finalizers that the garbage collector works off."""
    if policy is None:
        return
    present = meta.get("finalizers")
    finalizers = [f for f in present if f not in (FOREGROUND, ORPHAN)] if isinstance(present, list) else []
    if policy == "Foreground":
        finalizers.append(FOREGROUND)
    elif policy == "Orphan":
        finalizers.append(ORPHAN)
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)
