"""The columns of quotas, limits, priorities, disruption budgets and network policies."""

from __future__ import annotations

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, UNKNOWN, Cell, Column, Printer, age, selector_text
from isoplane.objects.metadata import Object


def _resourcequota(obj: Object, now: float) -> list[Cell]:
    status = obj.get("status") or {}
    used = status.get("used") or {}
    requests: list[str] = []
    limits: list[str] = []
    for name, hard in sorted((status.get("hard") or {}).items()):
        (limits if name.startswith("limits.") else requests).append(f"{name}: {used.get(name, '0')}/{hard}")
    return [metadata.name(obj), ", ".join(requests), ", ".join(limits), age(obj, now)]


def _limitrange(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), (obj.get("metadata") or {}).get("creationTimestamp") or UNKNOWN]


def _priorityclass(obj: Object, now: float) -> list[Cell]:
    policy = obj.get("preemptionPolicy") or ""
    return [metadata.name(obj), obj.get("value") or 0, bool(obj.get("globalDefault")), age(obj, now), policy]


def _networkpolicy(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), selector_text((obj.get("spec") or {}).get("podSelector")), age(obj, now)]


def _budget(obj: Object, now: float) -> list[Cell]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    return [
        metadata.name(obj), "N/A" if least is None else str(least), "N/A" if most is None else str(most),
        status.get("disruptionsAllowed") or 0, age(obj, now),
    ]  # fmt: skip


def _cluster_policy(obj: Object, now: float) -> list[Cell]:
    spec = obj.get("spec") or {}
    return [metadata.name(obj), spec.get("tier") or "", spec.get("priority") or 0, age(obj, now)]


PRINTERS = {
    ("", "ResourceQuota"): Printer(
        (
            NAME,
            Column("Request", "What is used of the requests and counts, and their ceilings."),
            Column("Limit", "What is used of the limits, and their ceilings."),
            AGE,
        ),
        _resourcequota,
    ),
    ("", "LimitRange"): Printer((NAME, Column("Created At", "When the object was created.")), _limitrange),
    ("scheduling.k8s.io", "PriorityClass"): Printer(
        (
            NAME,
            Column("Value", "The integer value of this priority class.", "integer"),
            Column("Global-Default", "Whether it is the priority of pods without a class.", "boolean"),
            AGE,
            Column("PreemptionPolicy", "Whether pods of this class preempt lower ones."),
        ),
        _priorityclass,
    ),
    ("networking.k8s.io", "NetworkPolicy"): Printer(
        (NAME, Column("Pod-Selector", "The pods to which this policy applies."), AGE), _networkpolicy
    ),
    ("policy", "PodDisruptionBudget"): Printer(
        (
            NAME,
            Column("Min Available", "The minimum number of pods that must be available."),
            Column("Max Unavailable", "The maximum number of pods that may be unavailable."),
            Column("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time.", "integer"),
            AGE,
        ),
        _budget,
    ),
    ("policy.networking.k8s.io", "ClusterNetworkPolicy"): Printer(
        (NAME, Column("Tier", "The tier."), Column("Priority", "The precedence in the tier.", "integer"), AGE),
        _cluster_policy,
    ),
}
