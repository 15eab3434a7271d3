"""Patches against what Kubernetes itself made of the same ones: kubectl's three-way patches, and server-side apply."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

from isoplane.objects import kinds
from isoplane.objects.errors import ApiError
from isoplane.objects.patch import apply_config, apply_strategic, record_update
from isoplane.objects.patch.fields import paths

GOLDEN = Path(__file__).parents[2] / "golden/patch"


def load(name: str) -> Any:
    return json.loads(gzip.decompress((GOLDEN / name).read_bytes()))


def decoded(value: Any) -> Any:
    """What Go's types keep of a patched document: no nulls, and none of the directives that upstream leaves in new items."""
    if isinstance(value, dict):
        return {key: decoded(child) for key, child in value.items() if child is not None and key[0] != "$"}
    return [decoded(child) for child in value] if isinstance(value, list) else value


def upstream_errs(patch: Any, live: Any) -> bool:
    """Two mistakes of upstream's that are not ours: with a delete directive in a list that also gains an item, the order
    depends on how Go grew the slice; and in a new list the item to delete stays, without its directive."""
    if isinstance(patch, dict):
        live = live if isinstance(live, dict) else {}
        return any(upstream_errs(child, live.get(key)) for key, child in patch.items())
    if isinstance(patch, list):
        known = {i.get("name"): i for i in live or () if isinstance(i, dict)}
        items = [item for item in patch if isinstance(item, dict)]
        gone = [item for item in items if item.get("$patch") == "delete"]
        if gone and (any(i.get("name") not in known for i in gone) or any(i.get("name") not in known for i in items)):
            return True
        return any(upstream_errs(item, known.get(item.get("name"))) for item in items)
    return False


def test_three_way_patches_give_what_kubernetes_gives() -> None:
    cases = load("three_way.json.gz")
    compared = 0
    for case in cases:
        if upstream_errs(case["patch"], case["live"]):
            continue
        compared += 1
        assert apply_strategic(kinds.PODS, case["live"], case["patch"]) == decoded(case["after"]), case
    assert compared > len(cases) / 3


def without_managers(obj: dict[str, Any]) -> dict[str, Any]:
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "managedFields"}}


def ownership(obj: dict[str, Any]) -> dict[tuple[str, str], list[str]]:
    return {
        (entry["manager"], entry["operation"]): sorted(paths(entry["fieldsV1"]))
        for entry in obj["metadata"].get("managedFields") or ()
    }


def test_apply_and_update_give_what_kubernetes_gives() -> None:
    conflicts = 0
    for scenario in load("apply.json.gz"):
        live: Any = None
        for step in scenario:
            expected = step["result"]
            error: ApiError | None = None
            obj = copy.deepcopy(step["obj"])
            try:
                if step["op"] == "apply":
                    now = {"manager": step["manager"], "force": step["force"], "now": "2026-01-01T00:00:00Z"}
                    result = apply_config(kinds.PODS, live, obj, **now)
                else:
                    result = obj
                    record_update(kinds.PODS, live, obj, manager=step["manager"], now="2026-01-01T00:00:00Z")
            except ApiError as caught:
                error = caught
            if error is not None:
                assert sorted(cause.field for cause in error.causes) == sorted(expected["causes"])
                assert error.code == 409
                conflicts += 1
                continue
            assert "obj" in expected, expected
            assert without_managers(result) == without_managers(expected["obj"])
            assert ownership(result) == ownership(expected["obj"])
            live = expected["obj"]
    assert conflicts > 20
