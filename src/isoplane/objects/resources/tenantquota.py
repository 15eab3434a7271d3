"""TenantQuota: what a ResourceQuota says, for amounts whose workloads may wait and preempt, on any Kubernetes.

Kubernetes' own admission refuses what a ResourceQuota has no room for before anybody could wait; limits that are to gate, admit
and preempt stand here.  Objects and storage are counted by no scheduler: they stay with the ResourceQuota.
"""

from __future__ import annotations

from typing import Any

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, NONE, Cell, Column, Printer, age, amounts_text
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules, Strategy, status_of
from isoplane.objects.rules.quota import check_resourcequota, check_resourcequota_update, is_amount_of_workloads
from isoplane.objects.rules.report import Report


def _check(obj: dict[str, Any], report: Report) -> None:
    others = [name for name in (obj.get("spec") or {}).get("hard") or {} if not is_amount_of_workloads(name)]
    if not others:
        check_resourcequota(obj, report)
    for name in others:
        text = "limits what workloads request; objects and storage are limited by a ResourceQuota"
        report.invalid(f"spec.hard[{name}]", name, text)


def _row(obj: Object, now: float) -> list[Cell]:
    status = obj.get("status") or {}
    hard = status.get("hard") or (obj.get("spec") or {}).get("hard")
    return [metadata.name(obj), amounts_text(hard) or NONE, amounts_text(status.get("used")) or NONE, age(obj, now)]


TENANTQUOTAS = Resource(
    group="isoplane.io",
    version="v1alpha1",
    plural="tenantquotas",
    kind="TenantQuota",
    short_names=("tq",),
    subresources=status_of("TenantQuota"),
    custom=True,
    rules=Rules(_check, check_resourcequota_update),
    strategy=Strategy(generation=True, initial_status={}),
    printer=Printer(
        (
            NAME,
            Column("Hard", "The most that the namespace's workloads may request.", path=".spec.hard"),
            Column("Used", "What they request now.", path=".status.used"),
            AGE,
        ),
        _row,
    ),
)
