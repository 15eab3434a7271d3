"""QuotaUsage: a namespace's charges and their totals. Computed."""

from __future__ import annotations

from isoplane.objects import metadata
from isoplane.objects.columns.printer import NAME, NONE, Cell, Column, Printer, amounts_text
from isoplane.objects.metadata import Object
from isoplane.objects.resource import READ_VERBS, Resource


def _row(obj: Object, now: float) -> list[Cell]:
    status = obj.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    # What no quota limits is told only where nothing is limited; there cpu is requests.cpu.
    names = hard or [name for name in used if name.startswith(("requests.", "limits.")) or name == "pods"]
    parts = [f"{name}: {used.get(name, '0')}/{hard.get(name, '-')}" for name in sorted(names)]
    return [
        metadata.name(obj), ", ".join(parts), len(status.get("charges") or ()), len(status.get("holds") or ()),
        amounts_text(status.get("evicting")) or NONE, amounts_text(status.get("held")) or NONE,
    ]  # fmt: skip


QUOTAUSAGES = Resource(
    group="view.isoplane.io",
    version="v1alpha1",
    plural="quotausages",
    kind="QuotaUsage",
    short_names=("qu",),
    verbs=READ_VERBS,
    computed=True,
    custom=True,
    printer=Printer(
        (
            NAME,
            Column("Used", "What is charged, and the ceilings."),
            Column("Charges", "The number of charged objects.", "integer"),
            Column("Holds", "The number of workloads that wait for victims.", "integer"),
            Column("Evicting", "What the victims now stopping give back.", wide=True),
            Column("Held", "What is held for waiting workloads.", wide=True),
        ),
        _row,
    ),
)
