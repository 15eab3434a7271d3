"""ResourceQuota: how much a namespace may have."""

from __future__ import annotations

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, Cell, Column, Printer, age
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules, Strategy, status_of
from isoplane.objects.rules import quota


def quota_row(obj: Object, now: float) -> list[Cell]:
    status = obj.get("status") or {}
    used = status.get("used") or {}
    requests: list[str] = []
    limits: list[str] = []
    for name, hard in sorted((status.get("hard") or {}).items()):
        (limits if name.startswith("limits.") else requests).append(f"{name}: {used.get(name, '0')}/{hard}")
    return [metadata.name(obj), ", ".join(requests), ", ".join(limits), age(obj, now)]


RESOURCEQUOTAS = Resource(
    group="",
    version="v1",
    plural="resourcequotas",
    kind="ResourceQuota",
    short_names=("quota",),
    subresources=status_of("ResourceQuota"),
    counted_as="resourcequotas",
    rules=Rules(quota.check_resourcequota, quota.check_resourcequota_update, of=("spec",)),
    strategy=Strategy(initial_status={}),
    printer=Printer(
        (
            NAME,
            Column("Request", "What is used of the requests and counts, and their ceilings."),
            Column("Limit", "What is used of the limits, and their ceilings."),
            AGE,
        ),
        quota_row,
    ),
)
