"""ResourceQuota, LimitRange, PriorityClass, and isoplane's QuotaPolicy and Cohort: everything that says who may have how much."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from isoplane.objects import names, quantity
from isoplane.objects.accounting import KUBEVIRT_VERSIONS, MODES
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
HIGHEST_USER_PRIORITY = 1_000_000_000
SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


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
    for name, value in (amounts or {}).items():
        where = f"{path}[{name}]"
        if "/" in name:
            base = name.removeprefix("requests.").removeprefix("limits.")
            report.text(where, name, names.qualified(base))
        elif name not in _COUNTED and name not in _COMPUTE and not name.startswith(_PREFIXES):
            report.invalid(where, name, "must be a standard resource for quota")
        counted = name in _COUNTED or "/" in name
        report.quantity(where, name, 0 if value is None else value, whole=counted)


def check_limitrange(obj: dict[str, Any], report: Report) -> None:
    for index, limit in enumerate((obj.get("spec") or {}).get("limits") or ()):
        path = f"spec.limits[{index}]"
        kind = limit.get("type") or ""
        if not kind:
            report.required(f"{path}.type")
        elif kind not in ("Pod", "Container", "PersistentVolumeClaim") and "/" not in kind:
            report.invalid(f"{path}.type", kind, "must be a standard limit type or fully qualified")
        if kind == "Pod":
            for field in ("default", "defaultRequest"):
                if limit.get(field):
                    report.forbidden(f"{path}.{field}", "may not be specified when `type` is 'Pod'")
        _ordered(path, limit, report)


def _ordered(path: str, limit: dict[str, Any], report: Report) -> None:
    """min ≤ defaultRequest ≤ default ≤ max, where given, by resource."""
    levels = ("min", "defaultRequest", "default", "max")
    amounts: dict[str, dict[str, int]] = {}
    for field in levels:
        for name, value in (limit.get(field) or {}).items():
            amount = report.quantity(f"{path}.{field}[{name}]", name, value)
            if amount is not None:
                amounts.setdefault(name, {})[field] = amount
    for name, found in amounts.items():
        given = [field for field in levels if field in found]
        for at, low in enumerate(given):
            for high in given[at + 1 :]:
                if found[low] > found[high]:
                    text = f"{low} value {limit[low][name]} is greater than {high} value {limit[high][name]}"
                    report.invalid(f"{path}.{low}[{name}]", limit[low][name], text)
    for name, ratio in (limit.get("maxLimitRequestRatio") or {}).items():
        try:
            exact = quantity.parse(ratio)
        except (ValueError, TypeError):
            exact = Fraction(0)
        if exact < 1:
            report.invalid(f"{path}.maxLimitRequestRatio[{name}]", ratio, "ratio is less than 1")


def check_priorityclass(obj: dict[str, Any], report: Report) -> None:
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


def check_priorityclass_update(obj: dict[str, Any], old: dict[str, Any], report: Report) -> None:
    if (obj.get("value") or 0) != (old.get("value") or 0):
        report.forbidden("value", "may not be changed in an update.")
    default = "PreemptLowerPriority"
    report.immutable("preemptionPolicy", obj.get("preemptionPolicy") or default, old.get("preemptionPolicy") or default)


def check_quotapolicy(obj: dict[str, Any], report: Report) -> None:
    spec = obj.get("spec") or {}
    for field in ("guaranteed", "borrowingLimit", "lendingLimit", "migrationReserve"):
        check_amounts(f"spec.{field}", spec.get(field), report)
    report.one_of("spec.vmAccounting", spec.get("vmAccounting"), MODES)
    report.one_of("spec.kubevirtVersion", spec.get("kubevirtVersion"), KUBEVIRT_VERSIONS)
    cohort = spec.get("cohort")
    if cohort:
        report.text("spec.cohort", cohort, names.dns_subdomain(cohort))
    for field in ("borrowingLimit", "lendingLimit"):
        if spec.get(field) and not cohort:
            report.required("spec.cohort", f"{field} says what is shared with a cohort")
    for name, limit in (spec.get("lendingLimit") or {}).items():
        given = (spec.get("guaranteed") or {}).get(name)
        try:
            exceeds = given is not None and quantity.parse(limit) > quantity.parse(given)
        except (ValueError, TypeError):
            continue  # noted above
        if exceeds:
            report.invalid(f"spec.lendingLimit[{name}]", limit, f"must be at most the guaranteed {given}")


def check_cohort(obj: dict[str, Any], report: Report) -> None:
    for name, ratio in ((obj.get("spec") or {}).get("overcommit") or {}).items():
        path = f"spec.overcommit[{name}]"
        try:
            exact = Fraction(str(ratio))
        except (ValueError, ZeroDivisionError):
            report.invalid(path, ratio, 'must be a decimal number, such as 1.5 or "1.5"')
            continue
        if not 0 < exact <= 1000:
            report.invalid(path, ratio, "must be greater than 0 and at most 1000")
