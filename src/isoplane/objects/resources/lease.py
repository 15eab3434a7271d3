"""Lease: who leads, or is alive."""

from __future__ import annotations

from typing import Any

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, Cell, Column, Printer, age
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules
from isoplane.objects.rules.report import Report


def _check(obj: dict[str, Any], report: Report) -> None:
    spec = obj.get("spec") or {}
    report.positive("spec.leaseDurationSeconds", spec.get("leaseDurationSeconds"))
    report.not_negative("spec.leaseTransitions", spec.get("leaseTransitions"))
    if spec.get("holderIdentity") == "":
        report.invalid("spec.holderIdentity", "", "must not be empty")


def _row(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), (obj.get("spec") or {}).get("holderIdentity") or "", age(obj, now)]


LEASES = Resource(
    group="coordination.k8s.io",
    version="v1",
    plural="leases",
    kind="Lease",
    rules=Rules(_check),
    printer=Printer((NAME, Column("Holder", "The holder's identity."), AGE), _row),
)
