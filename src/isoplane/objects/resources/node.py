"""Node: a machine that runs workloads. It registers itself, with its status."""

from __future__ import annotations

from typing import Any

from isoplane.objects import metadata, names
from isoplane.objects.columns.printer import AGE, NAME, NONE, UNKNOWN, Cell, Column, Printer, age, condition_status
from isoplane.objects.defaulting.shape import mapping
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules, Selectable, status_of
from isoplane.objects.rules.report import Report

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_ROLE = "node-role.kubernetes.io/"


def _default(obj: dict[str, Any]) -> None:
    status = mapping(obj, "status")
    if status is not None and (capacity := mapping(status, "capacity")):
        status.setdefault("allocatable", dict(capacity))


def _check(obj: dict[str, Any], report: Report) -> None:
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate((obj.get("spec") or {}).get("taints") or ()):
        path, key, effect = f"spec.taints[{index}]", taint.get("key") or "", taint.get("effect") or ""
        report.text(f"{path}.key", key, names.qualified(key))
        report.text(f"{path}.value", taint.get("value"), names.label_value(taint.get("value") or ""))
        if not effect:
            report.required(f"{path}.effect")
        report.one_of(f"{path}.effect", effect, _EFFECTS)
        if (key, effect) in seen:
            report.duplicate(path, taint)
        seen.add((key, effect))
    for field in ("capacity", "allocatable"):
        for name, value in ((obj.get("status") or {}).get(field) or {}).items():
            report.quantity(f"status.{field}[{name}]", name, value)


def _row(obj: Object, now: float) -> list[Cell]:
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


NODES = Resource(
    group="",
    version="v1",
    plural="nodes",
    kind="Node",
    namespaced=False,
    short_names=("no",),
    subresources=status_of("Node"),
    default=_default,
    rules=Rules(_check),
    printer=Printer(
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
        _row,
    ),
    selectable=(Selectable("spec.unschedulable", absent="false"),),
)
