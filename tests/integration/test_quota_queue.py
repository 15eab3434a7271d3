"""Who may wait, and for how long somebody is waited for: counts of objects, forged owners, maxPending, graces, the stuck."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from isoplane.http.request_options import Call
from isoplane.http.user import User
from isoplane.objects.errors import Forbidden, Invalid, QuotaExceeded
from isoplane.objects.kinds import COHORTS, EVENTS, PODS, QUOTAPOLICIES, WORKLOADS
from isoplane.plane import project_workload
from isoplane.quota.decide import decide
from isoplane.quota.explain import text
from isoplane.quota.model import Ask, Deny
from isoplane.server.quota_admission import repair
from isoplane.server.quota_admission.accounts import Lines
from isoplane.server.quota_admission.plugin import MAX_QUOTAS
from isoplane.server.quota_admission.queue import Queue
from quota_plane_support import QuotaPlane, condition, pod, quota_plane

REASON = [column.name for column in WORKLOADS.printer.columns].index("Reason")


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[QuotaPlane]:
    async with quota_plane(tmp_path) as made:
        for name, value in (("low", 1), ("high", 1000)):
            await made.priority(name, value)
        yield made


def gated(obj: dict[str, Any]) -> bool:
    return bool(obj["spec"].get("schedulingGates"))


async def test_a_number_of_objects_counts_what_is_stored_and_nobody_leaves_for_it(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"count/pods": "2", "cpu": "1"}, evictionThreshold=0)
    await plane.pod("runs", priority="low")
    assert gated(await plane.pod("waits", owner="vm"))
    assert await plane.used("a") == {"count/pods": "2", "cpu": "1"}
    with pytest.raises(QuotaExceeded, match="exceeded quota: q, requested: count/pods=1, used: count/pods=2"):
        await plane.pod("third", owner="vm")
    with pytest.raises(QuotaExceeded, match="count/pods"):
        await plane.pod("critical", priority="high")
    assert not (await plane.api.get(PODS, "runs", "a"))["metadata"].get("deletionTimestamp")
    await plane.gone("waits")
    assert (await plane.used("a"))["count/pods"] == "1"
    assert await repair(plane.store, plane.plugin) == []


async def test_who_waits_and_is_told_to_go_counts_until_it_is_gone(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"count/pods": "2", "cpu": "1"})
    await plane.pod("runs")
    waits = await plane.pod("waits", owner="vm")
    waits["metadata"]["finalizers"] = ["example.com/slow"]
    await plane.api.update(PODS, waits)
    await plane.api.delete(PODS, "waits", "a")
    assert await plane.used("a") == {"count/pods": "2", "cpu": "1"}
    assert await repair(plane.store, plane.plugin) == []
    await plane.api.patch(PODS, "waits", "a", {"metadata": {"finalizers": None}})
    assert await plane.used("a") == {"count/pods": "1", "cpu": "1"}


@pytest.mark.parametrize(
    "owner",
    [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "nosuch", "uid": "0000"},
        {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "nosuch", "uid": "0000"},
        {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "vm", "uid": "another"},
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "settings", "uid": "settings"},
    ],
)
async def test_an_owner_that_makes_no_workloads_lets_nobody_wait(plane: QuotaPlane, owner: dict[str, Any]) -> None:
    await plane.tenant("a", {"cpu": "1"})
    await plane.maker("a", "vm")
    obj = pod("p", "a", cpu="2")
    obj["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
    with pytest.raises(QuotaExceeded, match="exceeded quota"):
        await plane.api.create(PODS, obj)


async def test_no_more_wait_than_may_wait(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"cpu": "1"}, maxPending=1)
    await plane.pod("runs")
    assert gated(await plane.pod("first", owner="vm"))
    with pytest.raises(QuotaExceeded, match="exceeded quota: pending workloads"):
        await plane.pod("second", owner="vm")
    await plane.gone("runs")
    assert not gated(await plane.api.get(PODS, "first", "a"))
    assert gated(await plane.pod("second", owner="vm"))


async def test_a_policy_says_how_many_may_wait_in_numbers(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"cpu": "1"})
    for value in (-1, "many"):
        with pytest.raises(Invalid, match="maxPending"):
            spec = {"maxPending": value}
            await plane.api.create(QUOTAPOLICIES, {"metadata": {"name": "default", "namespace": "a"}, "spec": spec})


async def test_what_can_never_fit_says_so_whoever_made_it(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"requests.memory": "256Mi", "cpu": "1"})
    big = await plane.vmi("big", owner="vm", run=False)
    told = condition(big, "QuotaAdmitted")
    assert told["status"] == "False"
    assert "it can never fit: requests.memory=" in told["message"]
    assert "memory 332Mi: guest 64Mi + overhead 268Mi" in told["message"], "what it consists of"
    waits = await plane.pod("big", owner="vm", cpu="2", memory="1Mi")
    assert "it can never fit: cpu=2 is more than the limit itself" in condition(waits, "PodScheduled")["message"]


async def test_a_victim_of_another_tenant_has_a_cap_on_its_grace(plane: QuotaPlane) -> None:
    await plane.node(cpu="2")
    await plane.cohort()
    await plane.api.patch(COHORTS, "default", "", {"spec": {"maxGraceSeconds": 60}})
    for tenant in ("a", "b"):
        await plane.tenant(tenant, {"cpu": "9"}, cohort="default", guaranteed={"cpu": "1"}, evictionThreshold=0)
    await plane.pod("keeps", "b", grace=86_400)
    await plane.pod("borrows", "b", grace=86_400)
    assert gated(await plane.pod("mine", "a"))
    leaving = [o for o in (await plane.api.list(PODS, "b")).items if o["metadata"].get("deletionTimestamp")]
    assert [o["metadata"]["deletionGracePeriodSeconds"] for o in leaving] == [60]
    assert gated(await plane.pod("own", "b", priority="high", owner="vm", cpu="1")), "its own tenant's keep their own"


async def test_a_victim_that_never_leaves_is_reported_and_nobody_counts_on_it(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"cpu": "2"}, evictionThreshold=0)
    await plane.pod("stays", priority="low")
    await plane.pod("other", priority="low")
    await plane.api.patch(PODS, "stays", "a", {"metadata": {"finalizers": ["example.com/never"]}})
    await plane.api.patch(PODS, "other", "a", {"metadata": {"finalizers": ["example.com/never"]}})
    assert gated(await plane.pod("high", priority="high"))
    (victim,) = [o for o in (await plane.api.list(PODS, "a")).items if o["metadata"].get("deletionTimestamp")]
    name = victim["metadata"]["name"]
    plane.now += 30 + 121
    await plane.api.patch(PODS, "high", "a", {"metadata": {"annotations": {"isoplane.io/quota-retry": "1"}}})
    charges = {c.id: c for c in plane.accounts().charges("a")}
    assert charges[f"pod/a/{name}"].stuck
    assert plane.accounts().whole("a").evicting.get("cpu", 0) <= 1000, "only the new victim is counted on"
    told = [
        e["involvedObject"]["name"]
        for e in (await plane.api.list(EVENTS, "a")).items
        if e["reason"] == "PreemptionStuck"
    ]
    assert told == [name]
    leaving = [o for o in (await plane.api.list(PODS, "a")).items if o["metadata"].get("deletionTimestamp")]
    assert len(leaving) == 2, "another victim is asked instead"
    assert await repair(plane.store, plane.plugin) == []


async def test_only_the_node_ends_what_quota_counts(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"cpu": "1"})
    made = await plane.pod("p")
    ended = {**made, "status": {**(made.get("status") or {}), "phase": "Succeeded"}}
    call = Call(user=User("jane", ("system:authenticated",)))
    with pytest.raises(Forbidden, match="only the node that runs it says that it has ended"):
        await plane.verbs.update(PODS, "a", "p", ended, call, subresource="status")
    assert await plane.used("a") == {"cpu": "1"}
    await plane.api.update(PODS, ended, subresource="status")
    assert await plane.used("a") == {"cpu": "0"}


async def test_explain_counts_other_tenants_workloads_and_names_none(plane: QuotaPlane) -> None:
    await plane.node(cpu="2")
    await plane.cohort()
    for tenant in ("a", "b"):
        await plane.tenant(tenant, {"cpu": "9"}, cohort="default", guaranteed={"cpu": "1"}, evictionThreshold=0)
    await plane.pod("secret-name", "b")
    await plane.pod("mine", "a", priority="high")
    with pytest.raises(QuotaExceeded) as caught:
        await plane.pod("more", "a", priority="high", cpu="1")
    assert "secret-name" not in str(caught.value)
    accounts = plane.accounts()
    ask = Ask(replace(next(iter(accounts.charges("a"))), uid="new", id="pod/a/new"))
    decision = decide(accounts, ask, plane.now)
    assert isinstance(decision, Deny)
    assert "1 of namespace b" in text(ask, decision)
    assert "secret-name" not in text(ask, decision)


async def test_a_namespace_has_a_bounded_number_of_quotas(plane: QuotaPlane) -> None:
    """Each one's status is kept true in every workload's own transaction: their number is what such a write costs."""
    await plane.tenant("a", {"pods": "5"})
    for number in range(MAX_QUOTAS - 1):
        await plane.quota("a", {"pods": "5"}, f"more-{number}")
    with pytest.raises(Forbidden, match="put several limits into one"):
        await plane.quota("a", {"pods": "5"}, "too-many")
    await plane.pod("p")
    assert await plane.used("a", f"more-{MAX_QUOTAS - 2}") == {"pods": "1"}


async def test_everyone_who_waits_is_told_its_place(plane: QuotaPlane) -> None:
    await plane.priority("middle", 5)
    await plane.tenant("a", {"cpu": "1"})
    await plane.pod("runs", priority="high")
    waiting = {
        name: await plane.pod(name, owner="vm", priority=p)
        for name, p in (("b", "middle"), ("c", "low"), ("d", "high"))
    }

    def places() -> list[str]:
        """As the list of workloads shows them; by what writers keep, and by the rows alone."""
        told = []
        for queue in (plane.plugin.queue, Queue(Lines())):
            place = partial(queue.place, plane.store.state)
            cells = []
            for name in sorted(waiting):
                record = plane.store.state.get(PODS, "a", name)
                view = project_workload(place, record) if record is not None else None
                if view is not None:
                    row = WORKLOADS.printer.row(view, 0)
                    cells.append(name + " " + str(row[REASON]).partition(",")[0])
            told.append(", ".join(cells))
        assert told[0] == told[1]
        return told[0].split(", ")

    assert places() == ["b Gated: 2nd in the queue", "c Gated: 3rd in the queue", "d Gated: 1st in the queue"]
    await plane.gone("d")
    assert places() == ["b Gated: 1st in the queue", "c Gated: 2nd in the queue"]
    await plane.gone("runs")
    assert places() == ["b ", "c Gated: 1st in the queue"]
    with pytest.raises(QuotaExceeded):
        await plane.pod("nobody-s", cpu="1")
    assert places() == ["b ", "c Gated: 1st in the queue"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (112, "112th"), (10_000, "10000th"), (21, "21st")],
)
def test_places_are_read_as_ordinals(number: int, text: str) -> None:
    view = {"metadata": {"name": "w"}, "status": {"reason": "Gated", "message": "short", "queuePosition": number}}
    assert WORKLOADS.printer.row(view, 0)[REASON] == f"Gated: {text} in the queue, short"
