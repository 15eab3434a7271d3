"""Quota against people who try: to steal what victims free, to slip past a gate, to pull the rug away under a wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from isoplane.objects.errors import ApiError, Conflict, Forbidden, Invalid, QuotaExceeded
from isoplane.objects.kinds import (
    NAMESPACES,
    PODDISRUPTIONBUDGETS,
    PODS,
    PRIORITYCLASSES,
    QUOTAPOLICIES,
    RESOURCEQUOTAS,
    VIRTUALMACHINEINSTANCES,
)
from isoplane.objects.metadata import Object
from isoplane.quota.release import RETRY_ANNOTATION
from isoplane.server.quota_admission import repair, rows
from quota_plane_support import QuotaPlane, condition, pod, quota_plane, vmi


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[QuotaPlane]:
    async with quota_plane(tmp_path / "data") as made:
        for name, value in (("critical", 1000), ("normal", 100), ("batch", 10)):
            await made.priority(name, value)
        yield made


def gated(obj: Object) -> bool:
    return bool(obj["spec"].get("schedulingGates"))


async def get(plane: QuotaPlane, name: str) -> Object:
    return await plane.api.get(PODS, name, "a")


async def test_nobody_steals_what_victims_free(plane: QuotaPlane) -> None:
    """Four victims go one after the other; at each step everything is tried that a tenant may do; then the holder starts."""
    await plane.tenant("a", {"requests.cpu": "5", "pods": "50"}, evictionThreshold=500)
    for number in range(4):
        await plane.pod(f"low{number}", priority="batch")
    await plane.pod("grows", priority="normal")
    waits = await plane.pod("patient", priority="normal", owner="rs")
    assert gated(waits)
    holder = await plane.vmi("db", cpu="4", priority="critical")
    assert condition(holder, "QuotaAdmitted")["status"] == "False"
    for number in range(4):
        await plane.gone(f"low{number}")
        if number == 3:
            break
        for priority in ("", "batch", "normal"):
            with pytest.raises(QuotaExceeded, match="held for others"):
                await plane.pod(f"thief{number}{priority}", priority=priority)
            with pytest.raises(QuotaExceeded):
                await plane.vmi(f"thief{number}{priority}", priority=priority)
        # The same class as the holder evicts nobody of it and takes no part of its hold.
        with pytest.raises(QuotaExceeded):
            await plane.pod("equal", cpu="4", priority="critical")
        late = await plane.pod(f"owned{number}", priority="normal", owner="rs")
        assert gated(late)
        again = {"metadata": {"annotations": {RETRY_ANNOTATION: str(number)}}}
        assert gated(await plane.api.patch(PODS, "patient", "a", again))
        without = await get(plane, "patient")
        without["spec"].pop("schedulingGates")
        assert gated(await plane.api.update(PODS, without))
        with pytest.raises(Conflict, match="schedulingGates"):
            await plane.api.subresource(PODS, "patient", "a", "binding", {"target": {"name": "n1"}})
        more = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}}
        with pytest.raises(QuotaExceeded, match="held for others"):
            await plane.api.patch(PODS, "grows", "a", more, kind="strategic", subresource="resize")
    machine = await plane.api.get(VIRTUALMACHINEINSTANCES, "db", "a")
    assert condition(machine, "QuotaAdmitted")["status"] == "True"
    assert (await plane.used("a"))["requests.cpu"] == "5"
    assert gated(await get(plane, "patient"))
    assert await repair(plane.store, plane.plugin, lambda: plane.now) == []


async def test_a_preemptor_that_changes_its_mind_gives_its_hold_back_and_its_victims_go_on_leaving(
    plane: QuotaPlane,
) -> None:
    """A deletion cannot be taken back, as in Kubernetes; but what comes free is everybody's."""
    await plane.tenant("a", {"requests.cpu": "4"}, evictionThreshold=500)
    await plane.pod("low", cpu="4", priority="batch")
    await plane.pod("db", cpu="4", priority="critical")
    waits = await plane.pod("patient", cpu="4", priority="batch", owner="rs")
    await plane.api.delete(PODS, "db", "a")
    assert (await get(plane, "low"))["metadata"]["deletionTimestamp"]
    assert plane.accounts().totals("a", "q").held.get("requests.cpu", 0) == 0
    await plane.gone("low")
    assert gated(waits)
    assert not gated(await get(plane, "patient"))


