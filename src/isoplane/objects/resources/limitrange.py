"""LimitRange: what one container or Pod of a namespace may ask for, and what it gets when it does not ask."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from isoplane.objects import metadata, quantity
from isoplane.objects.columns.printer import NAME, UNKNOWN, Cell, Column, Printer
from isoplane.objects.defaulting.shape import mapping, mappings
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules
from isoplane.objects.rules.report import Report


def _default(obj: dict[str, Any]) -> None:
    for limit in mappings(mapping(obj, "spec"), "limits"):
        if limit.get("type") != "Container":
            continue
        default = {**(mapping(limit, "max") or {}), **(mapping(limit, "default") or {})}
        request = {**(mapping(limit, "min") or {}), **default, **(mapping(limit, "defaultRequest") or {})}
        if default and isinstance(limit.get("default", {}), dict):
            limit["default"] = default
        if request and isinstance(limit.get("defaultRequest", {}), dict):
            limit["defaultRequest"] = request


def _check(obj: dict[str, Any], report: Report) -> None:
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


def _row(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), (obj.get("metadata") or {}).get("creationTimestamp") or UNKNOWN]


LIMITRANGES = Resource(
    group="",
    version="v1",
    plural="limitranges",
    kind="LimitRange",
    short_names=("limits",),
    default=_default,
    rules=Rules(_check),
    printer=Printer((NAME, Column("Created At", "When the object was created.")), _row),
)
