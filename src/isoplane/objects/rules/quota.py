"""What a quota may limit, and by which scopes: the rules of ResourceQuota, and of amounts wherever they are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isoplane.objects import names
from isoplane.objects.rules.report import Report

_COUNTED = (
    "pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims",
    "services.nodeports", "services.loadbalancers",
)  # fmt: skip
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_POD_COMPUTE = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
_STANDARD = frozenset(
    (*_COUNTED, *_COMPUTE, *_POD_COMPUTE, "requests.storage", "requests.ephemeral-storage", "limits.ephemeral-storage")
)
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_EXISTS_ONLY = ("Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "CrossNamespacePodAffinity")
_PREFIXES = ("requests.", "limits.", "count/", "hugepages-")
_SCOPES = (
    "Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
)  # fmt: skip

MOST_AMOUNTS = 1000
"""Every write in the namespace looks at every limit."""


def is_amount_of_workloads(name: str) -> bool:
    """Whether a quota's resource is what workloads request or are limited to, or their number: no other objects, no storage."""
    resource = name.removeprefix("requests.").removeprefix("limits.")
    if name == "pods" or resource in _COMPUTE or resource.startswith("hugepages-"):
        return True
    return name.startswith("requests.") and "/" in resource and ".storageclass.storage.k8s.io/" not in resource


def check_resourcequota(obj: dict[str, Any], report: Report) -> None:
    spec = obj.get("spec") or {}
    check_amounts("spec.hard", spec.get("hard"), report)
    for index, scope in enumerate(spec.get("scopes") or ()):
        if scope not in _SCOPES:
            report.unsupported(f"spec.scopes[{index}]", scope, _SCOPES)
    _check_scopes("spec.scopes", spec.get("scopes") or (), spec, report)
    expressions = (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    _check_scopes("spec.scopeSelector.matchExpressions", [e.get("scopeName") for e in expressions], spec, report)
    for index, expression in enumerate(expressions):
        path = f"spec.scopeSelector.matchExpressions[{index}]"
        if expression.get("scopeName") not in _SCOPES:
            report.unsupported(f"{path}.scopeName", expression.get("scopeName"), _SCOPES)
        if expression.get("scopeName") in _EXISTS_ONLY and expression.get("operator") not in ("Exists", None):
            scopes = ", ".join(f"ResourceQuotaScope{scope}" for scope in _EXISTS_ONLY)
            report.invalid(
                f"{path}.operator", expression.get("operator"), f"must be 'Exist' when scope is any of {scopes}"
            )
        operator, values = expression.get("operator"), expression.get("values")
        if operator not in _OPERATORS:
            report.unsupported(f"{path}.operator", operator, _OPERATORS)
        if operator in ("In", "NotIn") and not values:
            report.required(f"{path}.values", "must be at least one value when `operator` is 'In' or 'NotIn'")
        if operator in ("Exists", "DoesNotExist") and values:
            report.invalid(f"{path}.values", values, "must be no value when `operator` is 'Exists' or 'DoesNotExist'")


def _check_scopes(path: str, scopes: Sequence[str], spec: dict[str, Any], report: Report) -> None:
    """Scopes that exclude each other, and limits that a scope cannot count: it counts Pods and what they compute with."""
    for pair in (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")):
        if set(pair) <= set(scopes):
            report.invalid(path, scopes, "conflicting scopes")
    standard = {name for name in spec.get("hard") or {} if name in _STANDARD}
    for scope in scopes:
        allowed = {"BestEffort": {"pods"}, "VolumeAttributesClass": {"persistentvolumeclaims", "requests.storage"}}
        if standard - allowed.get(scope, {"pods", *_POD_COMPUTE}):
            report.invalid(path, scopes, "unsupported scope applied to resource")


def check_resourcequota_update(obj: dict[str, Any], old: dict[str, Any], report: Report) -> None:
    new_spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
    for field in ("scopes", "scopeSelector"):
        if (new_spec.get(field) or None) != (old_spec.get(field) or None):
            report.invalid(f"spec.{field}", new_spec.get(field), "field is immutable")


def check_amounts(path: str, amounts: dict[str, Any] | None, report: Report) -> None:
    """Amounts by quota resource name."""
    if amounts and len(amounts) > MOST_AMOUNTS:
        report.too_many(path, len(amounts), MOST_AMOUNTS)
        return
    for name, value in (amounts or {}).items():
        where = f"{path}[{name}]"
        if "/" in name:
            base = name.removeprefix("requests.").removeprefix("limits.")
            report.text(where, name, names.qualified(base))
        elif name not in _COUNTED and name not in _COMPUTE and not name.startswith(_PREFIXES):
            report.invalid(where, name, "must be a standard resource for quota")
        counted = name in _COUNTED or "/" in name
        report.quantity(where, name, 0 if value is None else value, whole=counted)
