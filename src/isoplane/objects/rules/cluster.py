"""Nodes, events, disruption budgets and leases: the small kinds."""

from __future__ import annotations

import re
from typing import Any

from isoplane.objects import names
from isoplane.objects.rules.meta import check_selector
from isoplane.objects.rules.report import Report

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_PERCENT = re.compile(r"[0-9]+%")


def check_node(obj: dict[str, Any], report: Report) -> None:
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


def check_event(obj: dict[str, Any], report: Report) -> None:
    involved = (obj.get("involvedObject") or {}).get("namespace") or ""
    own = (obj.get("metadata") or {}).get("namespace") or ""
    if involved and own and involved != own:
        report.invalid("involvedObject.namespace", involved, "does not match event.namespace")
    if not involved and own not in ("", "default"):
        report.invalid("involvedObject.namespace", involved, "does not match event.namespace")


def check_budget(obj: dict[str, Any], report: Report) -> None:
    spec = obj.get("spec") or {}
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        report.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set")
    for field in ("minAvailable", "maxUnavailable"):
        value = spec.get(field)
        if isinstance(value, str):
            if not _PERCENT.fullmatch(value):
                text = (
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%')"
                )
                report.invalid(f"spec.{field}", value, text)
            elif len(value) > 4 or int(value[:-1]) > 100:
                report.invalid(f"spec.{field}", value, "must not be greater than 100%")
        else:
            report.not_negative(f"spec.{field}", value)
    options = ("IfHealthyBudget", "AlwaysAllow")
    report.one_of("spec.unhealthyPodEvictionPolicy", spec.get("unhealthyPodEvictionPolicy"), options)
    check_selector("spec.selector", spec.get("selector"), report)


def check_lease(obj: dict[str, Any], report: Report) -> None:
    spec = obj.get("spec") or {}
    report.positive("spec.leaseDurationSeconds", spec.get("leaseDurationSeconds"))
    report.not_negative("spec.leaseTransitions", spec.get("leaseTransitions"))
    if spec.get("holderIdentity") == "":
        report.invalid("spec.holderIdentity", "", "must not be empty")
