"""QuotaPolicy: how a namespace's quota behaves beyond its amounts."""

from __future__ import annotations

from typing import Any

from isoplane.objects import metadata, names, quantity
from isoplane.objects.accounting import GUEST_PLUS_OVERHEAD, KUBEVIRT_VERSIONS, MODES, NEWEST_KUBEVIRT
from isoplane.objects.columns.printer import AGE, NAME, NONE, Cell, Column, Printer, age, amounts_text
from isoplane.objects.defaulting.shape import mapping
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules, Strategy
from isoplane.objects.rules.quota import check_amounts
from isoplane.objects.rules.report import Report


def _default(obj: dict[str, Any]) -> None:
    spec = mapping(obj, "spec")
    if spec is not None:
        spec.setdefault("vmAccounting", GUEST_PLUS_OVERHEAD)
        spec.setdefault("kubevirtVersion", NEWEST_KUBEVIRT)


def _check(obj: dict[str, Any], report: Report) -> None:
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


def _row(obj: Object, now: float) -> list[Cell]:
    spec = obj.get("spec") or {}
    threshold = spec.get("evictionThreshold")
    return [
        metadata.name(obj), NONE if threshold is None else str(threshold), amounts_text(spec.get("guaranteed")) or NONE,
        spec.get("cohort") or NONE, age(obj, now), spec.get("vmAccounting") or "",
        amounts_text(spec.get("borrowingLimit")) or NONE, amounts_text(spec.get("lendingLimit")) or NONE,
    ]  # fmt: skip


QUOTAPOLICIES = Resource(
    group="isoplane.io",
    version="v1alpha1",
    plural="quotapolicies",
    kind="QuotaPolicy",
    short_names=("qp",),
    custom=True,
    default=_default,
    rules=Rules(_check),
    strategy=Strategy(generation=True),
    printer=Printer(
        (
            NAME,
            Column(
                "Threshold",
                "Only workloads with a priority above it may have others evicted.",
                path=".spec.evictionThreshold",
            ),
            Column("Guaranteed", "What no other tenant can take.", path=".spec.guaranteed"),
            Column("Cohort", "Whose unused quota may be borrowed.", path=".spec.cohort"),
            AGE,
            Column("Accounting", "What a virtual machine is charged.", wide=True, path=".spec.vmAccounting"),
            Column("Borrowing", "The most that may be borrowed.", wide=True, path=".spec.borrowingLimit"),
            Column("Lending", "The most that may be lent.", wide=True, path=".spec.lendingLimit"),
        ),
        _row,
    ),
)
