"""A TenantQuota means what a ResourceQuota means for workloads, beside one of the same name; other objects it does not limit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from isoplane.objects.errors import Forbidden, Invalid, QuotaExceeded
from isoplane.objects.kinds import CONFIGMAPS, PODS, QUOTAPOLICIES, QUOTAUSAGES, RESOURCEQUOTAS, TENANTQUOTAS, Resource
from isoplane.objects.metadata import Object
from isoplane.quota.model import Deny
from isoplane.quota.offline import answers
from isoplane.server.quota_admission import repair, usage_summary
from quota_plane_support import QuotaPlane, pod, quota_plane

both = pytest.mark.parametrize("kind", [RESOURCEQUOTAS, TENANTQUOTAS], ids=lambda kind: kind.kind)


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[QuotaPlane]:
    async with quota_plane(tmp_path) as made:
        made.verbs.computed.register(usage_summary())
        await made.tenant("a", {"configmaps": "10"}, evictionThreshold=10)
        await made.priority("low", 5)
        await made.priority("high", 100)
        yield made
        assert await repair(made.store, made.plugin, lambda: made.now) == []


async def limit(plane: QuotaPlane, kind: Resource, hard: dict[str, Any], name: str = "t", **spec: Any) -> Object:
    return await plane.api.create(kind, {"metadata": {"name": name, "namespace": "a"}, "spec": {"hard": hard, **spec}})


async def status(plane: QuotaPlane, kind: Resource = TENANTQUOTAS, name: str = "t") -> Object:
    found: Object = (await plane.api.get(kind, name, "a"))["status"]
    return found


@both
async def test_a_day_of_workloads_is_the_same_with_either_kind(plane: QuotaPlane, kind: Resource) -> None:
    named = "t" if kind is RESOURCEQUOTAS else "tenantquota/t"
    await plane.pod("before", cpu="1", priority="low")
    made = await limit(plane, kind, {"requests.cpu": "2", "pods": "3"})
    assert made["status"] == {"hard": {"requests.cpu": "2", "pods": "3"}, "used": {"requests.cpu": "1", "pods": "1"}}

    await plane.vmi("machine", cpu="1", priority="low")
    assert (await status(plane, kind))["used"] == {"requests.cpu": "2", "pods": "2"}
    with pytest.raises(
        QuotaExceeded, match=f"exceeded quota: {named}, requested: requests.cpu=1, used: requests.cpu=2"
    ):
        await plane.pod("late", cpu="1", priority="low")

    urgent = await plane.pod("urgent", cpu="1", priority="high")
    assert urgent["spec"]["schedulingGates"] == [{"name": "isoplane.io/quota"}]
    (victim,) = [p for p in (await plane.api.list(PODS, "a")).items if p["metadata"].get("deletionTimestamp")]
    await plane.gone(victim["metadata"]["name"])
    assert not (await plane.api.get(PODS, "urgent", "a"))["spec"].get("schedulingGates")
    assert (await status(plane, kind))["used"] == {"requests.cpu": "2", "pods": "2"}

    waiting = await plane.pod("owned", cpu="1", priority="low", owner="vm")
    assert waiting["spec"].get("schedulingGates")
    await plane.api.patch(kind, "t", "a", {"spec": {"hard": {"requests.cpu": "3"}}}, kind="merge")
    assert not (await plane.api.get(PODS, "owned", "a"))["spec"].get("schedulingGates")
    assert await status(plane, kind) == {
        "hard": {"requests.cpu": "3", "pods": "3"}, "used": {"requests.cpu": "3", "pods": "3"},
    }  # fmt: skip
    await plane.api.patch(kind, "t", "a", {"status": {"used": {"pods": "0"}}}, kind="merge", subresource="status")
    assert (await status(plane, kind))["used"] == {"requests.cpu": "3", "pods": "3"}
    await plane.api.delete(kind, "t", "a")
    await plane.pod("free", cpu="100")


async def test_two_quotas_of_one_name_both_bind(plane: QuotaPlane) -> None:
    await limit(plane, RESOURCEQUOTAS, {"requests.cpu": "5", "pods": "2"})
    await limit(plane, TENANTQUOTAS, {"requests.cpu": "3"})
    await plane.pod("one", cpu="2")
    with pytest.raises(QuotaExceeded, match=r"exceeded quota: tenantquota/t, requested: requests.cpu=2"):
        await plane.pod("two", cpu="2")
    await plane.pod("two", cpu="1")
    with pytest.raises(QuotaExceeded, match=r"exceeded quota: t, requested: pods=1.*exceeded quota: tenantquota/t"):
        await plane.pod("three", cpu="1")
    assert (await status(plane))["used"] == {"requests.cpu": "3"}
    assert (await status(plane, RESOURCEQUOTAS))["used"] == {"requests.cpu": "3", "pods": "2"}
    (usage,) = (await plane.api.list(QUOTAUSAGES, "a")).items
    assert usage["status"]["hard"] == {"configmaps": "10", "pods": "2", "requests.cpu": "3"}
    await plane.api.delete(TENANTQUOTAS, "t", "a")
    assert (await status(plane, RESOURCEQUOTAS))["used"] == {"requests.cpu": "3", "pods": "2"}


async def test_scopes_bind_and_stay(plane: QuotaPlane) -> None:
    await limit(plane, TENANTQUOTAS, {"pods": "1"}, scopes=["Terminating"])
    await plane.pod("long", cpu="1")
    assert (await status(plane))["used"] == {"pods": "0"}
    with pytest.raises(Invalid, match=r"spec\.scopes: .*field is immutable"):
        await plane.api.patch(TENANTQUOTAS, "t", "a", {"spec": {"scopes": []}}, kind="merge")


@pytest.mark.parametrize("name", ["count/pods", "services", "configmaps", "requests.storage", "persistentvolumeclaims"])
async def test_objects_and_storage_are_another_kinds(plane: QuotaPlane, name: str) -> None:
    with pytest.raises(Invalid, match=r"objects and storage are limited by a ResourceQuota") as refused:
        await limit(plane, TENANTQUOTAS, {name: "1", "pods": "1"})
    assert [cause.field for cause in refused.value.causes] == [f"spec.hard[{name}]"]


async def test_quotas_of_both_kinds_are_bounded_together(plane: QuotaPlane) -> None:
    for number in range(49):
        await limit(plane, (RESOURCEQUOTAS, TENANTQUOTAS)[number % 2], {"pods": "9"}, f"t{number}")
    for kind in (RESOURCEQUOTAS, TENANTQUOTAS):
        with pytest.raises(Forbidden, match=f'{kind.qualified} "more" is forbidden: namespace a has 50 quotas'):
            await limit(plane, kind, {"pods": "9"}, "more")


async def test_it_is_counted_as_an_object_itself(plane: QuotaPlane) -> None:
    await limit(plane, RESOURCEQUOTAS, {"count/tenantquotas.isoplane.io": "1"})
    await limit(plane, TENANTQUOTAS, {"pods": "1"})
    with pytest.raises(QuotaExceeded, match=r"count/tenantquotas\.isoplane\.io=1"):
        await limit(plane, TENANTQUOTAS, {"pods": "1"}, "more")
    data = {"metadata": {"name": "c", "namespace": "a"}}
    await plane.api.create(CONFIGMAPS, data)
    assert (await status(plane))["used"] == {"pods": "0"}


def test_it_is_explained_offline() -> None:
    tenant = {
        "metadata": {"name": "t", "namespace": "a"},
        "apiVersion": TENANTQUOTAS.api_version,
        "kind": "TenantQuota",
    }
    policy = {"metadata": {"name": "default", "namespace": "a"}, "apiVersion": QUOTAPOLICIES.api_version, "spec": {}}
    state = [{**tenant, "spec": {"hard": {"requests.cpu": "1"}}}, {**policy, "kind": "QuotaPolicy"}]
    (told,) = answers(state, [pod("big", cpu="2")], 0)
    assert isinstance(told.decision, Deny)
    assert [line.node for line in told.decision.lines] == ["quota/tenantquota/t"]
