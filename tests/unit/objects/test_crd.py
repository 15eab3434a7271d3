"""Our kinds as CustomResourceDefinitions; tests/kubernetes/test_crds.py holds what they mean against a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from isoplane.objects.crd import crd, structural
from isoplane.objects.kinds import (
    BUILT_IN,
    CONFIGMAPS,
    QUOTAPOLICIES,
    TENANTQUOTAS,
    VIRTUALMACHINES,
    WORKLOADS,
    Resource,
)
from isoplane.objects.resource import Resource as Described
from isoplane.objects.validation import validate

OURS = [r for r in BUILT_IN if r.group == "isoplane.io" and not r.computed]


def nodes(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in (schema.get("properties") or {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


@pytest.mark.parametrize("resource", OURS, ids=lambda r: r.kind)
def test_every_stored_kind_of_ours_has_a_definition(resource: Resource) -> None:
    found = crd(resource)
    version = found["spec"]["versions"][0]
    assert found["metadata"]["name"] == f"{resource.plural}.{resource.group}"
    assert ("subresources" in version) is ("status" in resource.subresources)
    assert [c["name"] for c in version["additionalPrinterColumns"]] == [c.name for c in resource.printer.columns][1:]
    for path, node in nodes(version["schema"]["openAPIV3Schema"]):
        assert "$ref" not in node, path
        assert not [key for key in node if key.startswith("x-isoplane")], path
        typed = (
            "type" in node or node.get("x-kubernetes-int-or-string") or node.get("x-kubernetes-preserve-unknown-fields")
        )
        assert typed, f"{path} has no type: the schema is not structural"
        assert node.get("description") or path in ("", ".metadata") or path.endswith("[]"), f"{path} is not described"


@pytest.mark.parametrize("resource", [CONFIGMAPS, WORKLOADS])
def test_what_is_no_stored_custom_kind_has_none(resource: Resource) -> None:
    with pytest.raises(ValueError, match="no stored custom kind"):
        crd(resource)


def test_a_column_that_no_path_shows_is_told() -> None:
    with pytest.raises(ValueError, match="the column Status has no path"):
        crd(VIRTUALMACHINES)


def test_a_schema_that_refers_to_itself_is_told() -> None:
    reference = {"$ref": "#/components/schemas/com.example.v1.Tree"}
    tree = {
        "type": "object",
        "properties": {"left": reference},
        "x-kubernetes-group-version-kind": [{"group": "example.com", "version": "v1", "kind": "Tree"}],
    }
    with pytest.raises(ValueError, match="refers to itself"):
        structural(
            Described("example.com", "v1", "trees", "Tree", custom=True, definitions={"com.example.v1.Tree": tree})
        )


def test_defaults_are_those_that_the_embedded_plane_sets() -> None:
    spec: dict[str, Any] = {}
    QUOTAPOLICIES.default({"spec": spec})
    properties = structural(QUOTAPOLICIES)["properties"]["spec"]["properties"]
    assert {name: field["default"] for name, field in properties.items() if "default" in field} == spec


def test_amounts_have_a_bounded_number_of_names() -> None:
    for resource, path in ((QUOTAPOLICIES, "guaranteed"), (TENANTQUOTAS, "hard")):
        for count in (100, 101):
            hard = {f"requests.example.com/r{number}": "1" for number in range(count)}
            obj = {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "metadata": {"name": "default", "namespace": "a"},
            }
            causes = validate(resource, {**obj, "spec": {path: hard}})
            assert [cause.message for cause in causes] == ["Too many: 101: must have at most 100"] * (count > 100)
