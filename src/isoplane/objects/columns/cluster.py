"""The columns of namespaces, nodes, events, configuration data and leases."""

from __future__ import annotations

from typing import Any

from isoplane.objects import metadata
from isoplane.objects.columns.printer import (
    AGE,
    NAME,
    NONE,
    UNKNOWN,
    Cell,
    Column,
    Printer,
    age,
    condition_status,
    since,
)
from isoplane.objects.metadata import Object

_ROLE = "node-role.kubernetes.io/"


def _namespace(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), (obj.get("status") or {}).get("phase") or "", age(obj, now)]


def _node(obj: Object, now: float) -> list[Cell]:
    status = obj.get("status") or {}
    ready = condition_status(obj, "Ready")
    text = {"": "Unknown", "True": "Ready"}.get(ready, "NotReady")
    if (obj.get("spec") or {}).get("unschedulable"):
        text += ",SchedulingDisabled"
    labels = metadata.labels(obj)
    roles = sorted(key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE) and key != _ROLE)
    if role := labels.get("kubernetes.io/role"):
        roles = sorted({*roles, role})
    info = status.get("nodeInfo") or {}
    return [
        metadata.name(obj), text, ",".join(roles) or NONE, age(obj, now), info.get("kubeletVersion") or "",
        _address(status, "InternalIP"), _address(status, "ExternalIP"), info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN, info.get("containerRuntimeVersion") or UNKNOWN,
    ]  # fmt: skip


def _address(status: dict[str, Any], kind: str) -> str:
    return next((str(a.get("address")) for a in status.get("addresses") or () if a.get("type") == kind), NONE)


def _event(obj: Object, now: float) -> list[Cell]:
    first = since(obj.get("firstTimestamp") or obj.get("eventTime"), now)
    last = since(obj["lastTimestamp"], now) if obj.get("lastTimestamp") else first
    count = obj.get("count") or 1
    if series := obj.get("series"):
        last, count = since(series.get("lastObservedTime"), now), series.get("count") or 0
    involved = obj.get("involvedObject") or {}
    target = str(involved.get("kind") or "").lower()
    if involved.get("name"):
        target += f"/{involved['name']}"
    source = obj.get("source") or {}
    origin = source.get("component") or obj.get("reportingComponent") or ""
    place = source.get("host") or obj.get("reportingInstance") or ""
    return [
        last, obj.get("type") or "", obj.get("reason") or "", target, involved.get("fieldPath") or "",
        f"{origin}, {place}" if place else origin, str(obj.get("message") or "").strip(), first, count, metadata.name(obj),
    ]  # fmt: skip


def _configmap(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age(obj, now)]


def _secret(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), obj.get("type") or "", len(obj.get("data") or ()), age(obj, now)]


def _serviceaccount(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), len(obj.get("secrets") or ()), age(obj, now)]


def _lease(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), (obj.get("spec") or {}).get("holderIdentity") or "", age(obj, now)]


def _announced(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), age(obj, now)]


PRINTERS = {
    ("", "Service"): Printer((NAME, AGE), _announced),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): Printer((NAME, AGE), _announced),
    ("", "Namespace"): Printer((NAME, Column("Status", "The status of the namespace"), AGE), _namespace),
    ("", "Node"): Printer(
        (
            NAME,
            Column("Status", "The status of the node"),
            Column("Roles", "The roles of the node"),
            AGE,
            Column("Version", "Kubelet version reported by the node."),
            Column("Internal-IP", "The node's address inside the cluster.", wide=True),
            Column("External-IP", "The node's address for the outside.", wide=True),
            Column("OS-Image", "OS image reported by the node.", wide=True),
            Column("Kernel-Version", "Kernel version reported by the node.", wide=True),
            Column("Container-Runtime", "Container runtime reported by the node.", wide=True),
        ),
        _node,
    ),
    ("", "Event"): Printer(
        (
            Column("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
            Column("Type", "Type of this event (Normal, Warning)."),
            Column("Reason", "A short, machine-understandable reason for the event."),
            Column("Object", "The object that this event is about."),
            Column("Subobject", "The part of the object that this event is about.", wide=True),
            Column("Source", "The component reporting this event.", wide=True),
            Column("Message", "A human-readable description of the event."),
            Column("First Seen", "The time at which the event was first recorded.", wide=True),
            Column("Count", "The number of times this event has occurred.", wide=True),
            Column("Name", "Name must be unique within a namespace.", format="name", wide=True),
        ),
        _event,
    ),
    ("", "ConfigMap"): Printer((NAME, Column("Data", "The number of entries.", "integer"), AGE), _configmap),
    ("", "Secret"): Printer(
        (
            NAME,
            Column("Type", "The type of the secret's data."),
            Column("Data", "The number of entries.", "integer"),
            AGE,
        ),
        _secret,
    ),
    ("", "ServiceAccount"): Printer(
        (NAME, Column("Secrets", "The number of secrets that pods of this account may use.", "integer"), AGE),
        _serviceaccount,
    ),
    ("coordination.k8s.io", "Lease"): Printer((NAME, Column("Holder", "The holder's identity."), AGE), _lease),
}
