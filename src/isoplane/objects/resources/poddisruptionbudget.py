"""PodDisruptionBudget: how many Pods of an application may be away at once by somebody's will."""

from __future__ import annotations

import re
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, Cell, Column, Printer, age
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules, Strategy, status_of
from isoplane.objects.rules.meta import check_selector
from isoplane.objects.rules.report import Report

_PERCENT = re.compile(r"[0-9]+%")


def _check(obj: dict[str, Any], report: Report) -> None:
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


def _row(obj: Object, now: float) -> list[Cell]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    return [
        metadata.name(obj), "N/A" if least is None else str(least), "N/A" if most is None else str(most),
        status.get("disruptionsAllowed") or 0, age(obj, now),
    ]  # fmt: skip


PODDISRUPTIONBUDGETS = Resource(
    group="policy",
    version="v1",
    plural="poddisruptionbudgets",
    kind="PodDisruptionBudget",
    short_names=("pdb",),
    subresources=status_of("PodDisruptionBudget"),
    rules=Rules(_check),
    strategy=Strategy(generation=True, initial_status={}),
    printer=Printer(
        (
            NAME,
            Column("Min Available", "The minimum number of pods that must be available."),
            Column("Max Unavailable", "The maximum number of pods that may be unavailable."),
            Column("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time.", "integer"),
            AGE,
        ),
        _row,
    ),
)