async def test_a_limit_lowered_under_a_hold_admits_nobody_until_it_is_raised(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"requests.cpu": "4"}, evictionThreshold=500)
    await plane.pod("stays", cpu="1", priority="critical")
    await plane.pod("low", cpu="3", priority="batch")
    await plane.pod("db", cpu="3", priority="critical")
    await plane.api.patch(RESOURCEQUOTAS, "q", "a", {"spec": {"hard": {"requests.cpu": "2"}}})
    await plane.gone("low")
    assert gated(await get(plane, "db"))
    assert not (await get(plane, "stays"))["metadata"].get("deletionTimestamp")
    with pytest.raises(QuotaExceeded):
        await plane.pod("small", cpu="500m", priority="normal")
    await plane.api.patch(RESOURCEQUOTAS, "q", "a", {"spec": {"hard": {"requests.cpu": "4"}}})
    assert not gated(await get(plane, "db"))
    assert await plane.used("a") == {"requests.cpu": "4"}


async def test_a_class_that_is_made_anew_changes_nobody_who_is_there(plane: QuotaPlane) -> None:
    """The integer is recorded when a workload is created; a class of the same name with another value counts for new ones."""
    await plane.tenant("a", {"requests.cpu": "2"}, evictionThreshold=500)
    await plane.pod("low", cpu="2", priority="batch")
    await plane.api.delete(PRIORITYCLASSES, "batch", "")
    with pytest.raises(Forbidden, match="no PriorityClass with name batch"):
        await plane.pod("new", priority="batch")
    await plane.priority("batch", 5000)
    db = await plane.pod("db", cpu="2", priority="critical")
    assert gated(db)
    assert (await get(plane, "low"))["metadata"]["deletionTimestamp"]


async def test_a_namespace_that_is_deleted_in_the_middle_of_a_preemption_leaves_nothing(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"requests.cpu": "4", "pods": "9"}, evictionThreshold=500)
    await plane.tenant("b", {"requests.cpu": "4", "pods": "9"})
    for name in ("low1", "low2"):
        await plane.pod(name, cpu="2", priority="batch")
    await plane.vmi("db", cpu="4", priority="critical")
    await plane.pod("patient", owner="rs")
    await plane.pod("bystander", "b")
    await plane.api.delete(NAMESPACES, "a")
    with pytest.raises(Forbidden, match="being terminated"):
        await plane.pod("late", cpu="0")
    # In the order in which the namespace controller may come across them: the quota first is the worst.
    await plane.api.delete(RESOURCEQUOTAS, "q", "a")
    await plane.api.delete(QUOTAPOLICIES, "default", "a")
    assert gated(await get(plane, "patient")), "nobody begins to run in a namespace that goes"
    for resource in (PODS, VIRTUALMACHINEINSTANCES):
        for obj in (await plane.api.list(resource, "a")).items:
            await plane.gone(obj["metadata"]["name"], resource=resource)
    await plane.api.update(NAMESPACES, await terminated(plane), subresource="finalize")
    for table in (rows.CONFIG, rows.BOOK):
        assert set(plane.store.state.rows(table)) == {"b"}
    assert not plane.store.state.rows(rows.charges_table("a"))
    assert not plane.store.state.rows(rows.waiting_table("a"))
    assert await repair(plane.store, plane.plugin, lambda: plane.now) == []


async def terminated(plane: QuotaPlane) -> Object:
    namespace = await plane.api.get(NAMESPACES, "a")
    namespace["spec"] = {"finalizers": []}
    return namespace


async def test_generated_names_are_charged_gated_and_told_like_others(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"pods": "2"}, evictionThreshold=500)

    async def generate(make: Any, resource: Any, **fields: Any) -> Object:
        obj = make("unused", **fields)
        obj["metadata"].pop("name")
        obj["metadata"]["generateName"] = "gen-"
        return await plane.api.create(resource, obj)

    names = {(await generate(pod, PODS, priority="batch"))["metadata"]["name"] for _ in range(2)}
    assert {c.id for c in plane.accounts().charges("a")} == {f"pod/a/{name}" for name in names}
    machine = await generate(vmi, VIRTUALMACHINEINSTANCES, priority="critical")
    # Its victims had no node to stop on: they are gone and it is in.
    assert condition(machine, "QuotaAdmitted").get("status") != "False"
    assert await plane.used("a") == {"pods": "2"}


