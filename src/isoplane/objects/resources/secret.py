"""Secret: data that is sealed where it is stored."""

from __future__ import annotations

import base64
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, Cell, Column, Printer, age
from isoplane.objects.defaulting.shape import mapping
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules, Selectable
from isoplane.objects.rules import data


def _default(obj: dict[str, Any]) -> None:
    """The type, and ``stringData`` folded into ``data``: it is a way to write, never read back."""
    obj.setdefault("type", "Opaque")
    plain = mapping(obj, "stringData")
    if plain is None or not all(isinstance(value, str) for value in plain.values()):
        return
    data = obj.setdefault("data", {})
    if isinstance(data, dict):
        for key, value in plain.items():
            data[key] = base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()
        del obj["stringData"]


def _row(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), obj.get("type") or "", len(obj.get("data") or ()), age(obj, now)]


SECRETS = Resource(
    group="",
    version="v1",
    plural="secrets",
    kind="Secret",
    counted_as="secrets",
    default=_default,
    rules=Rules(data.check_secret, data.check_secret_update),
    printer=Printer(
        (
            NAME,
            Column("Type", "The type of the secret's data."),
            Column("Data", "The number of entries.", "integer"),
            AGE,
        ),
        _row,
    ),
    selectable=(Selectable("type"),),
)
