"""What every object's metadata must satisfy, at creation and on update. Source: apimachinery pkg/api/validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isoplane.objects import names, selectors
from isoplane.objects.resource import Resource
from isoplane.objects.rules.report import Report

ANNOTATIONS_LIMIT = 256 * 1024
"""Bytes that all annotations of an object may have together, keys included."""
_LABEL_NAMED = {"Namespace"}
"""Kinds whose names are DNS labels; all others are subdomains."""
_STANDARD_FINALIZERS = ("orphan", "foregroundDeletion", "kubernetes")


def check(resource: Resource, meta: dict[str, Any], report: Report) -> None:
    """``metadata`` of a new or changed object."""
    name, prefix = meta.get("name") or "", meta.get("generateName") or ""
    syntax = name_syntax(resource)
    if name:
        report.text("metadata.name", name, syntax(name))
    elif not prefix:
        report.required("metadata.name", "name or generateName is required")
    if prefix and (problem := syntax(prefix.rstrip("-.") or "-")):
        report.invalid("metadata.generateName", prefix, problem)
    namespace = meta.get("namespace")
    if namespace:
        if not resource.namespaced:
            report.forbidden("metadata.namespace", "not allowed on this type")
        else:
            report.text("metadata.namespace", namespace, names.dns_label(namespace))
    if labels := meta.get("labels"):
        check_labels("metadata.labels", labels, report)
    if annotations := meta.get("annotations"):
        _annotations(annotations, report)
    if owners := meta.get("ownerReferences"):
        _owners(owners, report)
    for index, finalizer in enumerate(meta.get("finalizers") or ()):
        path = f"metadata.finalizers[{index}]"
        report.text(path, finalizer, names.qualified(finalizer))
        if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            report.invalid(path, finalizer, "name is neither a standard finalizer name nor is it fully qualified")


def check_update(meta: dict[str, Any], old: dict[str, Any], report: Report) -> None:
    """What an update may not change in ``metadata``. Absent fields are left to the server, which carries them over."""
    for field in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if meta.get(field) not in (None, "") and meta[field] != old.get(field):
            report.immutable(f"metadata.{field}", meta[field], old.get(field))
    if old.get("deletionTimestamp"):
        added = set(meta.get("finalizers") or ()) - set(old.get("finalizers") or ())
        if added:
            text = (
                f"no new finalizers can be added if the object is being deleted, found new finalizers {sorted(added)}"
            )
            report.forbidden("metadata.finalizers", text)


def name_syntax(resource: Resource) -> Callable[[str], str | None]:
    """The check of names of this kind."""
    return names.dns_label if resource.kind in _LABEL_NAMED else names.dns_subdomain


def check_labels(path: str, labels: dict[str, Any], report: Report) -> None:
    """Keys and values of a label map."""
    for key, value in labels.items():
        if (problem := names.qualified(key)) is not None:
            report.invalid(path, key, problem)
        if (problem := names.label_value(value or "")) is not None:
            report.invalid(path, value, problem)


def check_selector(path: str, selector: dict[str, Any] | None, report: Report) -> None:
    """A LabelSelector: keys, values and operators."""
    if not selector:
        return
    check_labels(f"{path}.matchLabels", selector.get("matchLabels") or {}, report)
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        where = f"{path}.matchExpressions[{index}]"
        report.text(f"{where}.key", expression.get("key"), names.qualified(expression.get("key") or ""))
        for at, value in enumerate(expression.get("values") or ()):
            report.text(f"{where}.values[{at}]", value, names.label_value(value))
    try:
        selectors.from_object(selector)
    except ValueError as error:
        report.invalid(path, selector, str(error))


def _annotations(annotations: dict[str, Any], report: Report) -> None:
    size = 0
    for key, value in annotations.items():
        if (problem := names.qualified(key.lower())) is not None:
            report.invalid("metadata.annotations", key, problem)
        size += len(key.encode()) + len((value or "").encode())
    if size > ANNOTATIONS_LIMIT:
        report.too_long("metadata.annotations", ANNOTATIONS_LIMIT)


def _owners(owners: list[dict[str, Any]], report: Report) -> None:
    controllers = []
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                report.invalid(f"{path}.{field}", owner.get(field) or "", f"{field} must not be empty")
        if owner.get("controller"):
            controllers.append(f"{owner.get('kind')}/{owner.get('name')}")
    if len(controllers) > 1:
        text = f"Only one reference can have Controller set to true. Found {', '.join(controllers)}"
        report.invalid("metadata.ownerReferences", [o.get("name") for o in owners], text)
