"""A kind of ours as another API server needs it: a CustomResourceDefinition with a structural schema.

Made of the same :class:`~isoplane.objects.resource.Resource` and the same schema that the embedded plane serves it by, so
that an object means the same in both places: what the schema says is said in the definition, what only the kind's rules say
stands beside it in the schema's files, as ``x-kubernetes-validations`` (CEL) or under ``x-isoplane-elsewhere`` (keywords that
only other servers need, because here a rule with better words comes first).  Pure; applies nothing.
"""

from __future__ import annotations

from typing import Any

from isoplane.objects.columns.printer import AGE, NAME, Column
from isoplane.objects.resource import Resource
from isoplane.objects.schema.sources import REF, Definition, read_definitions

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_RULES = "x-kubernetes-validations"
_KEPT = (
    "description", "type", "format", "enum", "default", "required", "pattern", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type", _RULES,
    "x-kubernetes-preserve-unknown-fields",
)  # fmt: skip
"""Keywords that a structural schema takes as they are."""
_BOUNDS = {"int32": (-(2**31), 2**31 - 1)}
"""By the format alone a server refuses as well, but names no field."""
_AMOUNT: Definition = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "x-kubernetes-int-or-string": True,
    "maxLength": 64,
    "x-kubernetes-validations": [{
        "rule": "type(self) == int ? self >= 0 : isQuantity(self) && quantity(self).compareTo(quantity('0')) >= 0",
        "message": "must be a quantity that is not negative, such as 2, 500m or 1Gi",
    }],
}  # fmt: skip
"""A quantity: limits are never negative."""


def crd(resource: Resource) -> dict[str, Any]:
    """The definition of a custom kind that is stored.

    Raises ValueError for a kind that cannot be one: built into Kubernetes, computed, or with a column that no path shows.
    """
    if not resource.custom or resource.computed:
        raise ValueError(f"{resource.kind} of {resource.api_version} is no stored custom kind: it has no definition")
    names: dict[str, Any] = {
        "kind": resource.kind,
        "listKind": resource.list_kind,
        "plural": resource.plural,
        "singular": resource.singular,
    }
    if resource.short_names:
        names["shortNames"] = list(resource.short_names)
    if resource.categories:
        names["categories"] = list(resource.categories)
    version: dict[str, Any] = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": structural(resource)},
        "additionalPrinterColumns": [_column(resource, c) for c in resource.printer.columns if c is not NAME],
    }
    if "status" in resource.subresources:
        version["subresources"] = {"status": {}}
    if resource.selectable:
        version["selectableFields"] = [{"jsonPath": f".{field.path}"} for field in resource.selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.qualified},
        "spec": {
            "group": resource.group,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": names,
            "versions": [version],
        },
    }


def structural(resource: Resource) -> Definition:
    """The kind's schema in one piece: nothing referred to, no keyword that a definition may not have."""
    pool = read_definitions() | dict(resource.definitions)
    return _render({"$ref": REF + resource.schema.name}, pool, ())


def _render(schema: Definition, pool: dict[str, Definition], inside: tuple[str, ...]) -> Definition:
    if reference := schema.get("$ref"):
        name = str(reference).removeprefix(REF)
        if name in inside:
            raise ValueError(f"{name} refers to itself: a structural schema cannot")
        own = {key: value for key, value in schema.items() if key in _KEPT}
        if name == _META:
            return {"type": "object"}
        meant = dict(_AMOUNT) if name == _QUANTITY else _render(pool[name], pool, (*inside, name))
        if rules := [*meant.get(_RULES, ()), *own.get(_RULES, ())]:
            own[_RULES] = rules
        return meant | own
    result: Definition = {key: schema[key] for key in _KEPT if key in schema} | schema.get("x-isoplane-elsewhere", {})
    if schema.get("x-isoplane-number-or-string"):
        # Number or string: no type is said, and what has neither form is refused by its other keywords.
        result |= {"x-kubernetes-preserve-unknown-fields": True, "maxItems": 0, "maxProperties": 0}
        result["not"] = {"enum": [True, False]}
    if bounds := _BOUNDS.get(schema.get("format", "")):
        result.setdefault("minimum", bounds[0])
        result.setdefault("maximum", bounds[1])
    if properties := schema.get("properties"):
        result["properties"] = {name: _render(child, pool, inside) for name, child in properties.items()}
    for key in ("items", "additionalProperties"):
        if isinstance(child := schema.get(key), dict):
            result[key] = _render(child, pool, inside)
    return result


def _column(resource: Resource, column: Column) -> dict[str, Any]:
    if not column.path:
        raise ValueError(f"{resource.kind}: the column {column.name} has no path that another server could show")
    found: dict[str, Any] = {
        "name": column.name,
        "type": "date" if column is AGE else column.type,
        "jsonPath": column.path,
        "description": column.description,
    }
    if column.wide:
        found["priority"] = 1
    return found
