"""ConfigMap: configuration data."""

from __future__ import annotations

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, Cell, Column, Printer, age
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules
from isoplane.objects.rules import data


def _row(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age(obj, now)]


CONFIGMAPS = Resource(
    group="",
    version="v1",
    plural="configmaps",
    kind="ConfigMap",
    short_names=("cm",),
    counted_as="configmaps",
    rules=Rules(data.check_configmap, data.check_configmap_update, of=("data", "binaryData")),
    printer=Printer((NAME, Column("Data", "The number of entries.", "integer"), AGE), _row),
)
