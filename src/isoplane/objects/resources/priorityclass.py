"""PriorityClass: a name for a priority."""

from __future__ import annotations

from typing import Any

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, Cell, Column, Printer, age
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules
from isoplane.objects.rules.report import Report

HIGHEST_USER_PRIORITY = 1_000_000_000
SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


def _default(obj: dict[str, Any]) -> None:
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _check(obj: dict[str, Any], report: Report) -> None:
    name, value = (obj.get("metadata") or {}).get("name") or "", obj.get("value") or 0
    if name.startswith("system-"):
        if SYSTEM_PRIORITIES.get(name) != value:
            report.forbidden(
                "metadata.name",
                "priority class names with 'system-' prefix are reserved for system use only. error: "
                f"{name} is not a known system priority class with the value {value}",
            )
    elif value > HIGHEST_USER_PRIORITY:
        report.forbidden("value", f"maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}")
    report.one_of("preemptionPolicy", obj.get("preemptionPolicy"), ("Never", "PreemptLowerPriority"))


def _check_update(obj: dict[str, Any], old: dict[str, Any], report: Report) -> None:
    if (obj.get("value") or 0) != (old.get("value") or 0):
        report.forbidden("value", "may not be changed in an update.")
    default = "PreemptLowerPriority"
    report.immutable("preemptionPolicy", obj.get("preemptionPolicy") or default, old.get("preemptionPolicy") or default)


def _row(obj: Object, now: float) -> list[Cell]:
    policy = obj.get("preemptionPolicy") or ""
    return [metadata.name(obj), obj.get("value") or 0, bool(obj.get("globalDefault")), age(obj, now), policy]


PRIORITYCLASSES = Resource(
    group="scheduling.k8s.io",
    version="v1",
    plural="priorityclasses",
    kind="PriorityClass",
    namespaced=False,
    short_names=("pc",),
    default=_default,
    rules=Rules(_check, _check_update),
    printer=Printer(
        (
            NAME,
            Column("Value", "The integer value of this priority class.", "integer"),
            Column("Global-Default", "Whether it is the priority of pods without a class.", "boolean"),
            AGE,
            Column("PreemptionPolicy", "Whether pods of this class preempt lower ones."),
        ),
        _row,
    ),
)
