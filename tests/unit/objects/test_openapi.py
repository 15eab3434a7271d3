"""The OpenAPI documents: complete in themselves, and with the marks that kubectl looks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from isoplane.objects import openapi
from isoplane.objects.errors import NotFound
from isoplane.objects.kinds import Resource
from isoplane.objects.scheme import Scheme

SCHEME = Scheme()
GROUPS = sorted({(resource.group, resource.version) for resource in SCHEME})


def documents() -> Iterator[tuple[Resource, dict[str, Any]]]:
    for resource in SCHEME:
        yield resource, orjson.loads(openapi.document(SCHEME, resource.group, resource.version))


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


@pytest.mark.parametrize(("group", "version"), GROUPS)
def test_every_reference_is_in_the_document(group: str, version: str) -> None:
    document = orjson.loads(openapi.document(SCHEME, group, version))
    schemas = document["components"]["schemas"]
    for reference in set(references(document)):
        assert reference.removeprefix("#/components/schemas/") in schemas


def test_the_index_points_at_every_document() -> None:
    paths = orjson.loads(openapi.index(SCHEME))["paths"]
    assert set(paths) == {f"apis/{g}/{v}" if g else f"api/{v}" for g, v in GROUPS}
    for place, entry in paths.items():
        assert entry["serverRelativeURL"].startswith(f"/openapi/v3/{place}?hash=")


def test_patch_operations_say_what_they_take() -> None:
    for resource, document in documents():
        if "patch" not in resource.verbs:
            continue
        gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        found = [
            path["patch"]
            for path in document["paths"].values()
            if path.get("patch", {}).get("x-kubernetes-group-version-kind") == gvk
        ]
        assert found
        for operation in found:
            assert {"fieldValidation", "dryRun"} <= {parameter["name"] for parameter in operation["parameters"]}
            types = operation["requestBody"]["content"]
            assert ("application/strategic-merge-patch+json" in types) is not resource.custom
            assert {"application/apply-patch+yaml", "application/merge-patch+json"} <= set(types)


def test_every_kind_is_marked_on_its_schema() -> None:
    for resource, document in documents():
        gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        marked = [
            s for s in document["components"]["schemas"].values() if gvk in s.get("x-kubernetes-group-version-kind", ())
        ]
        assert len(marked) == 1
        assert marked[0]["description"]


def test_merge_keys_are_published() -> None:
    schemas = orjson.loads(openapi.document(SCHEME, "", "v1"))["components"]["schemas"]
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["x-kubernetes-list-map-keys"] == ["name"]


def test_nothing_of_ours_leaks_into_the_documents() -> None:
    for group, version in GROUPS:
        assert b"x-isoplane" not in openapi.document(SCHEME, group, version)


def test_a_group_that_is_not_served() -> None:
    with pytest.raises(NotFound):
        openapi.document(SCHEME, "apps", "v1")
