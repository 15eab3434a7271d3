"""A kind that a running plane did not know when it started: served, watched, collected, counted, emptied, and gone again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from isoplane.client import kubeconfig
from isoplane.client.api import WatchEvent
from isoplane.client.http import HttpApi
from isoplane.node.parts import NodeOptions
from isoplane.objects.columns.printer import AGE, NAME, Column, Printer, age
from isoplane.objects.errors import Expired, Invalid, NotFound, QuotaExceeded
from isoplane.objects.kinds import CONFIGMAPS, NAMESPACES, QUOTADECISIONS, RESOURCEQUOTAS
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules, Selectable, Strategy, status_of
from isoplane.objects.rules.report import Report
from isoplane.plane import Plane, PlaneOptions

META = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def _default(obj: Object) -> None:
    obj.setdefault("spec", {}).setdefault("size", "small")


def _check(obj: Object, report: Report) -> None:
    report.one_of("spec.size", obj["spec"]["size"], ("small", "large"))


WIDGETS = Resource(
    group="example.com",
    version="v1",
    plural="widgets",
    kind="Widget",
    short_names=("wg",),
    subresources=status_of("Widget"),
    custom=True,
    default=_default,
    rules=Rules(_check),
    strategy=Strategy(generation=True, initial_status={}),
    printer=Printer(
        (NAME, Column("Size"), AGE), lambda o, now: [o["metadata"]["name"], o["spec"]["size"], age(o, now)]
    ),
    selectable=(Selectable("spec.size", indexed=True),),
    definitions={
        "com.example.v1.Widget": {
            "description": "A widget.",
            "type": "object",
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"$ref": META},
                "spec": {"type": "object", "properties": {"size": {"type": "string", "description": "How big it is."}}},
                "status": {"type": "object", "properties": {"turns": {"type": "integer"}}},
            },
            "x-kubernetes-group-version-kind": [{"group": "example.com", "version": "v1", "kind": "Widget"}],
        }
    },
)


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    made = Plane(PlaneOptions(tmp_path / "data", listen="127.0.0.1:0", node=NodeOptions(simulated=True)))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def widget(name: str, namespace: str = "default", owner: Object | None = None, **spec: Any) -> Object:
    meta: Object = {"name": name, "namespace": namespace}
    if owner is not None:
        own = {key: owner[key] for key in ("apiVersion", "kind")}
        meta["ownerReferences"] = [{**own, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}]
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": meta, "spec": spec}


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():
            await asyncio.sleep(0.02)


async def gone(api: HttpApi, resource: Resource, name: str, namespace: str = "") -> bool:
    try:
        await api.get(resource, name, namespace)
    except NotFound:
        return True
    return False


async def test_a_kind_comes_and_goes_while_the_plane_runs(plane: Plane) -> None:
    cluster = kubeconfig.load(plane.options.kubeconfig_path)
    assert cluster.context is not None
    async with HttpApi(cluster) as api, httpx.AsyncClient(base_url=cluster.server, verify=cluster.context) as client:
        with pytest.raises(NotFound):
            await api.list(WIDGETS)
        before = await published(client)
        assert not any("example.com" in text for text in before.values())

        plane.scheme.add(WIDGETS)
        after = await published(client)
        assert all("example.com" in text for text in after.values())
        await objects_are_served(api, client)
        await owners_and_dependents_go(api)
        await quota_counts(api)
        await namespaces_are_emptied(api)

        watch = api.watch(WIDGETS, resource_version=(await api.list(WIDGETS)).resource_version)
        ended = asyncio.ensure_future(follow(watch))
        await asyncio.sleep(0.05)
        plane.scheme.remove(WIDGETS)
        async with asyncio.timeout(10):
            with pytest.raises(Expired, match="not served any more"):
                await ended
        with pytest.raises(NotFound):
            await api.create(WIDGETS, widget("late"), namespace="default")
        with pytest.raises(NotFound):
            await plane.api.create(WIDGETS, widget("late"), namespace="default")
        assert await published(client) == before


async def follow(events: AsyncIterator[WatchEvent]) -> None:
    async for _ in events:
        pass


async def published(client: httpx.AsyncClient) -> dict[str, str]:
    """Every document that tells what is served."""
    asked = {
        "aggregated": ("/apis", DISCOVERY),
        "groups": ("/apis", "application/json"),
        "index": ("/openapi/v3", "application/json"),
        "v2": ("/openapi/v2", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"),
    }
    return {name: (await client.get(path, headers={"accept": kind})).text for name, (path, kind) in asked.items()}


async def objects_are_served(api: HttpApi, client: httpx.AsyncClient) -> None:
    resources = (await client.get("/apis/example.com/v1")).json()["resources"]
    assert [(r["name"], r["verbs"]) for r in resources if "/" in r["name"]] == [
        ("widgets/status", ["get", "patch", "update"])
    ]
    document = (await client.get("/openapi/v3/apis/example.com/v1")).json()
    shown = document["components"]["schemas"]["com.example.v1.Widget"]["properties"]["spec"]["properties"]["size"]
    assert shown["description"] == "How big it is."
    assert "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" in document["components"]["schemas"]

    watch = api.watch(WIDGETS, resource_version=(await api.list(WIDGETS)).resource_version)
    first = asyncio.ensure_future(anext(watch))
    made = await api.create(WIDGETS, {**widget("one"), "status": {"turns": 5}}, namespace="default")
    assert (made["spec"], made["metadata"]["generation"], "status" in made) == ({"size": "small"}, 1, False)
    async with asyncio.timeout(10):
        event = await first
    assert (event.type, event.object["metadata"]["name"]) == ("ADDED", "one")
    await watch.aclose()  # type: ignore[attr-defined]

    with pytest.raises(Invalid, match=r"spec\.size: Unsupported value"):
        await api.create(WIDGETS, widget("bad", size="huge"), namespace="default")
    with pytest.raises(Invalid, match=r"spec\.size: .*must be of type string"):
        await api.create(WIDGETS, widget("bad", size=3), namespace="default")
    turned = await api.update(WIDGETS, {**made, "status": {"turns": 1}}, subresource="status")
    assert (turned["status"], turned["metadata"]["generation"]) == ({"turns": 1}, 1)
    grown = await api.patch(WIDGETS, "one", "default", {"spec": {"size": "large"}}, kind="merge")
    assert (grown["status"], grown["metadata"]["generation"]) == ({"turns": 1}, 2)
    await api.create(WIDGETS, widget("two"), namespace="default")
    assert [o["metadata"]["name"] for o in (await api.list(WIDGETS, field_selector="spec.size=large")).items] == ["one"]
    rows = (await client.get("/apis/example.com/v1/widgets", headers={"accept": TABLE})).json()
    assert [c["name"] for c in rows["columnDefinitions"]] == ["Name", "Size", "Age"]
    assert [row["cells"][:2] for row in rows["rows"]] == [["one", "large"], ["two", "small"]]


async def owners_and_dependents_go(api: HttpApi) -> None:
    """It is owned by a kind of ours, and owns one."""
    top = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "top", "namespace": "default"}}
    owner = await api.create(CONFIGMAPS, top, namespace="default")
    middle = await api.create(WIDGETS, widget("middle", owner=owner), namespace="default")
    leaf = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**widget("leaf", owner=middle)["metadata"]}}
    await api.create(CONFIGMAPS, leaf, namespace="default")
    await api.delete(CONFIGMAPS, "top", "default")
    await until(lambda: gone(api, WIDGETS, "middle", "default"))
    await until(lambda: gone(api, CONFIGMAPS, "leaf", "default"))
    assert not await gone(api, WIDGETS, "one", "default")


async def quota_counts(api: HttpApi) -> None:
    """Those that were there before the quota too: two are, and a third has room."""
    quota: Object = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "default"}}
    quota["spec"] = {"hard": {"count/widgets.example.com": "3"}}
    await api.create(RESOURCEQUOTAS, quota, namespace="default")
    await api.create(WIDGETS, widget("three"), namespace="default")
    with pytest.raises(QuotaExceeded, match=r"used: count/widgets\.example\.com=3"):
        await api.create(WIDGETS, widget("four"), namespace="default")

    async def told() -> bool:
        """A refusal is written after the answer."""
        found = [d["status"] for d in (await api.list(QUOTADECISIONS, "default")).items]
        return [d["workload"]["kind"] for d in found if d["decision"] == "Refuse"] == ["Widget"]

    await until(told)
    await api.delete(RESOURCEQUOTAS, "q", "default")


async def namespaces_are_emptied(api: HttpApi) -> None:
    await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}})
    await api.create(WIDGETS, widget("inside", "a"), namespace="a")
    await api.delete(NAMESPACES, "a")
    await until(lambda: gone(api, NAMESPACES, "a"))
    assert await gone(api, WIDGETS, "inside", "a")
    for name in ("one", "two", "three"):
        await api.delete(WIDGETS, name, "default")


async def test_a_kind_that_cannot_be_served_is_refused(plane: Plane) -> None:
    with pytest.raises(LookupError, match="no schema for kind 'Widget'"):
        plane.scheme.add(Resource("example.com", "v1", "widgets", "Widget", custom=True))
    plane.scheme.add(WIDGETS)
    other = Resource("example.com", "v1", "gadgets", "Widget", custom=True, definitions=WIDGETS.definitions)
    with pytest.raises(ValueError, match="is served as widgets already"):
        plane.scheme.add(other)
