"""Is this object well-formed, and may it become that one? The one entrance to schemas and rules.

Order in a write: decode, ``apply_defaults``, ``validate`` (and ``validate_update``), then admission.  Types come first;
the rules run only on objects whose types are right, so they need not ask.  Messages are Kubernetes' own.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import orjson

from isoplane.objects.errors import ApiError, BadRequest, Cause, Invalid
from isoplane.objects.remembered import Remembered
from isoplane.objects.resource import Resource
from isoplane.objects.rules import meta
from isoplane.objects.rules.report import Report
from isoplane.objects.schema.structure import Node
from isoplane.objects.schema.validator import is_plain, type_causes

_MAX_UNKNOWN = 100
_NUL = b"\\u0000"
"""How JSON writes it; where the bytes are absent no string has to be looked at."""
_SOUND: Remembered[bool] = Remembered()
"""What decides the rules of a kind, where they had nothing against it."""


def validate(resource: Resource, obj: dict[str, Any]) -> list[Cause]:
    """Everything that is wrong with the object; empty when it may be stored."""
    if causes := type_causes(resource, obj):
        return causes
    report = Report()
    meta.check(resource, obj.get("metadata") or {}, report)
    return [*report.causes, *_rules_causes(resource, obj)]


def validate_ahead(resource: Resource, obj: dict[str, Any]) -> None:
    """Find out beside the event loop what the rules say of a large object; ``validate`` need not ask them again."""
    part = _decisive(resource, obj)
    if not _found_by_rules(resource, part):
        _SOUND.ahead(Remembered.key(resource.rules.check, part), True)


def _rules_causes(resource: Resource, obj: dict[str, Any]) -> list[Cause]:
    """What the kind's rules have against the object; what is known already is not found out again."""
    if not resource.rules.of:
        return _found_by_rules(resource, obj)
    part = _decisive(resource, obj)
    key = Remembered.key(resource.rules.check, part)
    if _SOUND.get(key):
        return []
    causes = _found_by_rules(resource, part)
    if not causes:
        _SOUND.put(key, True)
    return causes


def _decisive(resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
    return {name: obj[name] for name in resource.rules.of if name in obj}


def _found_by_rules(resource: Resource, obj: dict[str, Any]) -> list[Cause]:
    report = Report()
    resource.rules.check(obj, report)
    if resource.carried_out and _NUL in orjson.dumps(obj.get("spec")):
        _without_nul(obj.get("spec"), "spec", report)
    return report.causes


def _without_nul(value: Any, path: str, report: Report) -> None:
    """No command line, file name or environment of the host can hold a NUL, and any string may end in one."""
    if isinstance(value, str):
        if "\0" in value:
            report.invalid(path, value, "must not contain the character NUL")
    elif isinstance(value, dict):
        for key, one in value.items():
            _without_nul(key, path, report)
            _without_nul(one, f"{path}.{key}", report)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            _without_nul(one, f"{path}[{index}]", report)


def validate_update(resource: Resource, new: dict[str, Any], old: dict[str, Any]) -> list[Cause]:
    """What the change from ``old`` to ``new`` may not do; call it after ``validate(resource, new)`` found nothing."""
    report = Report()
    meta.check_update(new.get("metadata") or {}, old.get("metadata") or {}, report)
    resource.rules.check_update(new, old, report)
    return report.causes


def unknown_fields(resource: Resource, obj: Any) -> list[str]:
    """One text such as ``unknown field "spec.foo"`` for each field that the kind does not have, up to a hundred."""
    return without_unknown(resource, obj)[1]


def without_unknown(resource: Resource, obj: Any) -> tuple[Any, list[str]]:
    """The object without the fields that its kind does not have, and a text for each of the first hundred of them.

    ``obj`` stays as it is: what has to lose a field is made anew, the rest is shared.  The same object comes back when
    nothing is unknown.
    """
    if is_plain(resource, obj):
        return obj, []
    found: list[str] = []
    return _known(obj, resource.schema.root, "", found), found


def _known(value: Any, node: Node, path: str, found: list[str]) -> Any:
    if isinstance(value, dict):
        return value if node.form == "any" else _known_fields(value, node, path, found)
    element = node.element if isinstance(value, list) else None
    if element is None or element.form == "scalar":
        return value
    items = [
        _known(item, element, f"{path}[{index}]", found) if isinstance(item, (dict, list)) else item
        for index, item in enumerate(value)
    ]
    return value if all(map(operator.is_, items, value)) else items


def _known_fields(value: dict[str, Any], node: Node, path: str, found: list[str]) -> dict[str, Any]:
    result: dict[str, Any] | None = None
    for name, child_value in value.items():
        child = node.child(name)
        where = f"{path}.{name}" if path else name
        if child is None:
            if node.form == "object" and not node.keeps_unknown:
                if len(found) < _MAX_UNKNOWN:
                    found.append(f'unknown field "{where}"')
                result = dict(value) if result is None else result
                del result[name]
        elif isinstance(child_value, (dict, list)):
            known = _known(child_value, child, where, found)
            if known is not child_value:
                result = dict(value) if result is None else result
                result[name] = known
    return value if result is None else result


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
