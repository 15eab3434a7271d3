"""What runs beside admission: the pass that finds lost waits, and the status of disruption budgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from isoplane.client.controller import Manager
from isoplane.client.informer import Informers
from isoplane.controllers import quota
from isoplane.controllers.quota import QuotaController
from isoplane.controllers.quota_budgets import BudgetController, Health, desired_healthy, status_of
from isoplane.objects.kinds import PODDISRUPTIONBUDGETS, PODS
from isoplane.server.quota_admission.accounts import RowAccounts
from isoplane.store import Transaction
from quota_plane_support import QuotaPlane, condition, quota_plane


@pytest.fixture
async def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[QuotaPlane]:
    monkeypatch.setattr(quota, "RETRY_SECONDS", 0.05)
    async with quota_plane(tmp_path / "data") as made:
        await made.priority("critical", 1000)
        informers = Informers(made.api)
        controllers = [
            QuotaController(made.api, informers, clock=lambda: made.now),
            BudgetController(made.api, informers, clock=lambda: made.now),
        ]
        manager = Manager(informers, controllers)
        await manager.start()
        try:
            yield made
        finally:
            await manager.stop()


async def until(holds: Callable[[], Any], what: str) -> None:
    for _ in range(200):
        if await holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


async def test_a_wait_that_only_time_can_end_is_asked_again(plane: QuotaPlane) -> None:
    """Within the minimum run time nobody may be evicted; afterwards the first in line plans anew."""
    await plane.tenant("a", {"requests.cpu": "2"}, evictionThreshold=0, minRunSeconds=60)
    await plane.pod("low", cpu="2")
    await plane.pod("high", cpu="2", priority="critical", owner="rs")
    await asyncio.sleep(0.2)
    assert not (await plane.api.get(PODS, "low", "a"))["metadata"].get("deletionTimestamp")
    plane.now += 61

    async def leaves() -> bool:
        return bool((await plane.api.get(PODS, "low", "a"))["metadata"].get("deletionTimestamp"))

    await until(leaves, "the low one to be evicted")
    assert "pod/a/low" in condition(await plane.api.get(PODS, "high", "a"), "PodScheduled")["message"]


async def test_a_lost_wake_up_is_found(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"requests.cpu": "2"})
    await plane.pod("first", cpu="2")
    for number in range(6):
        await plane.pod(f"w{number}", cpu="2", owner="rs")

    def lose(txn: Transaction) -> None:
        """The first goes behind admission's back, its charge too: nobody is woken."""
        record = txn.get(PODS, "a", "first")
        assert record is not None
        txn.delete(record)
        accounts = RowAccounts(txn, plane.plugin._lines)
        accounts.remove("a", record.uid)
        accounts.flush()

    await plane.store.transact(lose)

    async def somebody() -> bool:
        return any(not p["spec"].get("schedulingGates") for p in (await plane.api.list(PODS, "a")).items)

    await until(somebody, "somebody to be let in")


async def test_budgets_tell_what_may_be_disrupted_and_are_honoured(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"requests.cpu": "3"}, evictionThreshold=0)
    for name, label in (("guarded-1", "guarded"), ("guarded-2", "guarded"), ("other", "other")):
        obj = await plane.pod(name)
        obj = await plane.api.patch(PODS, name, "a", {"metadata": {"labels": {"app": label}}})
        obj["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        await plane.api.update(PODS, obj, subresource="status")
    spec = {"minAvailable": 2, "selector": {"matchLabels": {"app": "guarded"}}}
    await plane.api.create(PODDISRUPTIONBUDGETS, {"metadata": {"name": "pdb", "namespace": "a"}, "spec": spec})

    async def counted() -> bool:
        status = (await plane.api.get(PODDISRUPTIONBUDGETS, "pdb", "a")).get("status") or {}
        return status.get("expectedPods") == 2 and status.get("currentHealthy") == 2

    await until(counted, "the budget's status")
    status = (await plane.api.get(PODDISRUPTIONBUDGETS, "pdb", "a"))["status"]
    assert (status["desiredHealthy"], status["disruptionsAllowed"]) == (2, 0)
    db = await plane.pod("db", cpu="1", priority="critical")
    assert "pod/a/other" in condition(db, "PodScheduled")["message"]


@pytest.mark.parametrize(
    ("spec", "desired"),
    [
        ({"minAvailable": 2}, 2),
        ({"minAvailable": "50%"}, 3),
        ({"maxUnavailable": 1}, 4),
        ({"maxUnavailable": "30%"}, 3),
        ({"maxUnavailable": 9}, 0),
        ({}, 5),
    ],
)
def test_what_a_budget_wants_of_five(spec: dict[str, Any], desired: int) -> None:
    assert desired_healthy(spec, 5) == desired
    allowed = status_of({"spec": spec}, Health(5, 4), "2026-01-01T00:00:00Z")["disruptionsAllowed"]
    assert allowed == max(0, 4 - desired)
