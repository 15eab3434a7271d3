"""The Api protocol: one suite for the in-process adapter and the HTTP adapter, which must not differ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from isoplane.client.api import Api, WatchEvent
from isoplane.client.http import HttpApi
from isoplane.objects.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotFound,
)
from isoplane.objects.kinds import (
    CONFIGMAPS,
    NAMESPACES,
    PODS,
    VIRTUALMACHINEINSTANCES,
    VIRTUALMACHINES,
    WORKLOADS,
)
from isoplane.server.apiserver import ApiServer
from isoplane.server.computed import Derived
from isoplane.store import Record
from isoplane.store.history import Retention


def shadow(record: Record) -> dict[str, Any]:
    """A computed kind for the tests: one Workload for every Pod, with its image."""
    pod = record.object()
    meta = {
        "name": f"pod.{record.name}",
        "namespace": record.namespace,
        "uid": record.uid,
        "labels": dict(record.labels),
    }
    return {
        "apiVersion": "isoplane.io/v1alpha1",
        "kind": "Workload",
        "metadata": meta,
        "spec": {"image": pod["spec"]["containers"][0]["image"]},
    }


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    server = ApiServer(
        tmp_path / "data", "127.0.0.1:0", tmp_path / "kubeconfig", retention=Retention(changes=60, seconds=1e9)
    )
    await server.start()
    server.verbs.computed.register(Derived(WORKLOADS, (PODS,), shadow))
    yield server
    await server.stop()


@pytest.fixture(params=["local", "http"])
async def api(request: pytest.FixtureRequest, server: ApiServer, tmp_path: Path) -> AsyncIterator[Api]:
    if request.param == "local":
        yield server.local_api
        return
    async with HttpApi.from_kubeconfig(tmp_path / "kubeconfig") as http:
        yield http


def config(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


def pod(name: str = "web", node: str = "", image: str = "busybox") -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [{"name": "c", "image": image}]}
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


async def events(api: Api, count: int, *arguments: Any, **options: Any) -> list[WatchEvent]:
    """The first ``count`` events of a watch, bookmarks aside."""
    found: list[WatchEvent] = []
    watch = api.watch(*arguments, **options)
    async with asyncio.timeout(10):
        async for event in watch:
            if event.type == "BOOKMARK":
                continue
            found.append(event)
            if len(found) == count:
                break
    await watch.aclose()  # type: ignore[attr-defined]
    return found


async def test_create_get_update_delete(api: Api) -> None:
    made = await api.create(CONFIGMAPS, config("a", x="1"))
    assert made["metadata"]["uid"]
    assert made["metadata"]["creationTimestamp"]
    assert await api.get(CONFIGMAPS, "a", "default") == made
    made["data"]["x"] = "2"
    changed = await api.update(CONFIGMAPS, made)
    assert int(changed["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    with pytest.raises(Conflict):
        await api.update(CONFIGMAPS, made)
    assert (await api.update(CONFIGMAPS, changed))["metadata"] == changed["metadata"], "an equal object is not written"
    await api.delete(CONFIGMAPS, "a", "default")
    with pytest.raises(NotFound, match='configmaps "a" not found'):
        await api.get(CONFIGMAPS, "a", "default")
    with pytest.raises(NotFound):
        await api.delete(CONFIGMAPS, "a", "default")


async def test_what_the_caller_gives_and_gets_stays_his(api: Api) -> None:
    given = config("a", x="1")
    before = config("a", x="1")
    made = await api.create(CONFIGMAPS, given)
    assert given == before
    made["data"]["x"] = "mine"
    assert (await api.get(CONFIGMAPS, "a", "default"))["data"] == {"x": "1"}


async def test_create_refusals(api: Api) -> None:
    await api.create(CONFIGMAPS, config("a"))
    with pytest.raises(AlreadyExists):
        await api.create(CONFIGMAPS, config("a"))
    with pytest.raises(NotFound, match="namespaces"):
        await api.create(CONFIGMAPS, {**config("a"), "metadata": {"name": "a", "namespace": "nowhere"}})
    with pytest.raises(Invalid) as caught:
        await api.create(CONFIGMAPS, config("Not A Name"))
    assert caught.value.causes[0].field == "metadata.name"
    versioned = config("b")
    versioned["metadata"]["resourceVersion"] = "1"
    with pytest.raises(BadRequest, match="resourceVersion should not be set"):
        await api.create(CONFIGMAPS, versioned)
    with pytest.raises((MethodNotAllowed, NotFound)):
        await api.create(WORKLOADS, {"metadata": {"name": "x"}}, namespace="default")


async def test_dry_run_and_generated_names(api: Api) -> None:
    body = config("")
    body["metadata"] = {"generateName": "many-", "namespace": "default"}
    shown = await api.create(CONFIGMAPS, body, dry_run=True)
    assert shown["metadata"]["name"].startswith("many-")
    assert not (await api.list(CONFIGMAPS, "default")).items
    names = {(await api.create(CONFIGMAPS, body))["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5


async def test_lists_select_and_page_consistently(api: Api) -> None:
    for number in range(7):
        obj = config(f"c{number}")
        obj["metadata"]["labels"] = {"odd": str(number % 2)}
        await api.create(CONFIGMAPS, obj)
    assert len((await api.list(CONFIGMAPS)).items) == 7
    odd = await api.list(CONFIGMAPS, "default", label_selector="odd=1")
    assert [o["metadata"]["name"] for o in odd.items] == ["c1", "c3", "c5"]
    one = await api.list(CONFIGMAPS, field_selector="metadata.name=c4")
    assert [o["metadata"]["name"] for o in one.items] == ["c4"]
    with pytest.raises(BadRequest):
        await api.list(CONFIGMAPS, field_selector="data.x=1")
    with pytest.raises(BadRequest):
        await api.list(CONFIGMAPS, label_selector="a in (")
    first = await api.list(CONFIGMAPS, "default", limit=3)
    await api.delete(CONFIGMAPS, "c5", "default")
    await api.create(CONFIGMAPS, config("c4-later"))
    second = await api.list(CONFIGMAPS, "default", limit=3, continue_token=first.continue_token)
    last = await api.list(CONFIGMAPS, "default", limit=3, continue_token=second.continue_token)
    names = [o["metadata"]["name"] for page in (first, second, last) for o in page.items]
    assert names == [f"c{n}" for n in range(7)]
    assert first.resource_version == second.resource_version
    assert last.continue_token == ""
    for number in range(80):
        await api.patch(CONFIGMAPS, "c0", "default", {"data": {"n": str(number)}})
    with pytest.raises(Expired):
        await api.list(CONFIGMAPS, "default", limit=3, continue_token=first.continue_token)
    with pytest.raises(BadRequest):
        await api.list(CONFIGMAPS, continue_token="nonsense")


async def test_patches(api: Api) -> None:
    await api.create(PODS, pod())
    merged = await api.patch(PODS, "web", "default", {"metadata": {"labels": {"a": "1"}}})
    assert merged["metadata"]["labels"] == {"a": "1"}
    assert merged["metadata"]["generation"] == 1
    patch = [{"op": "test", "path": "/metadata/labels/a", "value": "1"}, {"op": "remove", "path": "/metadata/labels/a"}]
    removed = await api.patch(PODS, "web", "default", patch, kind="json")
    assert not removed["metadata"].get("labels")
    with pytest.raises(Invalid):
        await api.patch(PODS, "web", "default", patch, kind="json")
    body = {"spec": {"containers": [{"name": "c", "image": "other"}]}}
    strategic = await api.patch(PODS, "web", "default", body, kind="strategic")
    assert strategic["spec"]["containers"][0]["image"] == "other"
    assert strategic["metadata"]["generation"] == 2
    stale = {"metadata": {"resourceVersion": merged["metadata"]["resourceVersion"], "labels": {"b": "2"}}}
    with pytest.raises(Conflict):
        await api.patch(PODS, "web", "default", stale)
    with pytest.raises(Invalid):
        await api.patch(PODS, "web", "default", {"spec": {"hostNetwork": True}})
    with pytest.raises(NotFound):
        await api.patch(PODS, "nope", "default", {})


async def test_status_and_spec_are_written_apart(api: Api) -> None:
    made = await api.create(PODS, {**pod(), "status": {"phase": "Running"}})
    assert made["status"]["phase"] == "Pending"
    running = {**made, "status": {**made["status"], "phase": "Running"}, "spec": {"containers": []}}
    after = await api.update(PODS, running, subresource="status")
    assert after["status"]["phase"] == "Running"
    assert after["spec"] == made["spec"]
    assert after["metadata"]["generation"] == 1
    again = await api.patch(PODS, "web", "default", {"status": {"phase": "Failed"}, "metadata": {"labels": {"x": "y"}}})
    assert again["status"]["phase"] == "Running"
    assert again["metadata"]["labels"] == {"x": "y"}


async def test_graceful_deletion_is_confirmed_by_the_node(api: Api) -> None:
    made = await api.create(PODS, pod(node="here"))
    uid = made["metadata"]["uid"]
    with pytest.raises(Conflict, match="UID in precondition"):
        await api.delete(PODS, "web", "default", uid="another")
    await api.delete(PODS, "web", "default")
    marked = await api.get(PODS, "web", "default")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    await api.delete(PODS, "web", "default", grace_seconds=60)
    assert (await api.get(PODS, "web", "default"))["metadata"]["deletionGracePeriodSeconds"] == 30
    await api.delete(PODS, "web", "default", grace_seconds=3)
    assert (await api.get(PODS, "web", "default"))["metadata"]["deletionGracePeriodSeconds"] == 3
    await api.delete(PODS, "web", "default", grace_seconds=0, uid=uid)
    with pytest.raises(NotFound):
        await api.get(PODS, "web", "default")


async def test_a_finished_or_unplaced_workload_is_removed_at_once(api: Api) -> None:
    await api.create(PODS, pod())
    await api.delete(PODS, "web", "default")
    made = await api.create(PODS, pod(node="here"))
    made["status"]["phase"] = "Succeeded"
    await api.update(PODS, made, subresource="status")
    await api.delete(PODS, "web", "default")
    assert not (await api.list(PODS)).items


async def test_finalizers_and_propagation(api: Api) -> None:
    held = config("a")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await api.create(CONFIGMAPS, held)
    await api.delete(CONFIGMAPS, "a", "default", propagation="Foreground")
    marked = await api.get(CONFIGMAPS, "a", "default")
    assert marked["metadata"]["finalizers"] == ["example.com/hold", "foregroundDeletion"]
    with pytest.raises(Invalid, match="no new finalizers"):
        await api.patch(CONFIGMAPS, "a", "default", {"metadata": {"finalizers": ["more"]}})
    marked["metadata"]["finalizers"] = []
    await api.update(CONFIGMAPS, marked)
    assert not (await api.list(CONFIGMAPS)).items
    await api.create(CONFIGMAPS, config("b"))
    await api.delete(CONFIGMAPS, "b", "default", propagation="Orphan")
    assert (await api.get(CONFIGMAPS, "b", "default"))["metadata"]["finalizers"] == ["orphan"]


async def test_a_namespace_ends_through_finalize(api: Api) -> None:
    await api.create(NAMESPACES, {"metadata": {"name": "tenant"}})
    await api.delete(NAMESPACES, "tenant")
    found = await api.get(NAMESPACES, "tenant")
    assert found["status"]["phase"] == "Terminating"
    with pytest.raises(Forbidden, match="being terminated"):
        await api.create(CONFIGMAPS, config("a") | {"metadata": {"name": "a", "namespace": "tenant"}})
    found["spec"]["finalizers"] = []
    await api.update(NAMESPACES, found, subresource="finalize")
    with pytest.raises(NotFound):
        await api.get(NAMESPACES, "tenant")


async def test_actions(api: Api) -> None:
    await api.create(PODS, pod())
    bound = await api.subresource(PODS, "web", "default", "binding", {"target": {"kind": "Node", "name": "n1"}})
    assert bound["spec"]["nodeName"] == "n1"
    with pytest.raises(Conflict):
        await api.subresource(PODS, "web", "default", "binding", {"target": {"kind": "Node", "name": "n2"}})
    evicted = await api.subresource(PODS, "web", "default", "eviction", {"deleteOptions": {"gracePeriodSeconds": 7}})
    assert evicted["metadata"]["deletionGracePeriodSeconds"] == 7
    kernel = {"container": {"image": "k", "kernelPath": "/k", "initrdPath": "/i"}}
    domain = {"devices": {}, "memory": {"guest": "64Mi"}, "firmware": {"kernelBoot": kernel}}
    vm = {
        "metadata": {"name": "m", "namespace": "default"},
        "spec": {"runStrategy": "Halted", "template": {"spec": {"domain": domain}}},
    }
    await api.create(VIRTUALMACHINES, vm)
    started = await api.subresource(VIRTUALMACHINES, "m", "default", "start", {})
    assert started["spec"]["runStrategy"] == "Always"
    with pytest.raises(NotFound):
        await api.subresource(VIRTUALMACHINEINSTANCES, "m", "default", "pause", {})


async def test_watch_follows_from_a_revision_in_order(api: Api) -> None:
    start = (await api.list(CONFIGMAPS)).resource_version
    await api.create(CONFIGMAPS, config("a"))
    await api.patch(CONFIGMAPS, "a", "default", {"data": {"x": "1"}})

    async def later() -> None:
        await asyncio.sleep(0.1)
        await api.delete(CONFIGMAPS, "a", "default")

    task = asyncio.create_task(later())
    seen = await events(api, 3, CONFIGMAPS, "default", resource_version=start)
    await task
    assert [(e.type, e.object["metadata"]["name"]) for e in seen] == [
        ("ADDED", "a"),
        ("MODIFIED", "a"),
        ("DELETED", "a"),
    ]
    revisions = [int(e.object["metadata"]["resourceVersion"]) for e in seen]
    assert revisions == sorted(revisions)


async def test_watch_selects_by_field_and_shows_both_edges(api: Api) -> None:
    start = (await api.list(PODS)).resource_version
    await api.create(PODS, pod("a", node="n1"))
    await api.create(PODS, pod("b"))
    await api.subresource(PODS, "b", "default", "binding", {"target": {"name": "n1"}})
    for where in ("", "default"):
        found = await api.list(PODS, where, field_selector="spec.nodeName=n1")
        assert [o["metadata"]["name"] for o in found.items] == ["a", "b"]
    found = await api.list(PODS, field_selector="spec.nodeName=n1,status.phase!=Pending")
    assert found.items == []
    await api.delete(PODS, "a", "default", grace_seconds=0)
    seen = await events(api, 3, PODS, resource_version=start, field_selector="spec.nodeName=n1")
    assert [(e.type, e.object["metadata"]["name"]) for e in seen] == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]


async def test_a_compacted_watch_is_expired(api: Api) -> None:
    start = (await api.list(CONFIGMAPS)).resource_version
    await api.create(CONFIGMAPS, config("a"))
    for number in range(80):
        await api.patch(CONFIGMAPS, "a", "default", {"data": {"n": str(number)}})
    with pytest.raises(Expired):
        await events(api, 1, CONFIGMAPS, resource_version=start)


async def test_computed_kinds_follow_their_source(api: Api) -> None:
    await api.create(PODS, pod("a", image="one"))
    found = await api.list(WORKLOADS, "default")
    assert [(o["metadata"]["name"], o["spec"]["image"]) for o in found.items] == [("pod.a", "one")]
    assert (await api.get(WORKLOADS, "pod.a", "default"))["spec"] == {"image": "one"}
    with pytest.raises(NotFound):
        await api.get(WORKLOADS, "pod.b", "default")

    async def later() -> None:
        await asyncio.sleep(0.2)
        await api.patch(PODS, "a", "default", {"metadata": {"annotations": {"unseen": "1"}}})
        body = {"spec": {"containers": [{"name": "c", "image": "two"}]}}
        await api.patch(PODS, "a", "default", body, kind="strategic")
        await api.delete(PODS, "a", "default")

    task = asyncio.create_task(later())
    seen = await events(api, 2, WORKLOADS, "default", resource_version=found.resource_version)
    await task
    assert [(e.type, e.object["spec"]["image"]) for e in seen] == [("MODIFIED", "two"), ("DELETED", "two")]
