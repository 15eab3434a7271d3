"""Type checks: compiled JSON Schema validators, and their errors in Kubernetes' words.

A kind has two: the strict one knows every field and answers the usual case, a good object, in microseconds; only what
it refuses meets the lenient one, which lets unknown fields pass and says what is wrong.

Checked here: types, required fields, enumerations, bounds, lengths, date-times.  What needs to look at several fields
at once is in ``objects/rules``.  A null counts as absent, as Go's decoder has it, except in lists.
"""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from isoplane.objects.copying import check_depth
from isoplane.objects.errors import Cause
from isoplane.objects.paths import field_path, shown
from isoplane.objects.resource import Resource

_MAX_CAUSES = 50
"""A hostile object could have a cause for every value; nobody reads more than these."""


def is_plain(resource: Resource, obj: Any) -> bool:
    """Whether every field is known and of its type: then neither types nor unknown fields need a closer look."""
    return resource.schema.strict.is_valid(obj)


def type_causes(resource: Resource, obj: Any) -> list[Cause]:
    """Everything in ``obj`` that its kind's schema does not allow; empty when it is well-formed.

    Raises BadRequest for what nests too deep.
    """
    return _causes(resource, obj, missing=True)


def misplaced_values(resource: Resource, obj: Any) -> list[Cause]:
    """The type causes of what is there, not of what is missing: defaults and admission may still fill that in.

    Raises BadRequest for what nests too deep.
    """
    return _causes(resource, obj, missing=False)


def _causes(resource: Resource, obj: Any, *, missing: bool) -> list[Cause]:
    """What the schema holds against ``obj``, at most so many; with ``missing``, also what it requires and is not there."""
    if is_plain(resource, obj):
        return []
    check_depth(obj)  # what comes from the plane itself was not decoded, and the validator gives up on deep values
    causes: list[Cause] = []
    for error in resource.schema.lenient.iter_errors(obj):
        if missing or type(error.kind).__name__ != "Required":
            causes.append(_cause(error))
            if len(causes) == _MAX_CAUSES:
                break
    return causes


def _cause(error: jsonschema_rs.ValidationError) -> Cause:
    path = field_path(error.instance_path)
    kind: Any = error.kind  # One class a keyword, each with its own attributes.
    value: Any = error.instance
    match type(kind).__name__:
        case "Required":
            return Cause(field_path([*error.instance_path, kind.property]), "Required value", "FieldValueRequired")
        case "Not":
            return Cause(path, "Required value", "FieldValueRequired")
        case "Type" if value is None:
            return Cause(path, "Required value", "FieldValueRequired")
        case "Type":
            wanted = " or ".join(t for t in _type_names(kind.types) if t != "null")
            text = f"Invalid value: {shown(value)}: must be of type {wanted}"
            return Cause(path, text, "FieldValueTypeInvalid")
        case "Enum":
            options = ", ".join(shown(o) for o in kind.options if o is not None)
            text = f"Unsupported value: {shown(value)}: supported values: {options}"
            return Cause(path, text, "FieldValueNotSupported")
        case "MaxItems":
            return Cause(path, f"Too many: {len(value)}: must have at most {kind.limit} items", "FieldValueTooMany")
        case "MaxLength":
            return Cause(path, f"Too long: may not be more than {kind.limit} characters", "FieldValueTooLong")
        case "Minimum":
            return Cause(path, f"Invalid value: {shown(value)}: must be greater than or equal to {kind.limit}")
        case "Maximum":
            return Cause(path, f"Invalid value: {shown(value)}: must be less than or equal to {kind.limit}")
        case "MinItems" | "MinProperties" if not value:
            return Cause(path, f"Required value: must have at least {kind.limit}", "FieldValueRequired")
        case "MaxProperties":
            return Cause(path, f"Too many: {len(value)}: must have at most {kind.limit}", "FieldValueTooMany")
        case "Pattern":
            return Cause(path, f"Invalid value: {shown(value)}: must match {kind.pattern}")
        case "Format":
            return Cause(path, f"Invalid value: {shown(value)}: must be a date and time as in RFC 3339")
    return Cause(path, f"Invalid value: {shown(value)}: {error.message}")


def _type_names(types: Any) -> list[str]:
    return [types] if isinstance(types, str) else [str(t) for t in types]
