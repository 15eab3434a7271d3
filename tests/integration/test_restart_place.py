"""A machine that is stopped only to be started again keeps its quota: nobody comes in between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from isoplane.objects.errors import QuotaExceeded
from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES, VIRTUALMACHINES
from isoplane.objects.metadata import Object, owner_reference
from quota_plane_support import QuotaPlane, quota_plane, vmi

NAME = "count/virtualmachineinstances.kubevirt.io"


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[QuotaPlane]:
    async with quota_plane(tmp_path / "data") as made:
        await made.tenant("a", {"cpu": "2", NAME: "1", "pods": "5"}, evictionThreshold=100)
        await made.priority("low", 10)
        await made.priority("high", 1000)
        yield made


async def owner(plane: QuotaPlane) -> Object:
    template = {"metadata": {}, "spec": vmi("guest")["spec"]}
    spec = {"runStrategy": "Always", "template": template}
    return await plane.api.create(VIRTUALMACHINES, {"metadata": {"name": "guest", "namespace": "a"}, "spec": spec})


async def instance(plane: QuotaPlane, vm: Object, cpu: str = "2", **fields: Any) -> Object:
    obj = vmi("guest", cpu=cpu, **fields)
    obj["metadata"]["ownerReferences"] = [owner_reference(vm)]
    return await plane.api.create(VIRTUALMACHINEINSTANCES, obj)


async def runs(plane: QuotaPlane, obj: Object, phase: str = "Running") -> None:
    status = {**(obj.get("status") or {}), "phase": phase, "nodeName": "n1"}
    await plane.api.patch(VIRTUALMACHINEINSTANCES, "guest", "a", {"status": status}, subresource="status", kind="merge")


async def used(plane: QuotaPlane) -> tuple[str, str, str]:
    found = await plane.used("a")
    return found["cpu"], found["pods"], found[NAME]


async def gated(plane: QuotaPlane, name: str) -> bool:
    return bool((await plane.api.get(PODS, name, "a"))["spec"].get("schedulingGates"))


@pytest.mark.parametrize("ends_first", [False, True], ids=["removed at once", "ended, then removed"])
async def test_nobody_comes_in_between(plane: QuotaPlane, ends_first: bool) -> None:
    vm = await owner(plane)
    first = await instance(plane, vm)
    await runs(plane, first)
    await plane.api.subresource(VIRTUALMACHINES, "guest", "a", "restart", {})
    await plane.api.delete(VIRTUALMACHINEINSTANCES, "guest", "a")
    with pytest.raises(QuotaExceeded):
        await plane.pod("newcomer", cpu="1", priority="low")
    if ends_first:
        await runs(plane, first, "Succeeded")
        with pytest.raises(QuotaExceeded):
            await plane.pod("newcomer", cpu="1", priority="low")
    await plane.gone("guest", resource=VIRTUALMACHINEINSTANCES)
    assert await used(plane) == ("2", "1", "1")
    with pytest.raises(QuotaExceeded):
        await plane.pod("newcomer", cpu="1", priority="low")
    second = await instance(plane, vm)
    assert not (second.get("status") or {}).get("conditions")  # admitted at once
    assert await used(plane) == ("2", "1", "1")
    assert not plane.store.state.rows("quota.places/a")
    await plane.gone("guest", resource=VIRTUALMACHINEINSTANCES)  # the request is still there, as it is for a moment
    plane.now += 121
    await plane.pod("newcomer", cpu="2", priority="low")  # a place that nobody takes over ends by itself
    assert await used(plane) == ("2", "1", "0")


async def test_who_stops_for_good_leaves_its_quota(plane: QuotaPlane) -> None:
    vm = await owner(plane)
    await runs(plane, await instance(plane, vm))
    await plane.api.delete(VIRTUALMACHINEINSTANCES, "guest", "a")
    await plane.gone("guest", resource=VIRTUALMACHINEINSTANCES)
    assert await used(plane) == ("0", "0", "0")
    await plane.pod("newcomer", cpu="2", priority="low")


async def test_a_larger_instance_is_decided_anew(plane: QuotaPlane) -> None:
    vm = await owner(plane)
    await runs(plane, await instance(plane, vm, cpu="1"))
    await plane.api.subresource(VIRTUALMACHINES, "guest", "a", "restart", {})
    await plane.gone("guest", resource=VIRTUALMACHINEINSTANCES)
    await plane.pod("other", cpu="1", priority="low")
    larger = await instance(plane, vm, cpu="2")
    assert larger["status"]["phase"] == "Pending"  # it waits in line: the place is given back
    assert await used(plane) == ("1", "1", "1")


async def test_a_higher_priority_may_still_take_it(plane: QuotaPlane) -> None:
    vm = await owner(plane)
    await runs(plane, await instance(plane, vm, priority="low"))
    await plane.api.subresource(VIRTUALMACHINES, "guest", "a", "restart", {})
    await plane.gone("guest", resource=VIRTUALMACHINEINSTANCES)
    await plane.pod("urgent", cpu="2", priority="high")
    assert not await gated(plane, "urgent")  # nobody had to leave for it
    assert (await instance(plane, vm, priority="low"))["status"]["phase"] == "Pending"
    assert await used(plane) == ("2", "1", "1")
