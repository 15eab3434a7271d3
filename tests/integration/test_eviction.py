"""pods/eviction over the verbs: the budget is charged with the deletion, or nothing happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from isoplane.client.controller import Manager
from isoplane.client.informer import Informers
from isoplane.controllers.quota_budgets import BudgetController
from isoplane.objects.errors import BadRequest, Conflict, Internal, TooManyRequests
from isoplane.objects.kinds import NAMESPACES, PODDISRUPTIONBUDGETS, PODS
from isoplane.objects.metadata import Object, condition
from quota_plane_support import QuotaPlane, quota_plane


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[QuotaPlane]:
    async with quota_plane(tmp_path / "data") as made:
        await made.api.create(NAMESPACES, {"metadata": {"name": "a"}})
        informers = Informers(made.api)
        manager = Manager(informers, [BudgetController(made.api, informers, clock=lambda: made.now)])
        await manager.start()
        try:
            yield made
        finally:
            await manager.stop()
            await informers.stop()


async def serving(plane: QuotaPlane, name: str, *, ready: bool = True) -> None:
    await plane.pod(name)
    obj = await plane.api.patch(PODS, name, "a", {"metadata": {"labels": {"app": "web"}}})
    obj["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
    await plane.api.update(PODS, obj, subresource="status")


async def guard(plane: QuotaPlane, expected: int, name: str = "pdb", **spec: Any) -> None:
    """A budget over app=web, counted by its controller."""
    spec = {"selector": {"matchLabels": {"app": "web"}}, **spec}
    await plane.api.create(PODDISRUPTIONBUDGETS, {"metadata": {"name": name, "namespace": "a"}, "spec": spec})
    await counted(plane, name, expectedPods=expected)


async def counted(plane: QuotaPlane, name: str = "pdb", **wanted: Any) -> Object:
    for _ in range(200):
        status = (await plane.api.get(PODDISRUPTIONBUDGETS, name, "a")).get("status") or {}
        if all(status.get(field) == value for field, value in wanted.items()):
            return status
        await asyncio.sleep(0.02)
    raise AssertionError(f"{status} never had {wanted}")


async def evict(plane: QuotaPlane, name: str, **body: Any) -> Object:
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "a"}, **body}
    return await plane.api.subresource(PODS, name, "a", "eviction", eviction)


async def test_a_budget_lets_go_one_by_one(plane: QuotaPlane) -> None:
    for number in range(3):
        await serving(plane, f"web-{number}")
    await guard(plane, 3, minAvailable=2)
    await counted(plane, disruptionsAllowed=1)
    await evict(plane, "web-0")
    leaving = await plane.api.get(PODS, "web-0", "a")
    assert leaving["metadata"]["deletionTimestamp"]
    assert (condition(leaving, "DisruptionTarget") or {})["reason"] == "EvictionByEvictionAPI"
    with pytest.raises(TooManyRequests) as refused:
        await evict(plane, "web-1")
    assert refused.value.message == "Cannot evict pod as it would violate the pod's disruption budget."
    assert [cause.reason for cause in refused.value.causes] == ["DisruptionBudget"]
    assert not (await plane.api.get(PODS, "web-1", "a"))["metadata"].get("deletionTimestamp")
    await evict(plane, "web-0")  # already leaving: nothing more to spend
    status = await counted(plane, currentHealthy=2, disruptionsAllowed=0)
    for _ in range(100):
        if "disruptedPods" not in status:
            break
        await asyncio.sleep(0.02)
        status = (await plane.api.get(PODDISRUPTIONBUDGETS, "pdb", "a"))["status"]
    assert "disruptedPods" not in status


async def test_many_at_once_never_pass_the_budget(plane: QuotaPlane) -> None:
    for number in range(8):
        await serving(plane, f"web-{number}")
    await guard(plane, 8, maxUnavailable=3)
    await counted(plane, disruptionsAllowed=3)
    outcomes = await asyncio.gather(*(evict(plane, f"web-{n}") for n in range(8)), return_exceptions=True)
    assert sum(isinstance(outcome, TooManyRequests) for outcome in outcomes) == 5
    await counted(plane, currentHealthy=5, disruptionsAllowed=0)


async def test_a_dry_run_answers_and_changes_nothing(plane: QuotaPlane) -> None:
    await serving(plane, "web-0")
    await guard(plane, 1, maxUnavailable=1)
    await counted(plane, disruptionsAllowed=1)
    before = (await plane.api.get(PODDISRUPTIONBUDGETS, "pdb", "a"))["metadata"]["resourceVersion"]
    await evict(plane, "web-0", deleteOptions={"dryRun": ["All"]})
    assert not (await plane.api.get(PODS, "web-0", "a"))["metadata"].get("deletionTimestamp")
    assert (await plane.api.get(PODDISRUPTIONBUDGETS, "pdb", "a"))["metadata"]["resourceVersion"] == before


async def test_a_failed_precondition_spends_nothing(plane: QuotaPlane) -> None:
    await serving(plane, "web-0")
    await guard(plane, 1, maxUnavailable=1)
    await counted(plane, disruptionsAllowed=1)
    with pytest.raises(Conflict):
        await evict(plane, "web-0", deleteOptions={"preconditions": {"uid": "another"}})
    await counted(plane, disruptionsAllowed=1)


async def test_several_budgets_are_an_error(plane: QuotaPlane) -> None:
    await serving(plane, "web-0")
    await guard(plane, 1, maxUnavailable=1)
    await guard(plane, 1, "second", maxUnavailable=1)
    with pytest.raises(Internal, match="more than one PodDisruptionBudget"):
        await evict(plane, "web-0")


async def test_an_unready_pod_under_each_policy(plane: QuotaPlane) -> None:
    await serving(plane, "web-0", ready=False)
    await guard(plane, 1, minAvailable=1)
    with pytest.raises(TooManyRequests):
        await evict(plane, "web-0")
    patch = {"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}
    await plane.api.patch(PODDISRUPTIONBUDGETS, "pdb", "a", patch)
    await evict(plane, "web-0")


async def test_waiting_pods_and_wrong_names(plane: QuotaPlane) -> None:
    await plane.pod("web-0", bind=False)
    await guard(plane, 0, minAvailable=1)
    with pytest.raises(BadRequest, match="name in URL"):
        await plane.api.subresource(PODS, "web-0", "a", "eviction", {"metadata": {"name": "other"}})
    await evict(plane, "web-0")
    assert not (await plane.api.list(PODS, "a")).items
