"""Namespace: the home of everything else. Its own finalizer stays until the namespace controller has emptied it."""

from __future__ import annotations

from typing import Any

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, Cell, Column, Printer, age
from isoplane.objects.defaulting.shape import mapping
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Selectable, Strategy, Subresource, status_of

FINALIZER = "kubernetes"


def _default(obj: dict[str, Any]) -> None:
    meta = mapping(obj, "metadata")
    if meta is None or not isinstance(name := meta.get("name"), str) or not name:
        return
    labels = meta.setdefault("labels", {})
    if isinstance(labels, dict):
        labels["kubernetes.io/metadata.name"] = name


def _prepare(obj: Object) -> None:
    spec = obj.get("spec")
    finalizers = spec.get("finalizers") if isinstance(spec, dict) else None
    obj["spec"] = {**(spec if isinstance(spec, dict) else {}), "finalizers": finalizers or [FINALIZER]}
    meta = obj["metadata"]
    if isinstance(meta.get("labels") or {}, dict):
        meta["labels"] = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta["name"]}


def _keep(old: Object, new: Object) -> None:
    """A namespace's own finalizers change through /finalize only; it has no other spec."""
    if "spec" in old:
        new["spec"] = old["spec"]
    else:
        new.pop("spec", None)


def _marked(obj: Object) -> None:
    obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}


def _row(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), (obj.get("status") or {}).get("phase") or "", age(obj, now)]


NAMESPACES = Resource(
    group="",
    version="v1",
    plural="namespaces",
    kind="Namespace",
    namespaced=False,
    short_names=("ns",),
    subresources={**status_of("Namespace"), "finalize": Subresource("Namespace")},
    default=_default,
    strategy=Strategy(
        initial_status={"phase": "Active"},
        returns_deleted=True,
        # What else runs relies on them.
        undeletable=frozenset(("default", "kube-system", "kube-public")),
        prepare=_prepare,
        keep=_keep,
        marked=_marked,
        own_finalizers=("spec", "finalizers"),
    ),
    printer=Printer((NAME, Column("Status", "The status of the namespace"), AGE), _row),
    selectable=(Selectable("status.phase"),),
)
