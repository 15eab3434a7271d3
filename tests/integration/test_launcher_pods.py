"""The Pods shown of machines: read as Pods by clients, unseen by the plane itself, and stopped but never written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from isoplane.http.request_options import Call, DeleteOptions, ListOptions
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError, Conflict, Forbidden, Invalid, NotFound, TooManyRequests
from isoplane.objects.kinds import PODDISRUPTIONBUDGETS, PODS, VIRTUALMACHINEINSTANCES
from isoplane.objects.metadata import Object, condition
from isoplane.server import launcher
from isoplane.server.watching import Step
from isoplane.store.transaction import Change
from isoplane.workload.bodies import without_bodies
from quota_plane_support import QuotaPlane, pod, quota_plane, vmi


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[QuotaPlane]:
    async with quota_plane(tmp_path / "data") as made:
        await made.tenant("a", {"pods": "60", "count/pods": "60"})
        yield made


def names(plane: QuotaPlane, namespace: str | None = "a", **options: Any) -> list[str]:
    return [r.name for r in plane.verbs.list(PODS, namespace, ListOptions(**options), mirrored=True).records]


def shown(plane: QuotaPlane, name: str = "guest") -> Object:
    return plane.verbs.get(PODS, "a", f"virt-launcher-{name}", mirrored=True).object()


async def evict(plane: QuotaPlane, name: str = "guest", **body: Any) -> None:
    await plane.verbs.act(PODS, "a", f"virt-launcher-{name}", "eviction", body, Call())


async def running(plane: QuotaPlane, strategy: str, **fields: Any) -> None:
    """The machine ``guest`` with an evictionStrategy ('' for none), on node n1."""
    obj = vmi("guest", **fields)
    if strategy:
        obj["spec"]["evictionStrategy"] = strategy
    obj = await plane.api.create(VIRTUALMACHINEINSTANCES, obj)
    obj["status"] = {"phase": "Running", "nodeName": "n1"}
    await plane.api.update(VIRTUALMACHINEINSTANCES, obj, subresource="status")


async def test_what_is_shown(plane: QuotaPlane) -> None:
    await plane.quota("a", {"requests.memory": "20Gi"}, "memory")
    made = await plane.vmi("guest", guest="1Gi", owner="vm")
    pod = shown(plane)
    meta, spec = pod["metadata"], pod["spec"]
    assert meta["uid"] not in ("", made["metadata"]["uid"])
    assert meta["ownerReferences"][0]["kind"] == "VirtualMachineInstance"
    assert meta["ownerReferences"][0]["controller"]
    wanted = {
        "kubevirt.io": "virt-launcher",
        "kubevirt.io/created-by": made["metadata"]["uid"],
        "vm.kubevirt.io/name": "guest",
    }
    assert wanted.items() <= meta["labels"].items()
    assert meta["annotations"]["kubevirt.io/domain"] == "guest"
    assert spec["nodeName"] == "n1"
    # What the machine takes of its node and its quota is what the Pod asks for.
    charged = (await plane.used("a", "memory"))["requests.memory"]
    assert spec["containers"][0]["resources"]["requests"]["memory"] == charged
    assert pod["status"]["phase"] == "Running"
    made["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    made["status"]["interfaces"] = [
        {"name": "default", "ipAddress": "10.0.0.9", "ipAddresses": ["10.0.0.9", "fd00::9"]}
    ]
    made["status"].update((await plane.api.get(VIRTUALMACHINEINSTANCES, "guest", "a"))["status"] | made["status"])
    made["metadata"].pop("resourceVersion")
    await plane.api.update(VIRTUALMACHINEINSTANCES, made, subresource="status")
    pod = shown(plane)
    assert (condition(pod, "Ready") or {})["status"] == "True"
    assert (pod["status"]["podIP"], [one["ip"] for one in pod["status"]["podIPs"]]) == (
        "10.0.0.9",
        ["10.0.0.9", "fd00::9"],
    )
    assert all(c["ready"] for c in pod["status"]["containerStatuses"])


async def test_lists_select_and_page_as_over_one_resource(plane: QuotaPlane) -> None:
    await plane.pod("web")
    await plane.vmi("waits", run=False)
    for name in ("one", "two"):
        await plane.vmi(name)
    everything = ["virt-launcher-one", "virt-launcher-two", "web"]
    assert names(plane) == names(plane, None) == everything  # a machine without a node shows none
    assert names(plane, None, field_selector="spec.nodeName=n1") == everything
    assert names(plane, None, field_selector="spec.nodeName!=n1") == []
    assert names(plane, field_selector="metadata.name=virt-launcher-two") == ["virt-launcher-two"]
    assert names(plane, field_selector="metadata.name=two") == []
    assert names(plane, label_selector="kubevirt.io=virt-launcher") == everything[:2]
    assert names(plane, field_selector="status.phase=Running") == everything[:2]
    page = plane.verbs.list(PODS, "a", ListOptions(limit=2), mirrored=True)
    assert [r.name for r in page.records] == everything[:2]
    await plane.gone("two", resource=VIRTUALMACHINEINSTANCES)
    rest = plane.verbs.list(PODS, "a", ListOptions(limit=2, continue_token=page.continue_token), mirrored=True)
    assert [r.name for r in rest.records] == ["web"]
    first = plane.verbs.list(PODS, "a", ListOptions(limit=1), mirrored=True)
    await plane.gone("one", resource=VIRTUALMACHINEINSTANCES)
    rest = plane.verbs.list(PODS, "a", ListOptions(continue_token=first.continue_token), mirrored=True)
    assert [r.name for r in rest.records] == ["web"]  # as of the page before, which still had `one`


async def test_the_plane_itself_sees_what_is_stored(plane: QuotaPlane) -> None:
    await plane.vmi("guest")
    used = await plane.used("a")
    assert (used["pods"], used["count/pods"]) == ("1", "0")
    assert not (await plane.api.list(PODS)).items
    with pytest.raises(NotFound):
        await plane.api.get(PODS, "virt-launcher-guest", "a")
    assert not list(plane.store.state.list(PODS))


async def collect(plane: QuotaPlane, seen: list[tuple[str, str, int]], **options: Any) -> None:
    steps = plane.verbs.watch(PODS, "a", ListOptions(**options), mirrored=True)
    group: Sequence[Step]
    async for group in steps:
        seen += [(step.type, step.record.name, step.revision) for step in group if isinstance(step, Change)]


async def until(seen: list[tuple[str, str, int]], count: int) -> None:
    deadline = time.monotonic() + 10
    while len(seen) < count and time.monotonic() < deadline:
        await asyncio.sleep(0.01)


async def test_watches_follow_both_in_one_order_and_resume(plane: QuotaPlane) -> None:
    start = str(plane.store.revision)
    live: list[tuple[str, str, int]] = []
    selected: list[tuple[str, str, int]] = []
    tasks = [asyncio.ensure_future(collect(plane, live))]
    tasks.append(asyncio.ensure_future(collect(plane, selected, field_selector="spec.nodeName=n1")))
    await asyncio.sleep(0.05)
    try:
        await plane.vmi("guest")
        await plane.pod("web")
        await plane.api.patch(VIRTUALMACHINEINSTANCES, "guest", "a", {"metadata": {"labels": {"x": "y"}}}, kind="merge")
        await plane.gone("guest", resource=VIRTUALMACHINEINSTANCES)
        wanted = [
            ("ADDED", "virt-launcher-guest"),
            ("ADDED", "web"),
            ("MODIFIED", "web"),
            ("MODIFIED", "virt-launcher-guest"),
            ("DELETED", "virt-launcher-guest"),
        ]
        await until(live, len(wanted))
        assert [one[:2] for one in live] == wanted
        await until(selected, 4)
        assert [one[:2] for one in selected] == [wanted[0], ("ADDED", "web"), *wanted[3:]]
        revisions = [revision for _, _, revision in live]
        assert revisions == sorted(revisions)
        again: list[tuple[str, str, int]] = []
        tasks.append(asyncio.ensure_future(collect(plane, again, resource_version=start)))
        await until(again, len(wanted))
        assert again == live
        middle: list[tuple[str, str, int]] = []
        tasks.append(asyncio.ensure_future(collect(plane, middle, resource_version=str(revisions[2]))))
        await until(middle, 2)
        assert middle == live[3:]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert plane.store.watches == 0


async def test_writes_are_refused_in_a_sentence(plane: QuotaPlane) -> None:
    await plane.vmi("guest")
    name, pod = "virt-launcher-guest", shown(plane)
    verbs, call = plane.verbs, Call()
    body = {"metadata": {"labels": {"x": "y"}}}
    target = {"target": {"kind": "Node", "name": "n2"}}
    for write in (
        verbs.update(PODS, "a", name, pod, call),
        verbs.update(PODS, "a", name, pod, call, "status"),
        verbs.patch(PODS, "a", name, body, "strategic", call),
        verbs.patch(PODS, "a", name, {**pod, **body}, "apply", call),
        verbs.act(PODS, "a", name, "binding", target, call),
        verbs.create(PODS, "a", {**pod, "metadata": {"name": name}}, call),
    ):
        with pytest.raises(Forbidden, match="it is shown for the virtual machine guest and cannot be written"):
            await write
    with pytest.raises(Invalid, match="are kept for the Pods that are shown for virtual machines"):
        await plane.pod("virt-launcher-other")
    with pytest.raises(NotFound):
        await plane.verbs.act(PODS, "a", "virt-launcher-other", "eviction", {}, call)
    assert not list(plane.store.state.list(PODS))


async def test_deleting_it_stops_the_machine(plane: QuotaPlane) -> None:
    made = await plane.vmi("guest")
    name = "virt-launcher-guest"
    with pytest.raises(Conflict, match="UID in precondition"):
        await plane.verbs.delete(PODS, "a", name, DeleteOptions(uid=made["metadata"]["uid"]), Call())
    deleted = await plane.verbs.delete(
        PODS, "a", name, DeleteOptions(grace_seconds=7, uid=shown(plane)["metadata"]["uid"]), Call()
    )
    assert (deleted.record.name, deleted.removed) == (name, False)
    machine = await plane.api.get(VIRTUALMACHINEINSTANCES, "guest", "a")
    assert machine["metadata"]["deletionGracePeriodSeconds"] == 7
    assert shown(plane)["metadata"]["deletionTimestamp"] == machine["metadata"]["deletionTimestamp"]
    await plane.pod("web")
    gone = await plane.verbs.delete_collection(PODS, "a", ListOptions(), DeleteOptions(grace_seconds=0), Call())
    assert [record.name for record in gone.records] == [name, "web"]
    assert names(plane) == []


@pytest.mark.parametrize("value", ["", "None", "LiveMigrateIfPossible"])
async def test_eviction_stops_a_machine_gracefully(plane: QuotaPlane, value: str) -> None:
    await running(plane, value, grace=90)
    await plane.verbs.act(PODS, "a", "virt-launcher-guest", "eviction", {"dryRun": ["All"]}, Call())
    assert not shown(plane)["metadata"].get("deletionTimestamp")
    with pytest.raises(ApiError, match="name in URL"):
        await evict(plane, metadata={"name": "guest"})
    await evict(plane, metadata={"name": "virt-launcher-guest"})
    machine = await plane.api.get(VIRTUALMACHINEINSTANCES, "guest", "a")
    assert machine["metadata"]["deletionGracePeriodSeconds"] == 90
    assert (condition(machine, "DisruptionTarget") or {})["reason"] == "EvictionByEvictionAPI"
    assert (condition(shown(plane), "DisruptionTarget") or {})["status"] == "True"


async def test_eviction_strategies_that_refuse(plane: QuotaPlane) -> None:
    await running(plane, "LiveMigrate")
    with pytest.raises(TooManyRequests) as refused:
        await evict(plane)
    assert refused.value.message == "VMI guest is configured with an eviction strategy but is not live-migratable"
    await plane.gone("guest", resource=VIRTUALMACHINEINSTANCES)
    await running(plane, "External")
    with pytest.raises(TooManyRequests) as refused:
        await evict(plane, dryRun=["All"])
    assert refused.value.message == 'Eviction triggered evacuation of VMI "a/guest"'
    assert "evacuationNodeName" not in (await plane.api.get(VIRTUALMACHINEINSTANCES, "guest", "a"))["status"]
    with pytest.raises(TooManyRequests):
        await evict(plane)
    machine = await plane.api.get(VIRTUALMACHINEINSTANCES, "guest", "a")
    assert machine["status"]["evacuationNodeName"] == "n1"  # whoever evacuates it reads this
    assert not machine["metadata"].get("deletionTimestamp")
    with pytest.raises(TooManyRequests) as refused:
        await evict(plane)
    assert refused.value.message == 'Evacuation in progress: Eviction triggered evacuation of VMI "a/guest"'
    machine["status"]["phase"] = "Succeeded"
    await plane.api.update(VIRTUALMACHINEINSTANCES, machine, subresource="status")
    await evict(plane)  # an ended machine is nobody's to evacuate
    with pytest.raises(NotFound):
        shown(plane)


async def test_a_budget_over_machines_holds(plane: QuotaPlane) -> None:
    made = await plane.vmi("guest")
    made["status"] = {**made["status"], "conditions": [{"type": "Ready", "status": "True"}]}
    await plane.api.update(VIRTUALMACHINEINSTANCES, made, subresource="status")
    await plane.api.patch(VIRTUALMACHINEINSTANCES, "guest", "a", {"metadata": {"labels": {"app": "db"}}}, kind="merge")
    spec = {"selector": {"matchLabels": {"app": "db"}}, "minAvailable": 1}
    budget = await plane.api.create(PODDISRUPTIONBUDGETS, {"metadata": {"name": "b", "namespace": "a"}, "spec": spec})
    counted = {"observedGeneration": 1, "expectedPods": 1, "currentHealthy": 1, "desiredHealthy": 1}
    budget["status"] = {**counted, "disruptionsAllowed": 0}
    await plane.api.update(PODDISRUPTIONBUDGETS, budget, subresource="status")
    with pytest.raises(TooManyRequests, match="disruption budget"):
        await evict(plane)


async def test_reading_pods_costs_nothing_for_machines_without_any(
    plane: QuotaPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    plane_get = type(plane.store.state).get

    def get(self: Any, resource: Any, namespace: str, name: str) -> Any:
        made.append(resource.plural)
        return plane_get(self, resource, namespace, name)

    await plane.pod("web")
    for number in range(3):
        await plane.vmi(f"vm-{number}")
    monkeypatch.setattr(type(plane.store.state), "get", get)
    plane.verbs.get(PODS, "a", "web", mirrored=True)
    assert made == ["pods"]  # a stored Pod is found with one look
    launcher.launcher_pod.cache_clear()
    names(plane)
    names(plane)
    assert launcher.launcher_pod.cache_info().misses == 3  # each state of a machine is made a Pod once


async def test_a_pod_that_names_a_machine_as_its_owner_is_a_pod_like_any_other(plane: QuotaPlane) -> None:
    """Here nobody but the plane shows bodies of machines: such a Pod is charged, seen by policies, and told by every tool."""
    machine = await plane.vmi("guest")
    before = int((await plane.used("a"))["pods"])
    uid = machine["metadata"]["uid"]
    owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "guest", "uid": uid}
    forged = pod("forged", "a")
    forged["metadata"]["labels"] = {"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": uid}
    forged["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
    made = await plane.api.create(PODS, forged)
    assert int((await plane.used("a"))["pods"]) == before + 1
    listed = [r.object() for r in plane.verbs.list(PODS, "a", ListOptions(), mirrored=True).records]
    known = without_bodies([*listed, machine])
    assert made["metadata"]["name"] in {metadata.name(one) for one in known}
    assert [one for one in known if metadata.name(one).startswith("virt-launcher-")] == [], "that one is the machine's"
