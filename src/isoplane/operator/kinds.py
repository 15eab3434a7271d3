"""The kinds that the operator keeps or writes in a cluster, beside those that the embedded plane serves as well."""

from __future__ import annotations

from typing import Any

from isoplane.objects.columns.printer import AGE, NAME, Cell, Column, Printer, age
from isoplane.objects.metadata import Object, name
from isoplane.objects.resource import Resource
from isoplane.objects.schema.sources import REF, Definition

_LEDGER = "io.isoplane.v1alpha1.QuotaLedger"
_TEXT: Definition = {"type": "string"}
_NUMBER: Definition = {"type": "integer", "format": "int64"}
_TIME: Definition = {"type": "string", "format": "date-time"}
_AMOUNTS: Definition = {"type": "object", "additionalProperties": _NUMBER}


def _object(description: str, **properties: Definition) -> Definition:
    return {"type": "object", "description": description, "properties": properties}


def _list(description: str, **properties: Definition) -> Definition:
    return {"type": "array", "description": description, "items": _object("One entry.", **properties)}


_ADMISSIONS = _list(
    "Admissions that are written and whose gates may be on their way off.",
    uid=_TEXT, namespace=_TEXT, name=_TEXT, version=_NUMBER, amounts=_AMOUNTS,
)  # fmt: skip
_RESERVATIONS = _list(
    "Room that is kept for waiting workloads while their victims leave.",
    uid=_TEXT, namespace=_TEXT, name=_TEXT, since=_TIME, expires=_TIME, plans=_NUMBER,
    victims=_list("Who leaves, at which version.", uid=_TEXT, id=_TEXT, version=_NUMBER),
)  # fmt: skip
_SPEC = _object(
    "What one leader has decided and may still happen. Written by the operator alone.",
    epoch={**_NUMBER, "description": "The term of the leader."},
    leader={**_TEXT, "description": "Who decides."},
    podsRevision={**_NUMBER, "description": "Nobody decides before its cache of Pods has reached this revision."},
    namespaces=_list("The namespaces that are decided here.", name=_TEXT, generation=_NUMBER),
    limits=_list(
        "The hard limits in force, of which generation of which TenantQuota.",
        namespace=_TEXT, quota=_TEXT, generation=_NUMBER, hard=_AMOUNTS,
    ),
    admissions=_ADMISSIONS,
    reservations=_RESERVATIONS,
    moves=_list(
        "Namespaces on their way to another domain.",
        namespace=_TEXT, to=_TEXT, generation=_NUMBER, podsRevision=_NUMBER, admissions=_ADMISSIONS,
        reservations=_RESERVATIONS,
    ),
)  # fmt: skip


def _row(obj: Object, now: float) -> list[Cell]:
    spec: dict[str, Any] = obj.get("spec") or {}
    return [name(obj), spec.get("leader") or "", spec.get("epoch") or 0, age(obj, now)]


QUOTALEDGERS = Resource(
    group="isoplane.io",
    version="v1alpha1",
    plural="quotaledgers",
    kind="QuotaLedger",
    namespaced=False,
    custom=True,
    printer=Printer(
        (
            NAME,
            Column("Leader", "Who decides.", path=".spec.leader"),
            Column("Epoch", "The term of the leader.", "integer", path=".spec.epoch"),
            AGE,
        ),
        _row,
    ),
    definitions={
        _LEDGER: {
            "type": "object",
            "description": "QuotaLedger is what the operator has decided in one capacity domain and may still happen.",
            "required": ["spec"],
            "x-kubernetes-group-version-kind": [{"group": "isoplane.io", "version": "v1alpha1", "kind": "QuotaLedger"}],
            "properties": {
                "apiVersion": _TEXT, "kind": _TEXT,
                "metadata": {"$ref": REF + "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
                "spec": _SPEC,
            },
        }
    },
)  # fmt: skip
