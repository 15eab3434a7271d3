"""QuotaDecision: one entry of the audit trail of quota. Computed."""

from __future__ import annotations

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, NONE, Cell, Column, Printer, age
from isoplane.objects.metadata import Object
from isoplane.objects.resource import READ_VERBS, Resource


def _row(obj: Object, now: float) -> list[Cell]:
    status = obj.get("status") or {}
    workload = status.get("workload") or {}
    told = []
    if short := status.get("short"):
        told.append("short of " + ", ".join(f"{s['amount']} {s['resource']} ({s['limit']})" for s in short))
    if victims := status.get("victims"):
        told.append(f"{', '.join(victims)} {'leaves' if len(victims) == 1 else 'leave'}")
    if preemptor := status.get("preemptor"):
        told.append(f"for {preemptor}")
    return [
        metadata.name(obj), age(obj, now), status.get("decision") or "",
        f"{str(workload.get('kind') or '').lower()}/{workload.get('name') or ''}", status.get("priority") or 0,
        status.get("rule") or "", "; ".join(told) or NONE, status.get("reason") or "",
    ]  # fmt: skip


QUOTADECISIONS = Resource(
    group="view.isoplane.io",
    version="v1alpha1",
    plural="quotadecisions",
    kind="QuotaDecision",
    short_names=("qd",),
    verbs=READ_VERBS,
    computed=True,
    custom=True,
    printer=Printer(
        (
            NAME,
            AGE,
            Column("Decision", "What was decided."),
            Column("Workload", "Whom it concerns."),
            Column("Priority", "Its priority.", "integer"),
            Column("Rule", "The rule that decided."),
            Column("Details", "What was missing, who leaves, and for whom."),
            Column("Reason", "The rule in words.", wide=True),
        ),
        _row,
    ),
)
