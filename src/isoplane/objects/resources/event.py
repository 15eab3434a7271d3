"""Event: something that happened to an object. It goes by age."""

from __future__ import annotations

from typing import Any

from isoplane.objects import metadata
from isoplane.objects.columns.printer import Cell, Column, Printer, since
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules, Selectable
from isoplane.objects.rules.report import Report


def _check(obj: dict[str, Any], report: Report) -> None:
    involved = (obj.get("involvedObject") or {}).get("namespace") or ""
    own = (obj.get("metadata") or {}).get("namespace") or ""
    if involved and own and involved != own:
        report.invalid("involvedObject.namespace", involved, "does not match event.namespace")
    if not involved and own not in ("", "default"):
        report.invalid("involvedObject.namespace", involved, "does not match event.namespace")


def _row(obj: Object, now: float) -> list[Cell]:
    first = since(obj.get("firstTimestamp") or obj.get("eventTime"), now)
    last = since(obj["lastTimestamp"], now) if obj.get("lastTimestamp") else first
    count = obj.get("count") or 1
    if series := obj.get("series"):
        last, count = since(series.get("lastObservedTime"), now), series.get("count") or 0
    involved = obj.get("involvedObject") or {}
    target = str(involved.get("kind") or "").lower()
    if involved.get("name"):
        target += f"/{involved['name']}"
    source = obj.get("source") or {}
    origin = source.get("component") or obj.get("reportingComponent") or ""
    place = source.get("host") or obj.get("reportingInstance") or ""
    return [
        last, obj.get("type") or "", obj.get("reason") or "", target, involved.get("fieldPath") or "",
        f"{origin}, {place}" if place else origin, str(obj.get("message") or "").strip(), first, count, metadata.name(obj),
    ]  # fmt: skip


EVENTS = Resource(
    group="",
    version="v1",
    plural="events",
    kind="Event",
    short_names=("ev",),
    collected=False,
    rules=Rules(_check),
    printer=Printer(
        (
            Column("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
            Column("Type", "Type of this event (Normal, Warning)."),
            Column("Reason", "A short, machine-understandable reason for the event."),
            Column("Object", "The object that this event is about."),
            Column("Subobject", "The part of the object that this event is about.", wide=True),
            Column("Source", "The component reporting this event.", wide=True),
            Column("Message", "A human-readable description of the event."),
            Column("First Seen", "The time at which the event was first recorded.", wide=True),
            Column("Count", "The number of times this event has occurred.", wide=True),
            Column("Name", "Name must be unique within a namespace.", format="name", wide=True),
        ),
        _row,
    ),
    selectable=(
        Selectable("involvedObject.uid", indexed=True),
        Selectable("involvedObject.kind"),
        Selectable("involvedObject.namespace"),
        Selectable("involvedObject.name"),
        Selectable("involvedObject.apiVersion"),
        Selectable("involvedObject.resourceVersion"),
        Selectable("involvedObject.fieldPath"),
        Selectable("reason"),
        Selectable("reportingComponent"),
        Selectable("source", at="source.component"),
        Selectable("type"),
    ),
)
