"""The Workload kind (view.isoplane.io/v1alpha1): pods and VMs side by side, computed from the shape on every read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from isoplane.objects import metadata, quantity
from isoplane.objects.kinds import WORKLOADS
from isoplane.objects.metadata import Object
from isoplane.workload.adapters import Adapter, Waiting
from isoplane.workload.lifecycle import UNREACHABLE
from isoplane.workload.shape import Stage, Workload

Place = Callable[[str, str], int]
"""(namespace, uid) → place in the queue from 1 on; 0: in none."""


def nowhere(namespace: str, uid: str) -> int:
    """Where no queue is known."""
    return 0


def workload_object(adapter: Adapter, obj: Mapping[str, Any], place: Place = nowhere) -> Object:
    """The read-only Workload of an object. Its name is the kind's short name and the object's, so kinds never collide.

    ``place``: where it stands in its namespace's queue for quota; asked of Gated ones."""
    workload = adapter.project(obj)
    ready = metadata.condition(obj, "Ready") or {}
    reachable = ready.get("status") != "Unknown"
    enforced = metadata.condition(obj, "NetworkPolicyEnforced") or {}
    meta = obj.get("metadata") or {}
    trouble = adapter.trouble(obj) or Waiting("")
    kind = workload.id.split("/", 1)[0]
    position = place(workload.namespace, workload.uid) if workload.stage is Stage.GATED else 0
    return {
        "apiVersion": WORKLOADS.api_version,
        "kind": WORKLOADS.kind,
        "metadata": {
            "name": f"{kind}.{workload.name}",
            "namespace": workload.namespace,
            "uid": workload.uid,
            "resourceVersion": str(meta.get("resourceVersion") or ""),
            "creationTimestamp": meta.get("creationTimestamp"),
            "labels": dict(workload.labels),
            "ownerReferences": [metadata.owner_reference(obj)] if "apiVersion" in obj else [],
        },
        "spec": {
            "kind": workload.resource.kind,
            "name": workload.name,
            "uid": workload.uid,
            "priority": workload.priority,
            "priorityClassName": workload.priority_class,
            "request": {name: short(name, value) for name, value in sorted(workload.request.items())},
            **_made_of(workload),
        },
        "status": {
            "stage": str(workload.stage) if reachable or workload.finished else UNREACHABLE,
            "ready": ready.get("status") == "True",
            "reachable": reachable,
            "reason": trouble.reason,
            "message": trouble.message,
            **({"queuePosition": position} if position else {}),
            "node": workload.node,
            "ip": workload.address,
            "ips": list(workload.addresses),
            "transitions": steps(workload),
            "policyRevision": _revision(enforced),
        },
    }


def _made_of(workload: Workload) -> dict[str, Any]:
    """What the guest of a machine sees of its request, and what running it costs beside that."""
    if not workload.guest:
        return {}
    found = {"guest": {name: quantity.approximate(name, value) for name, value in sorted(workload.guest.items())}}
    memory = max(0, workload.request.get("memory", 0) - workload.guest.get("memory", 0))
    overhead = {name: value for name, value in {**workload.overhead, "memory": memory}.items() if value}
    if overhead:
        found["overhead"] = {name: quantity.approximate(name, value) for name, value in sorted(overhead.items())}
    return found


def _revision(enforced: Mapping[str, Any]) -> str:
    """The policy revision in force; '' while the one that is asked for is not."""
    return str(enforced.get("message") or "").removeprefix("revision ") if enforced.get("status") == "True" else ""


def short(resource: str, value: int) -> str:
    """An amount for people."""
    return quantity.approximate(resource, value)


def steps(workload: Workload) -> list[dict[str, Any]]:
    """Each recorded stage with the seconds it took to reach it from the one before."""
    ordered = sorted(workload.transitions.items(), key=lambda item: item[1])
    found: list[dict[str, Any]] = []
    for index, (stage, at) in enumerate(ordered):
        before = ordered[index - 1][1] if index else at
        found.append(
            {"stage": str(Stage(stage)), "at": metadata.rfc3339(at, micro=True), "seconds": round(at - before, 3)}
        )
    return found