async def test_what_is_not_served_is_counted_as_nothing(plane: QuotaPlane) -> None:
    """Volumes claims and services are no kinds of this server: a quota on them is kept, and full at what there is: nothing."""
    hard = {"persistentvolumeclaims": "3", "requests.storage": "10Gi", "services": "0", "count/jobs.batch": "1"}
    fast = {"fast.storageclass.storage.k8s.io/requests.storage": "1Gi", "requests.ephemeral-storage": "1Gi"}
    await plane.tenant("a", {**hard, **fast})
    assert set((await plane.used("a")).values()) == {"0"}
    scratch = pod("scratch")
    scratch["spec"]["containers"][0]["resources"]["requests"]["ephemeral-storage"] = "600Mi"
    await plane.api.create(PODS, scratch)
    assert (await plane.used("a"))["requests.ephemeral-storage"] == "600Mi"
    scratch["metadata"] = {"name": "more", "namespace": "a"}
    with pytest.raises(QuotaExceeded, match=r"requested: requests.ephemeral-storage=600Mi, used"):
        await plane.api.create(PODS, scratch)


@pytest.mark.parametrize(
    ("scopes", "pods"),
    [
        (["BestEffort"], {"idle"}),
        (["NotBestEffort"], {"busy", "short", "near"}),
        (["Terminating"], {"short"}),
        (["NotTerminating"], {"idle", "busy", "near"}),
        (["NotTerminating", "NotBestEffort"], {"busy", "near"}),
        (["CrossNamespacePodAffinity"], {"near"}),
    ],
)
async def test_every_scope_counts_its_own(plane: QuotaPlane, scopes: list[str], pods: set[str]) -> None:
    await plane.api.create(NAMESPACES, {"metadata": {"name": "a"}})
    await plane.quota("a", {"pods": "9"}, scopes=scopes)
    idle = pod("idle")
    idle["spec"]["containers"][0]["resources"] = {}
    short = pod("short")
    short["spec"]["activeDeadlineSeconds"] = 60
    near = pod("near")
    term = {"labelSelector": {}, "namespaceSelector": {}, "topologyKey": "kubernetes.io/hostname"}
    near["spec"]["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    for obj in (idle, pod("busy"), short, near):
        await plane.api.create(PODS, obj)
    assert await plane.used("a") == {"pods": str(len(pods))}


async def test_a_plan_spends_the_budgets_that_it_disrupts(plane: QuotaPlane) -> None:
    """The next plan, in the same moment, sees what is left; and where nobody else can leave a budget holds nobody back."""
    await plane.tenant("a", {"requests.cpu": "3"}, evictionThreshold=0)
    for name, label, priority in (("twin1", "twin", "batch"), ("twin2", "twin", "batch"), ("other", "other", "normal")):
        obj = pod(name, priority=priority)
        obj["metadata"]["labels"] = {"app": label}
        await plane.api.create(PODS, obj)
        await plane.api.subresource(PODS, name, "a", "binding", {"target": {"name": "n1"}})
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "twin"}}}
    budget = await plane.api.create(PODDISRUPTIONBUDGETS, {"metadata": {"name": "pdb", "namespace": "a"}, "spec": spec})
    budget["status"] = {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}
    await plane.api.update(PODDISRUPTIONBUDGETS, budget, subresource="status")
    left = []
    for number in range(3):
        message = condition(await plane.pod(f"db{number}", priority="critical"), "PodScheduled")["message"]
        left.append(message.split()[2])
        if number == 0:
            status = (await plane.api.get(PODDISRUPTIONBUDGETS, "pdb", "a"))["status"]
            assert status["disruptionsAllowed"] == 0
            assert set(status["disruptedPods"]) == {left[0].rpartition("/")[2]}
    assert left[0].startswith("pod/a/twin")
    assert left[1] == "pod/a/other"
    assert left[2].startswith("pod/a/twin")


