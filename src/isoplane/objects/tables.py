"""Lists as tables: what ``kubectl get`` asks for (``as=Table;v=v1;g=meta.k8s.io``) and prints without knowing the kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from isoplane.objects.columns.printer import Printer
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource

IncludeObject = Literal["None", "Metadata", "Object"]


def table(
    resource: Resource,
    objects: Iterable[Object],
    *,
    now: float,
    resource_version: str = "",
    include_object: IncludeObject = "Metadata",
    continue_token: str = "",
    remaining: int | None = None,
    headers: bool = True,
    api_version: str = "meta.k8s.io/v1",
) -> dict[str, Any]:
    """A metav1.Table with one row an object, in their order.

    ``now`` is POSIX seconds, for ages.  ``headers=False`` leaves the column definitions out: in a watch only the first
    event has them.  ``include_object`` says what of the object each row carries.
    """
    printer = resource.printer
    meta: dict[str, Any] = {"resourceVersion": resource_version} if resource_version else {}
    if continue_token:
        meta["continue"] = continue_token
    if remaining is not None:
        meta["remainingItemCount"] = remaining
    return {
        "kind": "Table",
        "apiVersion": api_version,
        "metadata": meta,
        "columnDefinitions": [column.to_dict() for column in printer.columns] if headers else [],
        "rows": [_row(printer, obj, now, include_object, api_version) for obj in objects],
    }


def partial_metadata(obj: Object, api_version: str = "meta.k8s.io/v1") -> dict[str, Any]:
    """The object's metadata alone, as ``as=PartialObjectMetadata`` asks for it."""
    return {"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": obj.get("metadata") or {}}


def _row(printer: Printer, obj: Object, now: float, include: IncludeObject, api_version: str) -> dict[str, Any]:
    row: dict[str, Any] = {"cells": printer.row(obj, now)}
    if printer.conditions is not None and (conditions := printer.conditions(obj)):
        row["conditions"] = conditions
    if include == "Metadata":
        row["object"] = partial_metadata(obj, api_version)
    elif include == "Object":
        row["object"] = obj
    return row
