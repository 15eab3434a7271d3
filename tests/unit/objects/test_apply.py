"""Server-side apply, case by case; test_patch_golden.py compares whole histories with Kubernetes' own."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.objects import kinds
from isoplane.objects.errors import ApiError, BadRequest, Conflict
from isoplane.objects.patch import apply_config, record_update
from isoplane.objects.patch.fields import difference, intersection, paths, union
from isoplane.objects.patch.managers import read

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"


def pod(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}


def applied(live: Any, config: Any, manager: str = "ann", **options: Any) -> dict[str, Any]:
    before = json.dumps([live, config])
    result = apply_config(kinds.PODS, live, config, manager=manager, now=options.pop("now", NOW), **options)
    assert json.dumps([live, config]) == before
    return result


def owners(obj: dict[str, Any]) -> dict[str, list[str]]:
    return {manager.name: sorted(paths(owned.fields)) for manager, owned in read(obj).items()}


WEB = {"name": "web", "image": "web:1"}


def test_creating_owns_what_was_sent() -> None:
    obj = applied(None, {**pod(containers=[WEB], hostname=None), "metadata": {"name": "web", "labels": {"a": "b"}}})
    assert obj["spec"] == {"containers": [WEB]}
    assert obj["metadata"]["managedFields"] == [
        {
            "manager": "ann", "operation": "Apply", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {"f:a": {}}},
                "f:spec": {"f:containers": {'k:{"name":"web"}': {".": {}, "f:name": {}, "f:image": {}}}},
            },
        }
    ]  # fmt: skip


def test_applying_the_same_again_changes_nothing() -> None:
    live = applied(None, pod(containers=[WEB]))
    assert applied(live, pod(containers=[WEB]), now=LATER) is live


def test_what_is_no_longer_sent_goes_unless_somebody_else_has_it() -> None:
    live = applied(None, pod(hostname="x", subdomain="y", containers=[WEB]))
    live = applied(live, pod(hostname="x"), "bob")
    after = applied(live, pod(containers=[WEB]), now=LATER)
    assert after["spec"] == {"hostname": "x", "containers": [WEB]}
    assert owners(after)["bob"] == [".spec.hostname"]


def test_an_item_goes_with_its_defaults() -> None:
    live = applied(None, pod(containers=[WEB, {"name": "b", "image": "b"}]))
    live["spec"]["containers"][1]["imagePullPolicy"] = "Always"
    assert applied(live, pod(containers=[WEB]))["spec"]["containers"] == [WEB]


def test_a_conflict_names_manager_and_field() -> None:
    live = applied(None, pod(containers=[WEB], hostname="x"))
    with pytest.raises(Conflict) as caught:
        applied(live, pod(containers=[{"name": "web", "image": "web:2"}]), "bob")
    path = '.spec.containers[name="web"].image'
    assert caught.value.message == f'Apply failed with 1 conflict: conflict with "ann": {path}'
    assert caught.value.to_status()["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "ann"', "field": path}
    ]
    with pytest.raises(Conflict, match="Apply failed with 2 conflicts: conflicts with"):
        applied(live, pod(containers=[{"name": "web", "image": "web:2"}], hostname="y"), "bob")


def test_force_takes_the_field_over() -> None:
    live = applied(None, pod(containers=[WEB]))
    after = applied(live, pod(containers=[{"name": "web", "image": "web:2"}]), "bob", force=True)
    assert after["spec"]["containers"][0]["image"] == "web:2"
    image = '.spec.containers[name="web"].image'
    assert image in owners(after)["bob"]
    assert image not in owners(after)["ann"]


def test_agreeing_shares_the_field() -> None:
    live = applied(None, pod(hostname="x"))
    assert owners(applied(live, pod(hostname="x"), "bob")) == {"ann": [".spec.hostname"], "bob": [".spec.hostname"]}


def test_atomic_lists_have_one_owner() -> None:
    live = applied(None, pod(tolerations=[{"key": "a"}]))
    with pytest.raises(Conflict):
        applied(live, pod(tolerations=[{"key": "b"}]), "bob")


def test_updates_take_what_they_change() -> None:
    live = applied(None, pod(containers=[WEB], hostname="x"))
    new = copy.deepcopy(live)
    new["spec"]["hostname"] = "y"
    record_update(kinds.PODS, live, new, manager="editor", now=LATER)
    assert owners(new)["editor"] == [".spec.hostname"]
    assert ".spec.hostname" not in owners(new)["ann"]
    with pytest.raises(Conflict, match=r'conflict with "editor" using v1: \.spec\.hostname'):
        applied(new, pod(containers=[WEB], hostname="z"))


def test_untouched_updates_keep_the_managers() -> None:
    live = applied(None, pod(hostname="x"))
    new = copy.deepcopy(live)
    del new["metadata"]["managedFields"]
    record_update(kinds.PODS, live, new, manager="editor", now=LATER)
    assert new["metadata"]["managedFields"] == live["metadata"]["managedFields"]


def test_what_is_not_tracked_stays_so_until_the_first_apply() -> None:
    plain = pod(hostname="x")
    new = {**pod(hostname="x", subdomain="y"), "metadata": {"name": "web"}}
    record_update(kinds.PODS, plain, new, manager="editor", now=NOW)
    assert "managedFields" not in new["metadata"]
    with pytest.raises(Conflict, match="before-first-apply"):
        applied(plain, pod(hostname="y"))
    assert owners(applied(plain, pod(hostname="x"))) == {
        "ann": [".spec.hostname"], "before-first-apply": [".spec.hostname"],
    }  # fmt: skip
    record_update(kinds.PODS, None, plain, manager="kubectl-create", now=NOW)
    assert ".spec.hostname" in owners(plain)["kubectl-create"]


@pytest.mark.parametrize(
    "entry",
    [{"manager": "m", "operation": "Think"},
     {"manager": "m", "operation": "Update", "fieldsV1": {"f:spec": 1}},
     {"manager": "m", "operation": "Update", "fieldsV1": {"f:spec": {"hostname": {}}}}, "x"],
)  # fmt: skip
def test_managers_that_cannot_be_read_are_as_good_as_none(entry: Any) -> None:
    live = applied(None, pod(hostname="x"))
    new = {**pod(hostname="x"), "metadata": {"name": "web", "managedFields": [entry]}}
    record_update(kinds.PODS, live, new, manager="editor", now=LATER)
    assert new["metadata"]["managedFields"] == live["metadata"]["managedFields"]
    new["metadata"]["managedFields"] = []
    record_update(kinds.PODS, live, new, manager="editor", now=LATER)
    assert new["metadata"]["managedFields"] == live["metadata"]["managedFields"]


def test_status_is_owned_through_its_subresource_only() -> None:
    live = applied(None, pod(hostname="x"))
    new = {**copy.deepcopy(live), "status": {"phase": "Running"}}
    record_update(kinds.PODS, live, new, manager="agent", now=LATER)
    assert "agent" not in owners(new)
    record_update(kinds.PODS, live, new, manager="agent", now=LATER, subresource="status")
    entry = next(e for e in new["metadata"]["managedFields"] if e["manager"] == "agent")
    assert entry["subresource"] == "status"
    assert list(entry["fieldsV1"]) == ["f:status"]


def test_kubectl_takes_over_what_it_applied_client_side() -> None:
    last = pod(hostname="x")
    live = copy.deepcopy(last)
    live["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(last)}
    record_update(kinds.PODS, None, live, manager="kubectl-client-side-apply", now=NOW)
    assert applied(live, pod(hostname="y"), "kubectl")["spec"]["hostname"] == "y"
    with pytest.raises(Conflict):
        applied(live, pod(hostname="y"), "other")


def test_a_client_may_forget_all_managers() -> None:
    live = applied(None, pod(hostname="x"))
    new = copy.deepcopy(live)
    new["metadata"]["managedFields"] = [{}]
    record_update(kinds.PODS, live, new, manager="editor", now=LATER)
    assert "managedFields" not in new["metadata"]


def test_updaters_are_merged_when_they_are_many() -> None:
    live = applied(None, pod(hostname="x"))
    for number in range(15):
        new = copy.deepcopy(live)
        new["metadata"].setdefault("labels", {})[f"l{number}"] = "1"
        record_update(kinds.PODS, live, new, manager=f"u{number}", now=f"2026-01-01T00:{number:02}:00Z")
        live = new
    updaters = [e["manager"] for e in live["metadata"]["managedFields"] if e["operation"] == "Update"]
    assert len(updaters) == 10
    assert updaters[0] == "ancient-changes"
    assert ".metadata.labels.l0" in owners(live)["ancient-changes"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ([], "is an object"), ({**pod(), "metadata": {"managedFields": [{"manager": "x"}]}}, "managedFields must be nil"),
        (pod(containers=[{"image": "x"}]),
         '.spec.containers: element 0: associative list with keys has an element that omits "name"'),
        (pod(containers=[WEB, WEB]), '.spec.containers: duplicate entries for key {"name":"web"}'),
        ({**pod(), "metadata": {"finalizers": ["a", "a"]}}, ".metadata.finalizers: duplicate entries"),
    ],
)  # fmt: skip
def test_bad_configurations(config: Any, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        applied(None, config)
    assert said in caught.value.message


def test_a_manager_is_needed() -> None:
    with pytest.raises(BadRequest, match="is required for apply patch"):
        applied(None, pod(), "")


def test_malformed_managers_are_refused() -> None:
    live = {**pod(), "metadata": {"name": "x", "managedFields": [{"manager": "m", "operation": "Think"}]}}
    with pytest.raises(BadRequest, match=r"managedFields\[0\]"):
        applied(live, pod())


names = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"s"'])
field_sets = st.recursive(
    st.just({}), lambda inner: st.dictionaries(names, inner, max_size=3).flatmap(
        lambda d: st.sampled_from([d, {".": {}, **d} if d else d])
    ), max_leaves=8,
).filter(bool).map(lambda d: {k: v for k, v in d.items() if k != "."}).filter(bool)  # fmt: skip


@given(field_sets, field_sets)
def test_the_algebra_is_that_of_sets_of_paths(left: Any, right: Any) -> None:
    one, two = set(paths(left)), set(paths(right))
    assert set(paths(union(left, right))) == one | two
    assert set(paths(difference(left, right))) == one - two
    assert set(paths(intersection(left, right))) == one & two


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "web"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["name", "image", "containers", "ports", "labels", "finalizers", "metadata", "spec", "status"]),
        inner, max_size=4,
    ),
    max_leaves=15,
)  # fmt: skip
documents = st.fixed_dictionaries({}, optional={k: junk for k in ("metadata", "spec", "status")})  # noqa: C420


@given(documents, documents, st.booleans())
def test_only_api_errors_come_out(first: Any, second: Any, force: bool) -> None:
    try:
        live = applied(None, first)
        json.dumps(applied(live, second, "bob", force=force))
    except ApiError:
        pass
