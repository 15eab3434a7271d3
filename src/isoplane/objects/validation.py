"""Is this object well-formed, and may it become that one? The one entrance to schemas and rules.

Order in a write: decode, ``apply_defaults``, ``validate`` (and ``validate_update``), then admission.  Types come first;
the rules run only on objects whose types are right, so they need not ask.  Messages are Kubernetes' own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from isoplane.objects.errors import ApiError, BadRequest, Cause, Invalid
from isoplane.objects.kinds import Resource
from isoplane.objects.rules import for_kind, meta
from isoplane.objects.rules.report import Report
from isoplane.objects.schema.structure import Node, structure
from isoplane.objects.schema.validator import is_plain, type_causes

_MAX_UNKNOWN = 100


def validate(resource: Resource, obj: dict[str, Any]) -> list[Cause]:
    """Everything that is wrong with the object; empty when it may be stored."""
    if causes := type_causes(resource, obj):
        return causes
    report = Report()
    meta.check(resource, obj.get("metadata") or {}, report)
    for_kind(resource).check(obj, report)
    return report.causes


def validate_update(resource: Resource, new: dict[str, Any], old: dict[str, Any]) -> list[Cause]:
    """What the change from ``old`` to ``new`` may not do; call it after ``validate(resource, new)`` found nothing."""
    report = Report()
    meta.check_update(new.get("metadata") or {}, old.get("metadata") or {}, report)
    for_kind(resource).check_update(new, old, report)
    return report.causes


def unknown_fields(resource: Resource, obj: Any) -> list[str]:
    """One text such as ``unknown field "spec.foo"`` for each field that the kind does not have."""
    if is_plain(resource, obj):
        return []
    found: list[str] = []
    _unknown(obj, structure(resource), "", found)
    return found


def _unknown(value: Any, node: Node, path: str, found: list[str]) -> None:
    if isinstance(value, dict):
        if node.form == "any" or len(found) >= _MAX_UNKNOWN:
            return
        for name, child_value in value.items():
            child = node.child(name)
            if child is None:
                if node.form == "object":
                    found.append(f'unknown field "{path}.{name}"' if path else f'unknown field "{name}"')
            elif isinstance(child_value, (dict, list)):
                _unknown(child_value, child, f"{path}.{name}" if path else name, found)
    elif isinstance(value, list) and (element := node.element) is not None and element.form != "scalar":
        for index, item in enumerate(value):
            if isinstance(item, (dict, list)):
                _unknown(item, element, f"{path}[{index}]", found)


def invalid(resource: Resource, name: str, causes: Iterable[Cause]) -> ApiError:
    """The error to raise for causes: 400 for wrong types of a built-in kind (it cannot be read), else 422."""
    causes = tuple(causes)
    texts = [f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in causes]
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details = {"name": name, "group": resource.group, "kind": resource.kind}
    if not resource.custom and any(cause.reason == "FieldValueTypeInvalid" for cause in causes):
        what = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {joined}'
        return BadRequest(what, causes=causes)
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return Invalid(f'{kind} "{name}" is invalid: {joined}', causes=causes, details=details)
