"""Quota in the write's own transaction, through the real verbs and the real store."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import orjson
import pytest

from isoplane.objects.accounting import KUBEVIRT_VERSIONS, MODES
from isoplane.objects.errors import Forbidden, Invalid, NotFound, QuotaExceeded
from isoplane.objects.exposition import render
from isoplane.objects.kinds import (
    COHORTS,
    CONFIGMAPS,
    EVENTS,
    NAMESPACES,
    PODS,
    QUOTAPOLICIES,
    RESOURCEQUOTAS,
    VIRTUALMACHINEINSTANCES,
    VIRTUALMACHINES,
)
from isoplane.quota.offline import answers
from isoplane.server.quota_admission import quota_families
from machines_support import random_machine
from quota_plane_support import QuotaPlane, condition, pod, quota_plane, vmi

HARD = {"requests.cpu": "4", "pods": "10"}


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[QuotaPlane]:
    async with quota_plane(tmp_path / "data") as made:
        await made.priority("critical", 1000)
        await made.priority("batch", 10)
        yield made


async def test_one_quota_counts_both_kinds(plane: QuotaPlane) -> None:
    await plane.tenant("a", {**HARD, "requests.memory": "2Gi", "count/virtualmachineinstances.kubevirt.io": "1"})
    await plane.pod("web", memory="1Gi")
    await plane.vmi("db", cpu="500m", guest="512Mi")
    used = await plane.used("a")
    assert used["requests.cpu"] == "1500m"
    assert used["pods"] == "2"
    assert used["count/virtualmachineinstances.kubevirt.io"] == "1"
    assert used["requests.memory"] == "1804Mi"


async def test_a_refusal_reads_like_kubernetes(plane: QuotaPlane) -> None:
    await plane.tenant("a", HARD)
    await plane.pod("one", cpu="3")
    with pytest.raises(QuotaExceeded) as refused:
        await plane.pod("two", cpu="2")
    assert refused.value.message == (
        'pods "two" is forbidden: exceeded quota: q, requested: requests.cpu=2, used: requests.cpu=3, '
        "limited: requests.cpu=4"
    )
    assert refused.value.details["name"] == "two"
    with pytest.raises(NotFound):
        await plane.api.get(PODS, "two", "a")
    with pytest.raises(QuotaExceeded, match=r'virtualmachineinstances.kubevirt.io "vm" is forbidden: exceeded quota'):
        await plane.vmi("vm", cpu="2")


async def test_a_quota_made_later_counts_what_is_there(plane: QuotaPlane) -> None:
    await plane.api.create(NAMESPACES, {"metadata": {"name": "a"}})
    await plane.pod("web")
    await plane.vmi("db")
    for number in range(3):
        await plane.api.create(CONFIGMAPS, {"metadata": {"name": f"c{number}", "namespace": "a"}})
    made = await plane.quota("a", {**HARD, "count/configmaps": "3", "configmaps": "9", "count/resourcequotas": "5"})
    assert made["status"]["used"] == {
        "requests.cpu": "2",
        "pods": "2",
        "count/configmaps": "3",
        "configmaps": "3",
        "count/resourcequotas": "1",
    }
    with pytest.raises(
        QuotaExceeded, match='configmaps "c4" is forbidden: exceeded quota: q, requested: count/configmaps=1'
    ):
        await plane.api.create(CONFIGMAPS, {"metadata": {"name": "c4", "namespace": "a"}})
    await plane.api.delete(CONFIGMAPS, "c0", "a")
    assert (await plane.used("a"))["configmaps"] == "2"
    await plane.api.create(CONFIGMAPS, {"metadata": {"name": "c4", "namespace": "a"}})


async def test_what_ended_gives_back_all_but_its_object(plane: QuotaPlane) -> None:
    await plane.tenant("a", {**HARD, "count/pods": "10"})
    web = await plane.pod("web")
    web["status"]["phase"] = "Succeeded"
    await plane.api.update(PODS, web, subresource="status")
    assert await plane.used("a") == {"requests.cpu": "0", "pods": "0", "count/pods": "1"}
    await plane.gone("web")
    assert (await plane.used("a"))["count/pods"] == "0"


async def test_scopes(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"pods": "10"})
    selector = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["critical"]}]}
    await plane.quota("a", {"pods": "1"}, "few", scopeSelector=selector)
    await plane.pod("one", priority="critical")
    await plane.pod("other", priority="batch")
    with pytest.raises(QuotaExceeded, match="exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1"):
        await plane.pod("two", handle="critical")
    assert await plane.used("a", "few") == {"pods": "1"}
    assert await plane.used("a") == {"pods": "2"}


async def test_a_quota_insists_on_what_it_counts(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"limits.cpu": "1", "requests.memory": "1Gi"})
    with pytest.raises(Forbidden, match=r"failed quota: q: must specify limits.cpu for: c; requests.memory for: c"):
        await plane.pod("web")
    # A machine's memory request follows from its guest; its limits are what it states.
    with pytest.raises(Forbidden, match=r"failed quota: q: must specify limits.cpu for: compute; state them"):
        await plane.vmi("db")
    limited = vmi("db")
    limited["spec"]["domain"]["resources"] = {"limits": {"cpu": "1"}}
    await plane.api.create(VIRTUALMACHINEINSTANCES, limited)
    assert (await plane.used("a"))["limits.cpu"] == "1"


async def test_a_critical_vm_at_a_full_quota_makes_lower_ones_leave_and_then_runs(plane: QuotaPlane) -> None:
    await plane.tenant("a", HARD, evictionThreshold=100)
    for name in ("p1", "p2"):
        await plane.pod(name, priority="batch")
    for name in ("v1", "v2"):
        await plane.vmi(name, priority="batch")
    db = await plane.vmi("db", cpu="3", priority="critical")
    admitted = condition(db, "QuotaAdmitted")
    assert db["status"]["phase"] == "Pending"
    assert admitted["status"] == "False"
    # Pods before machines, and no more than needed.
    for name in ("pod/a/p1", "pod/a/p2", "vmi/a/v"):
        assert name in admitted["message"]
    leaving = await plane.api.get(PODS, "p1", "a")
    assert leaving["metadata"]["deletionGracePeriodSeconds"] == 30
    target = condition(leaving, "DisruptionTarget")
    assert target["reason"] == "PreemptedByQuota"
    assert "vmi/a/db (priority 1000)" in target["message"]
    events = (await plane.api.list(EVENTS, "a")).items
    assert {(e["involvedObject"]["name"], e["reason"]) for e in events} >= {
        ("p1", "PreemptedByQuota"),
        ("db", "WaitingForQuota"),
    }
    assert (await plane.used("a"))["requests.cpu"] == "4"

    # Nobody steals what comes free.
    await plane.gone("p1")
    with pytest.raises(QuotaExceeded, match=r"held for others: requests.cpu=3"):
        await plane.pod("thief", priority="batch")
    waiting = await plane.pod("again", priority="batch", owner="rs")
    assert waiting["spec"]["schedulingGates"] == [{"name": "isoplane.io/quota"}]
    assert condition(waiting, "PodScheduled")["reason"] == "SchedulingGated"
    await plane.gone("p2")
    machines = (await plane.api.list(VIRTUALMACHINEINSTANCES, "a")).items
    (victim,) = [m["metadata"]["name"] for m in machines if m["metadata"].get("deletionTimestamp")]
    assert (await plane.used("a"))["requests.cpu"] == "2"
    await plane.gone(victim, resource=VIRTUALMACHINEINSTANCES)

    db = await plane.api.get(VIRTUALMACHINEINSTANCES, "db", "a")
    assert condition(db, "QuotaAdmitted")["status"] == "True"
    assert (await plane.used("a"))["requests.cpu"] == "4"
    # The replacement waits behind, until there is room.
    assert (await plane.api.get(PODS, "again", "a"))["spec"].get("schedulingGates")
    await plane.gone("db", resource=VIRTUALMACHINEINSTANCES)
    assert not (await plane.api.get(PODS, "again", "a"))["spec"].get("schedulingGates")


async def test_victims_without_a_node_leave_at_once_and_so_does_the_wait(plane: QuotaPlane) -> None:
    await plane.tenant("a", HARD, evictionThreshold=100)
    await plane.pod("low", cpu="4", priority="batch", bind=False)
    db = await plane.pod("db", cpu="4", priority="critical", bind=False)
    assert not db["spec"].get("schedulingGates")
    with pytest.raises(NotFound):
        await plane.api.get(PODS, "low", "a")
    assert (await plane.used("a"))["requests.cpu"] == "4"


async def test_dry_run_answers_the_same_and_writes_nothing(plane: QuotaPlane) -> None:
    await plane.tenant("a", HARD, evictionThreshold=100)
    await plane.pod("low", cpu="4", priority="batch")
    before = plane.store.revision
    shown, warnings = await plane.dry_run(pod("db", cpu="2", priority="critical"))
    assert shown["spec"]["schedulingGates"]
    assert any("would evict pod/a/low (priority 10)" in warning for warning in warnings)
    assert plane.store.revision == before
    assert not (await plane.api.get(PODS, "low", "a"))["metadata"].get("deletionTimestamp")
    real = await plane.pod("db", cpu="2", priority="critical")
    assert condition(real, "PodScheduled")["message"] == condition(shown, "PodScheduled")["message"]


@pytest.mark.parametrize("policy", [{}, {"evictionThreshold": 1000}, {"evictionThreshold": 0, "minRunSeconds": 60}])
async def test_nobody_leaves_when_the_policy_does_not_say_so(plane: QuotaPlane, policy: dict) -> None:
    await plane.tenant("a", HARD, **policy)
    await plane.pod("low", cpu="4", priority="batch")
    with pytest.raises(QuotaExceeded):
        await plane.pod("db", priority="critical")
    assert not (await plane.api.get(PODS, "low", "a"))["metadata"].get("deletionTimestamp")


async def test_a_preemption_policy_of_never(plane: QuotaPlane) -> None:
    await plane.priority("polite", 5000, preemptionPolicy="Never")
    await plane.tenant("a", HARD, evictionThreshold=0)
    await plane.pod("low", cpu="4", priority="batch")
    with pytest.raises(QuotaExceeded):
        await plane.pod("db", priority="polite")
    with pytest.raises(QuotaExceeded):
        await plane.vmi("vm", handle="polite")


async def test_owners_workloads_wait_by_priority_then_age(plane: QuotaPlane) -> None:
    await plane.tenant("a", HARD)
    await plane.pod("first", cpu="4")
    for name, priority in (("low-old", "batch"), ("low-new", "batch"), ("high", "critical")):
        plane.now += 1
        await plane.pod(name, cpu="4", priority=priority, owner="rs")
    order = []
    for running in ("first", "high", "low-old"):
        await plane.gone(running)
        items = (await plane.api.list(PODS, "a")).items
        order += [p["metadata"]["name"] for p in items if not p["spec"].get("schedulingGates")]
    assert order == ["high", "low-old", "low-new"]


async def test_raising_a_limit_and_removing_a_quota_wake(plane: QuotaPlane) -> None:
    await plane.tenant("a", HARD)
    await plane.pod("one", cpu="4")
    await plane.pod("two", cpu="4", owner="rs")
    plane.now += 1
    await plane.pod("three", cpu="4", owner="rs")
    await plane.api.patch(RESOURCEQUOTAS, "q", "a", {"spec": {"hard": {"requests.cpu": "8"}}})
    assert not (await plane.api.get(PODS, "two", "a"))["spec"].get("schedulingGates")
    assert (await plane.used("a"))["requests.cpu"] == "8"
    await plane.api.patch(RESOURCEQUOTAS, "q", "a", {"spec": {"hard": {"requests.cpu": "1"}}})
    with pytest.raises(QuotaExceeded):
        await plane.pod("four", cpu="100m")
    assert (await plane.used("a"))["requests.cpu"] == "8"
    await plane.api.delete(RESOURCEQUOTAS, "q", "a")
    assert not (await plane.api.get(PODS, "three", "a"))["spec"].get("schedulingGates")
    assert plane.accounts().limits("a") is None


async def test_taking_the_gate_away_by_hand_changes_nothing(plane: QuotaPlane) -> None:
    await plane.tenant("a", HARD)
    await plane.pod("one", cpu="4")
    waiting = await plane.pod("two", owner="rs")
    del waiting["spec"]["schedulingGates"]
    again = await plane.api.update(PODS, waiting)
    assert again["spec"]["schedulingGates"] == [{"name": "isoplane.io/quota"}]
    machine = await plane.vmi("vm", owner="vm")
    machine["status"]["conditions"] = []
    machine = await plane.api.update(VIRTUALMACHINEINSTANCES, machine, subresource="status")
    assert condition(machine, "QuotaAdmitted")["status"] == "False"
    assert (await plane.used("a"))["requests.cpu"] == "4"


async def test_deleting_a_holder_ends_its_hold(plane: QuotaPlane) -> None:
    await plane.tenant("a", HARD, evictionThreshold=100)
    await plane.pod("low", cpu="4", priority="batch")
    await plane.pod("db", cpu="4", priority="critical")
    await plane.gone("db")
    await plane.gone("low")
    await plane.pod("other", cpu="4", priority="batch")


async def test_who_is_told_to_go_waits_no_longer(plane: QuotaPlane) -> None:
    """A finalizer keeps the object, not its place nor its hold."""
    await plane.tenant("a", HARD, evictionThreshold=100)
    await plane.pod("low", cpu="4", priority="batch")
    held = pod("db", cpu="4", priority="critical")
    held["metadata"]["finalizers"] = ["example.com/keep"]
    await plane.api.create(PODS, held)
    await plane.api.delete(PODS, "db", "a")
    await plane.gone("low")
    assert (await plane.api.get(PODS, "db", "a"))["spec"]["schedulingGates"]
    await plane.pod("other", cpu="4", priority="batch")
    await plane.api.patch(PODS, "db", "a", {"metadata": {"finalizers": None}})
    assert (await plane.used("a"))["requests.cpu"] == "4"


async def test_a_virtual_machine_says_its_priority_once(plane: QuotaPlane) -> None:
    await plane.api.create(NAMESPACES, {"metadata": {"name": "a"}})
    template = vmi("unused", handle="critical", priority="batch")
    spec = {"runStrategy": "Halted", "template": {"metadata": template["metadata"], "spec": template["spec"]}}
    del template["metadata"]["name"], template["metadata"]["namespace"]
    with pytest.raises(Invalid, match=r'differs from spec\.template\.spec\.priorityClassName "batch"'):
        await plane.api.create(VIRTUALMACHINES, {"metadata": {"name": "vm", "namespace": "a"}, "spec": spec})


async def test_a_halted_machine_counts_as_an_object_only(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"count/virtualmachines.kubevirt.io": "1", "pods": "1"})
    spec = {"runStrategy": "Halted", "template": {"spec": vmi("x")["spec"]}}
    await plane.api.create(VIRTUALMACHINES, {"metadata": {"name": "vm", "namespace": "a"}, "spec": spec})
    assert await plane.used("a") == {"count/virtualmachines.kubevirt.io": "1", "pods": "0"}
    with pytest.raises(QuotaExceeded, match="exceeded quota: q, requested: count/virtualmachines"):
        await plane.api.create(VIRTUALMACHINES, {"metadata": {"name": "vm2", "namespace": "a"}, "spec": spec})


async def test_a_hold_expires_and_its_holder_keeps_its_place(plane: QuotaPlane) -> None:
    await plane.tenant("a", HARD, evictionThreshold=100)
    await plane.pod("stuck", cpu="4", priority="batch")
    await plane.pod("db", cpu="2", priority="critical")
    assert plane.accounts().totals("a", "q").held["requests.cpu"] == 2000
    plane.now += 30 + 120 + 1
    with pytest.raises(QuotaExceeded):
        await plane.pod("other", cpu="4", priority="batch")
    # The refusal's own transaction is dropped; the next write that stays ends the hold.
    await plane.pod("tick", cpu="0", priority="batch")
    waiting = list(plane.accounts().waiting("a"))
    assert [w.charge.id for w in waiting] == ["pod/a/db"]


async def test_quota_follows_the_accounting_of_the_namespace(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"requests.memory": "4Gi"}, vmAccounting="GuestOnly")
    await plane.vmi("db", guest="1Gi")
    assert await plane.used("a") == {"requests.memory": "1Gi"}
    await plane.api.patch(QUOTAPOLICIES, "default", "a", {"spec": {"vmAccounting": "GuestPlusOverhead"}})
    assert await plane.used("a") == {"requests.memory": "1292Mi"}


async def test_concurrent_creates_never_pass_the_limit(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"requests.cpu": "10"})
    answers = await asyncio.gather(*(plane.api.create(PODS, pod(f"p{n}")) for n in range(64)), return_exceptions=True)
    assert sum(isinstance(a, dict) for a in answers) == 10
    assert sum(isinstance(a, QuotaExceeded) for a in answers) == 54
    assert await plane.used("a") == {"requests.cpu": "10"}


async def test_lent_capacity_is_reclaimed(plane: QuotaPlane) -> None:
    await plane.node(cpu="4", memory="4Gi", pods="100")
    await plane.cohort(cpu=2)
    for name in ("a", "b"):
        await plane.tenant(name, {"requests.cpu": "8"}, cohort="default", guaranteed={"cpu": "4"})
    for number in range(8):
        await plane.pod(f"p{number}", "a", priority="critical")
    with pytest.raises(QuotaExceeded, match="exceeded quota: q"):
        await plane.pod("p9", "a")
    mine = await plane.pod("mine", "b", cpu="2")
    assert mine["spec"]["schedulingGates"]
    leaving = [p for p in (await plane.api.list(PODS, "a")).items if p["metadata"].get("deletionTimestamp")]
    assert len(leaving) == 2
    for victim in leaving:
        assert "(reclaim)" in condition(victim, "DisruptionTarget")["message"]
        await plane.gone(victim["metadata"]["name"])
    assert not (await plane.api.get(PODS, "mine", "b"))["spec"].get("schedulingGates")
    with pytest.raises(QuotaExceeded, match="exceeded cohort capacity: default"):
        await plane.pod("more", "a")


async def test_guarantees_must_be_possible(plane: QuotaPlane) -> None:
    await plane.node(cpu="4")
    await plane.cohort(cpu="1.5")
    await plane.tenant("a", {"pods": "1"}, cohort="default", guaranteed={"cpu": "4"})
    with pytest.raises(Invalid, match='cohort "default" would guarantee 7 of 6'):
        await plane.tenant("b", {"pods": "1"}, cohort="default", guaranteed={"cpu": "3"})
    with pytest.raises(Invalid):
        await plane.api.patch(COHORTS, "default", "", {"spec": {"overcommit": {"cpu": 0.5}}})


async def test_priority_is_one_handle_for_both_kinds(plane: QuotaPlane) -> None:
    await plane.api.create(NAMESPACES, {"metadata": {"name": "a"}})
    for made in (await plane.pod("p", handle="critical"), await plane.vmi("v", handle="critical")):
        assert made["spec"]["priorityClassName"] == "critical"
    assert (await plane.api.get(PODS, "p", "a"))["spec"]["priority"] == 1000
    assert (await plane.api.get(VIRTUALMACHINEINSTANCES, "v", "a"))["metadata"]["annotations"][
        "isoplane.io/priority"
    ] == "1000"
    for make in (plane.pod, plane.vmi):
        with pytest.raises(Invalid, match="differs from"):
            await make("x", handle="critical", priority="batch")
        with pytest.raises(Forbidden, match="no PriorityClass with name nope was found"):
            await make("x", handle="nope")
    await plane.priority("usual", 7, globalDefault=True)
    assert (await plane.pod("d"))["spec"]["priority"] == 7
    with pytest.raises(Forbidden, match="usual is already marked as default"):
        await plane.priority("other", 8, globalDefault=True)
    given = pod("given", priority="batch")
    given["spec"]["priority"] = 9
    with pytest.raises(Forbidden, match="must not be provided"):
        await plane.api.create(PODS, given)
    assert vmi("unused")["kind"] == "VirtualMachineInstance"


async def test_metrics_and_the_audit_trail(plane: QuotaPlane) -> None:
    await plane.tenant("a", HARD, evictionThreshold=100)
    await plane.pod("low", cpu="3500m", priority="batch")
    with pytest.raises(QuotaExceeded):
        await plane.pod("no", cpu="1", priority="batch")
    await plane.pod("db", cpu="2", priority="critical")
    text = render(quota_families(plane.store.state, plane.plugin.acts))
    for line in (
        'isoplane_quota_used{namespace="a",quota="q",resource="requests.cpu"} 3.5',
        'isoplane_quota_hard{namespace="a",quota="q",resource="pods"} 10',
        'isoplane_quota_held{namespace="a",quota="q",resource="requests.cpu"} 2',
        'isoplane_quota_evicting{namespace="a",quota="q",resource="requests.cpu"} 3.5',
        'isoplane_quota_waiting{namespace="a",held="true"} 1',
        'isoplane_quota_decisions_total{namespace="a",decision="deny"} 1',
        'isoplane_quota_evictions_total{namespace="a",kind="Pod"} 1',
    ):
        assert line in text.splitlines()
    trail = sorted((orjson.loads(row) for row in plane.store.state.rows("quota.audit").values()), key=lambda e: e["n"])
    assert [(e["act"], e["workload"], e["rule"]) for e in trail] == [
        ("admit", "pod/a/low", "fits"),
        ("refuse", "pod/a/no", "exceeded"),
        ("wait", "pod/a/db", "evict"),
        ("evict", "pod/a/low", "in-tenant"),
    ]
    assert trail[1]["short"] == {"quota/q requests.cpu": 500}
    await plane.gone("low")
    acts = [orjson.loads(row)["act"] for row in plane.store.state.rows("quota.audit").values()]
    assert "release" in acts


async def test_a_quota_that_counts_nothing_is_answered_with_a_warning(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"pods": "1"})
    quota = {"metadata": {"name": "idle", "namespace": "a"}, "spec": {"hard": {"services": "5", "pods": "1"}}}
    _, warnings = await plane.dry_run(quota, RESOURCEQUOTAS)
    assert warnings == ["spec.hard[services]: nothing is counted by this name"]


async def test_guests_are_limited_by_their_own_names(plane: QuotaPlane) -> None:
    hard = {"requests.cpu/vmi": "3", "requests.memory/vmi": "1Gi", "requests.instances/vmi": "2"}
    await plane.tenant("a", hard)
    await plane.pod("free", cpu="64")
    await plane.vmi("one", guest="256Mi")
    assert await plane.used("a") == {
        "requests.cpu/vmi": "1", "requests.memory/vmi": "256Mi", "requests.instances/vmi": "1",
    }  # fmt: skip
    with pytest.raises(QuotaExceeded, match=r"requests\.memory/vmi=1Gi, used: requests\.memory/vmi=256Mi"):
        await plane.vmi("large", guest="1Gi")
    await plane.vmi("two", guest="256Mi")
    with pytest.raises(QuotaExceeded, match=r"requests\.instances/vmi=1"):
        await plane.vmi("three", guest="256Mi")
    await plane.gone("one", resource=VIRTUALMACHINEINSTANCES)
    assert (await plane.used("a"))["requests.cpu/vmi"] == "1"


@pytest.mark.parametrize("version", KUBEVIRT_VERSIONS)
async def test_machines_are_charged_as_explain_says_offline(plane: QuotaPlane, version: str) -> None:
    """Random ones, from the manifest on the one hand and from what the server stored on the other."""
    rng = Random(version)
    hard = {"requests.cpu": "10k"}
    mode = rng.choice(MODES)
    await plane.tenant("a", hard, vmAccounting=mode, kubevirtVersion=version)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "a"}}
    policy = {
        "apiVersion": "isoplane.io/v1alpha1",
        "kind": "QuotaPolicy",
        "metadata": {"name": "default", "namespace": "a"},
    }
    spec = {"vmAccounting": mode, "kubevirtVersion": version}
    taken = 0
    for i in range(60):
        given = random_machine(rng, f"m{i}")
        try:
            made = await plane.api.create(VIRTUALMACHINEINSTANCES, copy.deepcopy(given))
        except Invalid:
            continue  # some contradict themselves
        taken += 1
        (answer,) = answers([{**quota, "spec": {"hard": hard}}, {**policy, "spec": spec}], [given], 0)
        charge = plane.accounts().charge("a", made["metadata"]["uid"])
        assert charge is not None
        assert charge.amounts == answer.ask.charge.amounts, given
    assert taken > 10