async def test_forged_words_change_no_charge(plane: QuotaPlane) -> None:
    """Whatever a tenant writes into statuses and annotations, the books stay what the specs add up to."""
    await plane.tenant("a", {"requests.cpu": "2", "pods": "5"})
    await plane.pod("web", cpu="2")
    await plane.api.patch(RESOURCEQUOTAS, "q", "a", {"status": {"used": {"requests.cpu": "0"}}}, subresource="status")
    assert (await plane.used("a"))["requests.cpu"] == "2"
    with pytest.raises(Invalid, match="computed from the PriorityClass"):
        await plane.api.patch(PODS, "web", "a", {"metadata": {"annotations": {"isoplane.io/priority": "99999"}}})
    notes = {RETRY_ANNOTATION: "1", "isoplane.io/transitions": "{}"}
    await plane.api.patch(PODS, "web", "a", {"metadata": {"annotations": notes}})
    forged = pod("forged")
    forged["metadata"]["annotations"] = {"isoplane.io/priority": "99999"}
    forged["spec"]["schedulingGates"] = [{"name": "isoplane.io/quota"}]
    forged["status"] = {"phase": "Succeeded"}
    with pytest.raises(ApiError):
        await plane.api.create(PODS, forged)
    machine = vmi("vm")
    machine["status"] = {"phase": "Succeeded", "conditions": [{"type": "QuotaAdmitted", "status": "True"}]}
    with pytest.raises(QuotaExceeded):
        await plane.api.create(VIRTUALMACHINEINSTANCES, machine)
    assert (await plane.used("a"))["requests.cpu"] == "2"
    (charge,) = plane.accounts().charges("a")
    assert charge.priority == 0
    assert await repair(plane.store, plane.plugin, lambda: plane.now) == []


@pytest.mark.parametrize("machine", [False, True])
async def test_who_ends_while_waiting_holds_nothing_up(plane: QuotaPlane, machine: bool) -> None:
    """A Gated workload that somebody marks as failed leaves the line with its hold; alive again it stands at its end."""
    resource = VIRTUALMACHINEINSTANCES if machine else PODS
    await plane.tenant("a", {"requests.cpu": "4", "pods": "9"}, evictionThreshold=500)
    await plane.pod("low", cpu="4", priority="batch")
    await (plane.vmi if machine else plane.pod)("db", cpu="4", priority="critical")

    async def mark(phase: str) -> Object:
        obj = await plane.api.get(resource, "db", "a")
        obj["status"]["phase"] = phase
        return await plane.api.update(resource, obj, subresource="status")

    await mark("Failed")
    assert list(plane.accounts().waiting("a")) == []
    assert plane.accounts().totals("a", "q").held.get("requests.cpu", 0) == 0
    await plane.gone("low")
    await plane.pod("other", cpu="4", priority="batch")
    await mark("Running")
    assert [(w.charge.id.rpartition("/")[2], w.held) for w in plane.accounts().waiting("a")] == [("db", False)]
    assert await plane.used("a") == {"requests.cpu": "4", "pods": "1"}
    assert await repair(plane.store, plane.plugin, lambda: plane.now) == []
    await plane.gone("other")
    assert list(plane.accounts().waiting("a")) == []
    assert await plane.used("a") == {"requests.cpu": "4", "pods": "1"}


async def test_who_grows_while_waiting_is_charged_what_it_grew_to(plane: QuotaPlane) -> None:
    """Small in line and large when its turn comes would be a way past the quota."""
    await plane.tenant("a", {"requests.cpu": "4"}, evictionThreshold=500)
    await plane.pod("low", cpu="4", priority="batch")
    await plane.pod("db", cpu="2", priority="critical")

    async def resize(name: str, cpu: str) -> None:
        patch = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}
        await plane.api.patch(PODS, name, "a", patch, kind="strategic", subresource="resize")

    await resize("db", "1")
    (place,) = plane.accounts().waiting("a")
    assert place.held
    assert plane.accounts().totals("a", "q").held == {"requests.cpu": 1000}
    await resize("db", "3")
    assert plane.accounts().totals("a", "q").held.get("requests.cpu") in (0, 3000)
    await plane.gone("low")
    assert await plane.used("a") == {"requests.cpu": "3"}
    await plane.pod("patient", cpu="2", owner="rs")
    await resize("patient", "9")
    await plane.gone("db")
    assert gated(await get(plane, "patient"))
    assert await plane.used("a") == {"requests.cpu": "0"}
    await resize("patient", "4")
    assert not gated(await get(plane, "patient"))
    assert await plane.used("a") == {"requests.cpu": "4"}
