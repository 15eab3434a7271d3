"""What people are told: the audit trail as QuotaDecisions, and that nobody learns the names of another tenant's workloads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from isoplane.objects.errors import QuotaExceeded
from isoplane.objects.kinds import CONFIGMAPS, EVENTS, PODS, QUOTADECISIONS, QUOTAUSAGES, VIRTUALMACHINEINSTANCES
from isoplane.server.quota_admission import decisions_summary, rows, usage_summary
from quota_plane_support import QuotaPlane, condition, pod, quota_plane


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[QuotaPlane]:
    async with quota_plane(tmp_path / "data") as made:
        made.verbs.computed.register(usage_summary())
        made.verbs.computed.register(decisions_summary(made.verbs.scheme))
        made.plugin.write_refusals_to(made.store)
        await made.priority("critical", 1000)
        await made.priority("batch", 10)
        yield made


async def told(plane: QuotaPlane, namespace: str) -> list[tuple[str, str, str]]:
    found = (await plane.api.list(QUOTADECISIONS, namespace)).items
    return [(d["status"]["decision"], d["status"]["workload"]["name"], d["status"]["rule"]) for d in found]


async def test_a_refusal_is_told_though_nothing_else_is_written(plane: QuotaPlane) -> None:
    """It is written by itself, which makes no new revision; who asked before sees it all the same."""
    plane.plugin.write_refusals_to(plane.store)
    await plane.tenant("a", {"requests.cpu": "1"})
    await plane.pod("first", cpu="1")
    for count in range(1, 4):
        assert len(await told(plane, "a")) == count
        with pytest.raises(QuotaExceeded):
            await plane.pod("no", priority="batch")
        revision = plane.store.revision
        await asyncio.sleep(0)
        await plane.store.transact(lambda txn: None)
        assert plane.store.revision == revision
        assert await told(plane, "a") == [("Admit", "first", "fits"), *[("Refuse", "no", "exceeded")] * count]


async def test_every_decision_is_told_with_its_rule(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"requests.cpu": "4", "count/configmaps": "0"}, evictionThreshold=500)
    await plane.pod("low", cpu="4", priority="batch")
    for _ in range(2):
        with pytest.raises(QuotaExceeded):
            await plane.pod("no", priority="batch")
    await plane.vmi("db", cpu="4", priority="critical")
    again = await plane.pod("again", priority="batch", owner="rs")
    assert again["spec"]["schedulingGates"]
    await plane.gone("low")
    with pytest.raises(QuotaExceeded):
        await plane.api.create(CONFIGMAPS, {"metadata": {"name": "settings", "namespace": "a"}})
    await asyncio.sleep(0)
    await plane.store.transact(lambda txn: None)
    assert await told(plane, "a") == [
        ("Admit", "low", "fits"),
        ("Refuse", "no", "exceeded"),
        ("Refuse", "no", "exceeded"),
        ("Wait", "db", "evict"),
        ("Evict", "low", "in-tenant"),
        ("Wait", "again", "in-line"),
        ("Release", "db", "fits"),
        ("Refuse", "settings", "counted"),
    ]
    everything = (await plane.api.list(QUOTADECISIONS, "a")).items
    assert [d["metadata"]["name"] for d in everything] == sorted(d["metadata"]["name"] for d in everything)
    refused, waits, evicted = everything[1]["status"], everything[3]["status"], everything[4]["status"]
    assert refused["short"] == [{"limit": "quota/q", "resource": "requests.cpu", "amount": "1"}]
    assert refused["reason"] == "a limit would be passed"
    assert waits["victims"] == ["pod/a/low"]
    assert evicted["workload"]["kind"] == "Pod"
    assert evicted["preemptor"] == "vmi/a/db"
    assert everything[7]["status"]["workload"]["kind"] == "ConfigMap"
    one = await plane.api.get(QUOTADECISIONS, everything[4]["metadata"]["name"], "a")
    assert one["status"] == evicted
    assert await told(plane, "default") == []


async def test_what_grows_beyond_the_quota_is_refused_and_told(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"requests.cpu": "4"})
    await plane.pod("web", cpu="2")

    async def resize(cpu: str) -> None:
        patch = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}
        await plane.api.patch(PODS, "web", "a", patch, kind="strategic", subresource="resize")

    await resize("4")
    assert await plane.used("a") == {"requests.cpu": "4"}
    with pytest.raises(QuotaExceeded, match=r"exceeded quota: q, requested: requests.cpu=1, used: requests.cpu=4"):
        await resize("5")
    await resize("1")
    assert await plane.used("a") == {"requests.cpu": "1"}
    assert (await told(plane, "a"))[-1] == ("Refuse", "web", "grown")


async def test_the_newest_entries_are_kept_and_counting_goes_on_after_a_restart(
    plane: QuotaPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "AUDIT_KEPT", 8)
    monkeypatch.setattr(rows, "AUDIT_HELPING", 4)
    await plane.tenant("a", {"pods": "0"})

    async def refuse(first: int, count: int) -> None:
        for number in range(first, first + count):
            with pytest.raises(QuotaExceeded):
                await plane.pod(f"p{number}")
            await asyncio.sleep(0)
        await plane.store.transact(lambda txn: None)

    await refuse(0, 30)
    plane.plugin._serial = None  # As a new process has it.
    await refuse(30, 5)
    found = [name for _, name, _ in await told(plane, "a")]
    assert 8 <= len(found) <= 12
    assert found == [f"p{number}" for number in range(35 - len(found), 35)]


async def seen_in(plane: QuotaPlane, namespace: str) -> str:
    """All that somebody who may read one namespace can read there."""
    kinds = (PODS, VIRTUALMACHINEINSTANCES, EVENTS, QUOTAUSAGES, QUOTADECISIONS)
    return "".join([orjson.dumps((await plane.api.list(kind, namespace)).items).decode() for kind in kinds])


@pytest.mark.parametrize("rule", ["reclaim", "priority"])
async def test_workloads_of_another_tenant_are_never_named(plane: QuotaPlane, rule: str) -> None:
    await plane.node(cpu="8", memory="64Gi", pods="100")
    await plane.cohort(cpu=1)
    guaranteed = {"cpu": "4"} if rule == "reclaim" else {"cpu": "0"}
    for name in ("a", "b"):
        policy: dict[str, Any] = {"cohort": "default", "guaranteed": guaranteed, "evictionThreshold": 500}
        await plane.tenant(name, {"requests.cpu": "8"}, **policy)
    for number in range(8):
        await plane.pod(f"hush{number}", "a", priority="batch")
    wanted = pod("whisper", "b", cpu="2", priority="critical")
    _, warnings = await plane.dry_run(wanted)
    await plane.vmi("whisper", "b", cpu="2", priority="critical")
    leaving = [p for p in (await plane.api.list(PODS, "a")).items if p["metadata"].get("deletionTimestamp")]
    assert len(leaving) == 2
    message = condition(leaving[0], "DisruptionTarget")["message"]
    assert "namespace b" in message, message
    assert "cohort default" in message
    assert f"({rule})" in message
    assert any("would evict 2 of namespace a" in warning for warning in warnings)
    assert not any("hush" in warning for warning in warnings)
    for phase in ("waiting", "gone"):
        assert "whisper" not in await seen_in(plane, "a"), phase
        assert "hush" not in await seen_in(plane, "b"), phase
        if phase == "waiting":
            (hold,) = (await plane.api.get(QUOTAUSAGES, "default", "b"))["status"]["holds"]
            assert hold["victimsElsewhere"] == 2
            for victim in leaving:
                await plane.gone(victim["metadata"]["name"])
    machine = await plane.api.get(VIRTUALMACHINEINSTANCES, "whisper", "b")
    assert condition(machine, "QuotaAdmitted")["status"] == "True"


async def test_many_victims_are_counted_not_listed(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"requests.cpu": "40"}, evictionThreshold=500)
    for number in range(40):
        await plane.pod(f"p{number}", priority="batch")
    before = plane.store.revision
    waiting = await plane.pod("db", cpu="40", priority="critical")
    message = condition(waiting, "PodScheduled")["message"]
    assert ", 32 more leave" in message
    # One write of each victim beside its Event, the newcomer and its own Event, and the quota's status where that changed.
    assert plane.store.revision - before <= 2 * 40 + 3
