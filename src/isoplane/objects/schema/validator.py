"""Type checks: compiled JSON Schema validators, and their errors in Kubernetes' words.

A kind has two: the strict one knows every field and answers the usual case, a good object, in microseconds; only what
it refuses meets the lenient one, which lets unknown fields pass and says what is wrong.

Checked here: types, required fields, enumerations, bounds, lengths, date-times.  What needs to look at several fields
at once is in ``objects/rules``.  A null counts as absent, as Go's decoder has it, except in lists.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema_rs

from isoplane.objects.copying import check_depth
from isoplane.objects.errors import Cause
from isoplane.objects.kinds import Resource
from isoplane.objects.paths import field_path, shown
from isoplane.objects.schema.bounds import ANY, MOST_ITEMS
from isoplane.objects.schema.sources import REF, Definition, definition_name, definitions

_BOUNDS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_KEPT = ("enum", "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minProperties", "minimum", "pattern")
_MAX_CAUSES = 50
"""A hostile object could have a cause for every value; nobody reads more than these."""


def is_plain(resource: Resource, obj: Any) -> bool:
    """Whether every field is known and of its type: then neither types nor unknown fields need a closer look."""
    return _validator(resource, strict=True).is_valid(obj)


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
    for error in _validator(resource, strict=False).iter_errors(obj):
        if missing or type(error.kind).__name__ != "Required":
            causes.append(_cause(error))
            if len(causes) == _MAX_CAUSES:
                break
    return causes


@cache
def _validator(resource: Resource, *, strict: bool) -> jsonschema_rs.Draft4Validator:
    """Compiling takes some milliseconds, once."""
    root = definition_name(resource.group, resource.version, resource.kind)
    needed: dict[str, Definition] = {}
    pending = [root]
    while pending:
        name = pending.pop()
        if name not in needed:
            needed[name] = _convert(definitions()[name], pending, strict, nullable=True)
            for field, most in MOST_ITEMS.get(name, {}).items():
                needed[name]["properties"][field]["maxItems"] = most
    # Draft 4, because there 1.0 is no integer; to Go's decoder, which clients know, it is none either.
    return jsonschema_rs.Draft4Validator(
        {**needed[root], "definitions": needed}, validate_formats=True, ignore_unknown_formats=True
    )


def _convert(schema: Definition, references: list[str], strict: bool, *, nullable: bool) -> Definition:
    if reference := schema.get("$ref"):
        name = reference.removeprefix(REF)
        references.append(name)
        target: Definition = {"$ref": "#/definitions/" + name}
        # Definitions allow null themselves; where it is not allowed, that is said beside the reference.
        return target if nullable else {"allOf": [target, {"not": {"type": "null"}}]}
    result: Definition = {key: schema[key] for key in _KEPT if key in schema}
    types = _types(schema)
    if types:
        result["type"] = [*types, "null"] if nullable else types
    if nullable and "enum" in result:
        result["enum"] = [*result["enum"], None]
    if bounds := _BOUNDS.get(schema.get("format", "")):
        result.setdefault("minimum", bounds[0])
        result.setdefault("maximum", bounds[1])
    elif schema.get("format") == "date-time":
        result["format"] = "date-time"
    required = frozenset(schema.get("required") or ())
    if required:
        result["required"] = sorted(required)
    if properties := schema.get("properties"):
        result["properties"] = {
            name: _convert(child, references, strict, nullable=name not in required)
            for name, child in properties.items()
        }
        if strict and not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    if isinstance(items := schema.get("items"), dict):
        result.setdefault("maxItems", ANY)
        result["items"] = _convert(items, references, strict, nullable=False)
    if isinstance(values := schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _convert(values, references, strict, nullable=True)
    return result


def _types(schema: Definition) -> list[str]:
    if options := schema.get("oneOf"):  # Quantity and IntOrString
        return [option["type"] for option in options]
    if schema.get("x-isoplane-number-or-string"):
        return ["number", "string"]
    return [schema["type"]] if "type" in schema else []


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
