"""A kind's definition compiled to JSON Schema validators; ``validator`` asks them and tells their errors.

Where a field may be null, how long a list may be and what the integer formats bound is decided here, once a kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from isoplane.objects.schema.bounds import ANY, MOST_ITEMS
from isoplane.objects.schema.sources import REF, Definition

if TYPE_CHECKING:
    import jsonschema_rs

_BOUNDS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_KEPT = ("enum", "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minProperties", "minimum", "pattern")


def compiled(root: str, pool: Mapping[str, Definition], *, strict: bool) -> jsonschema_rs.Draft4Validator:
    """The validator of a definition of ``pool``. ``strict`` refuses unknown fields. Takes some milliseconds."""
    import jsonschema_rs  # who only names kinds does not wait for it

    needed: dict[str, Definition] = {}
    pending = [root]
    while pending:
        name = pending.pop()
        if name not in needed:
            needed[name] = _convert(pool[name], pending, strict, nullable=True)
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
