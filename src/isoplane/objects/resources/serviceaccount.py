"""ServiceAccount: who a workload is."""

from __future__ import annotations

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, Cell, Column, Printer, age
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource


def _row(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), len(obj.get("secrets") or ()), age(obj, now)]


SERVICEACCOUNTS = Resource(
    group="",
    version="v1",
    plural="serviceaccounts",
    kind="ServiceAccount",
    short_names=("sa",),
    printer=Printer(
        (NAME, Column("Secrets", "The number of secrets that pods of this account may use.", "integer"), AGE),
        _row,
    ),
)
