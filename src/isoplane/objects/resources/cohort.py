"""Cohort: namespaces that lend and borrow what they do not use."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, NONE, Cell, Column, Printer, age, amounts_text
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules, Strategy
from isoplane.objects.rules.report import Report

_DECIMAL = re.compile(r"[0-9]*[.]?[0-9]*")


def _check(obj: dict[str, Any], report: Report) -> None:
    spec = obj.get("spec") or {}
    if spec.get("capacity") is not None and spec.get("nodeSelector"):
        report.invalid("spec.nodeSelector", spec["nodeSelector"], "what capacity states comes from no node")
    for name, ratio in (spec.get("overcommit") or {}).items():
        path = f"spec.overcommit[{name}]"
        try:
            if isinstance(ratio, str) and not _DECIMAL.fullmatch(ratio):
                raise ValueError("other forms of a fraction")
            exact = Fraction(str(ratio))
        except (ValueError, ZeroDivisionError):
            report.invalid(path, ratio, 'must be a decimal number, such as 1.5 or "1.5"')
            continue
        if not 0 < exact <= 1000:
            report.invalid(path, ratio, "must be greater than 0 and at most 1000")


def _row(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), amounts_text((obj.get("spec") or {}).get("overcommit")) or NONE, age(obj, now)]


COHORTS = Resource(
    group="isoplane.io",
    version="v1alpha1",
    plural="cohorts",
    kind="Cohort",
    namespaced=False,
    custom=True,
    rules=Rules(_check),
    strategy=Strategy(generation=True),
    printer=Printer((NAME, Column("Overcommit", "Promised over allocatable.", path=".spec.overcommit"), AGE), _row),
)
