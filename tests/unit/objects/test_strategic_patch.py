"""Strategic merge patch: the directives one by one, then a three-way apply against a simple oracle."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.objects import kinds
from isoplane.objects.errors import ApiError, BadRequest
from isoplane.objects.patch import apply_strategic


def pod(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}


def patched(obj: dict[str, Any], patch: dict[str, Any]) -> Any:
    before = json.dumps([obj, patch])
    result = apply_strategic(kinds.PODS, obj, patch)
    assert json.dumps([obj, patch]) == before
    return result


def spec_after(spec: dict[str, Any], patch: dict[str, Any]) -> Any:
    return patched(pod(**spec), {"spec": patch})["spec"]


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in items]


A, B, C = ({"name": n, "image": n} for n in "abc")


def test_items_merge_by_their_key() -> None:
    after = spec_after({"containers": [A, B]}, {"containers": [{"name": "b", "image": "new", "tty": True}]})
    assert after == {"containers": [A, {"name": "b", "image": "new", "tty": True}]}


def test_new_items_are_added() -> None:
    assert names(spec_after({"containers": [A]}, {"containers": [C, B]})["containers"]) == ["c", "b", "a"]


def test_lists_without_strategy_are_replaced() -> None:
    after = spec_after({"containers": [{**A, "args": ["x"]}]}, {"containers": [{"name": "a", "args": ["y"]}]})
    assert after["containers"][0]["args"] == ["y"]


def test_ports_merge_by_container_port() -> None:
    before = {"containers": [{**A, "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}]}]}
    after = spec_after(before, {"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "web"}]}]})
    assert after["containers"][0]["ports"] == [{"containerPort": 80, "name": "web"}, {"containerPort": 81}]


def test_null_removes_a_field() -> None:
    assert spec_after({"hostname": "x", "containers": [A]}, {"hostname": None}) == {"containers": [A]}


def test_null_in_a_new_map_is_dropped() -> None:
    assert spec_after({}, {"securityContext": {"runAsUser": None, "fsGroup": 1}}) == {"securityContext": {"fsGroup": 1}}


def test_an_item_is_deleted_by_directive() -> None:
    assert spec_after({"containers": [A, B]}, {"containers": [{"name": "a", "$patch": "delete"}]}) == {
        "containers": [B]
    }


def test_a_list_is_replaced_by_directive() -> None:
    assert spec_after({"containers": [A, B]}, {"containers": [{"$patch": "replace"}, C]}) == {"containers": [C]}


def test_a_new_list_loses_its_directives() -> None:
    new = {"containers": [{"$patch": "replace"}, {"name": "x", "$patch": "delete"}, A]}
    assert spec_after({}, new) == {"containers": [A]}


def test_a_map_is_replaced_deleted_or_merged_by_directive() -> None:
    old = {"securityContext": {"runAsUser": 1}}
    assert spec_after(old, {"securityContext": {"$patch": "replace", "fsGroup": 2}}) == {
        "securityContext": {"fsGroup": 2}
    }
    assert spec_after(old, {"securityContext": {"$patch": "delete"}}) == {"securityContext": {}}
    merged = spec_after(old, {"securityContext": {"$patch": "merge", "fsGroup": 2}})
    assert merged == {"securityContext": {"runAsUser": 1, "fsGroup": 2}}


def test_scalars_merge_and_leave_by_directive() -> None:
    obj = {"metadata": {"name": "web", "finalizers": ["a", "b"]}}
    assert patched(obj, {"metadata": {"finalizers": ["c"]}})["metadata"]["finalizers"] == ["c", "a", "b"]
    after = patched(obj, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}})
    assert after["metadata"]["finalizers"] == ["c", "b"]


def test_element_order_keeps_what_only_the_server_has() -> None:
    order = [{"name": "c"}, {"name": "a"}]
    after = spec_after({"containers": [A, B, C]}, {"$setElementOrder/containers": order})
    assert names(after["containers"]) == ["b", "c", "a"]
    after = patched(
        {"metadata": {"finalizers": ["a", "b"]}},
        {"metadata": {"$setElementOrder/finalizers": ["b", "c", "a"], "finalizers": ["c"]}},
    )
    assert after["metadata"]["finalizers"] == ["b", "c", "a"]


def test_retain_keys_switches_a_union() -> None:
    after = spec_after(
        {"volumes": [{"name": "v", "emptyDir": {}}]},
        {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]},
    )
    assert after == {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}


def test_unknown_fields_merge_as_maps_and_replace_as_lists() -> None:
    after = spec_after({"future": {"a": 1, "list": [1]}}, {"future": {"b": 2, "list": [2]}})
    assert after == {"future": {"a": 1, "b": 2, "list": [2]}}


def test_owner_references_merge_by_uid() -> None:
    old = {"metadata": {"ownerReferences": [{"uid": "1", "name": "x"}]}}
    after = patched(old, {"metadata": {"ownerReferences": [{"uid": "2"}, {"uid": "1", "$patch": "delete"}]}})
    assert after["metadata"]["ownerReferences"] == [{"uid": "2"}]


@pytest.mark.parametrize(
    ("patch", "where"),
    [
        ({"containers": [{"image": "x"}]}, "spec.containers"),
        ({"containers": ["x"]}, "spec.containers"),
        ({"containers": [{"$patch": "explode", "name": "a"}]}, "spec.containers"),
        ({"$patch": "explode"}, "spec"),
        ({"$retainKeys": "x"}, "spec.$retainKeys"),
        ({"$retainKeys": ["a"], "b": 1}, "spec.$retainKeys"),
        ({"$deleteFromPrimitiveList/x": 1}, "spec.$deleteFromPrimitiveList/x"),
        ({"$setElementOrder/containers": 1}, "spec.$setElementOrder/containers"),
        ({"$setElementOrder/containers": [{"name": "a"}], "containers": [B]}, "spec.$setElementOrder/containers"),
    ],
)
def test_malformed_patches_say_where(patch: dict[str, Any], where: str) -> None:
    with pytest.raises(BadRequest) as caught:
        spec_after({"containers": [A]}, patch)
    assert f"{where}: " in caught.value.message


scalars = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["a", "b"])
keys = st.sampled_from([
    "name", "spec", "containers", "image", "finalizers", "metadata", "ports", "containerPort", "labels", "$patch",
    "$retainKeys", "$setElementOrder/containers", "$deleteFromPrimitiveList/finalizers", "$setElementOrder/finalizers",
])  # fmt: skip
anything = st.recursive(
    scalars | st.sampled_from(["delete", "replace", "merge"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=15,
)
documents = st.fixed_dictionaries({}, optional=dict.fromkeys(("metadata", "spec", "status", "$patch"), anything))


@given(documents, documents)
def test_only_api_errors_come_out_and_inputs_stay(obj: Any, patch: Any) -> None:
    before = json.dumps([obj, patch])
    for resource in (kinds.PODS, kinds.NAMESPACES):
        try:
            json.dumps(apply_strategic(resource, obj, patch))
        except ApiError:
            pass
    assert json.dumps([obj, patch]) == before


containers = st.dictionaries(
    st.sampled_from("abcd"),
    st.fixed_dictionaries({}, optional={f: st.integers(0, 3) for f in ("image", "tty")}),
    max_size=4,
)


def as_list(items: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": name, **fields} for name, fields in items.items()]


@given(containers, containers, containers)
def test_three_way_apply_changes_what_the_user_changed_and_nothing_else(last: Any, new: Any, added: Any) -> None:
    """What ``kubectl apply`` sends: last to new as a patch, on a live object where others added fields."""
    live = {name: {**fields, "other": 9} for name, fields in last.items()}
    live |= {name: {"other": 9} for name in added if name not in last}
    changes: list[dict[str, Any]] = []
    for name, fields in new.items():
        gone = {field: None for field in last.get(name, {}) if field not in fields}
        changes.append({"name": name, **fields, **gone})
    changes += [{"name": name, "$patch": "delete"} for name in last if name not in new]
    patch = {"$setElementOrder/containers": [{"name": n} for n in new], "containers": changes}
    result = spec_after({"containers": as_list(live)}, patch)["containers"]

    expected = {}
    for name in [*live, *new]:
        if name in last and name not in new:
            continue
        own = live.get(name, {})
        kept = {f: v for f, v in own.items() if not (name in new and f in last.get(name, {}) and f not in new[name])}
        expected[name] = {**kept, **new.get(name, {})}
    assert {item["name"]: {f: v for f, v in item.items() if f != "name"} for item in result} == expected
    assert [n for n in names(result) if n in new] == list(new)
