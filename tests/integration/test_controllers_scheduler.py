"""The scheduler against the real store and verbs: both kinds are bound, or told why not; room that comes free is used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controllers_support import World, pod, vmi, world
from isoplane.controllers.scheduler import Scheduler
from isoplane.objects import metadata
from isoplane.objects.kinds import EVENTS, NODES, PODS, VIRTUALMACHINEINSTANCES

WRITES = 3
"""Of a workload until it is bound: it is created, bound, and an event says so."""


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def scheduler(plane: World) -> Scheduler:
    return Scheduler(plane.api, plane.informers, plane.events, clock=plane.clock)


async def bound(plane: World, name: str, node: str = "node") -> None:
    async def holds() -> bool:
        found = await plane.find(PODS, name)
        return found is not None and found["spec"].get("nodeName") == node

    await plane.until(holds)


async def test_both_kinds_are_bound(plane: World) -> None:
    await plane.node()
    await plane.run(scheduler(plane))
    await plane.api.create(PODS, pod("web"), namespace="default")
    await plane.api.create(VIRTUALMACHINEINSTANCES, vmi("guest"), namespace="default")
    await bound(plane, "web")

    async def placed() -> bool:
        found = await plane.find(VIRTUALMACHINEINSTANCES, "guest")
        status = (found or {}).get("status") or {}
        return bool(status.get("nodeName") == "node" and status["phase"] == "Scheduling")

    await plane.until(placed)
    web = await plane.there(PODS, "web")
    scheduled = metadata.condition(web, "PodScheduled")
    assert scheduled is not None
    assert scheduled["status"] == "True"
    await plane.events.flush()
    reasons = {e["reason"] for e in (await plane.api.list(EVENTS, "default")).items}
    assert reasons == {"Scheduled"}


async def test_what_does_not_fit_is_told_so_once_and_bound_when_room_comes_free(plane: World) -> None:
    await plane.node(cpu="1")
    await plane.run(scheduler(plane))
    await plane.api.create(PODS, pod("first", cpu="800m"), namespace="default")
    await bound(plane, "first")
    await plane.api.create(PODS, pod("second", cpu="800m"), namespace="default")

    async def told() -> bool:
        found = await plane.there(PODS, "second")
        condition = metadata.condition(found, "PodScheduled")
        return condition is not None and condition.get("reason") == "Unschedulable"

    await plane.until(told)
    await plane.quiet()
    second = await plane.there(PODS, "second")
    condition = metadata.condition(second, "PodScheduled")
    assert condition is not None
    assert condition["message"] == "0/1 nodes are available: 1 Insufficient cpu."
    await plane.events.flush()
    failed = [e for e in (await plane.api.list(EVENTS, "default")).items if e["reason"] == "FailedScheduling"]
    assert [(e["involvedObject"]["name"], e["count"]) for e in failed] == [("second", 1)]

    await plane.api.delete(PODS, "first", "default", grace_seconds=0)
    await bound(plane, "second")


async def test_a_placed_machine_no_longer_says_that_it_found_no_place(plane: World) -> None:
    await plane.node(cpu="0")
    await plane.run(scheduler(plane))
    await plane.api.create(VIRTUALMACHINEINSTANCES, vmi("guest"), namespace="default")

    async def told() -> bool:
        return metadata.condition(await plane.there(VIRTUALMACHINEINSTANCES, "guest"), "PodScheduled") is not None

    await plane.until(told)
    await plane.status(NODES, "node", "", allocatable={"cpu": "4"})

    async def placed() -> bool:
        return bool((await plane.there(VIRTUALMACHINEINSTANCES, "guest"))["status"].get("nodeName"))

    await plane.until(placed)
    assert not await told()


async def test_an_ended_workload_gives_its_room_back(plane: World) -> None:
    await plane.node(cpu="1")
    await plane.run(scheduler(plane))
    await plane.api.create(PODS, pod("job", cpu="1"), namespace="default")
    await bound(plane, "job")
    await plane.api.create(PODS, pod("next", cpu="1"), namespace="default")
    await plane.status(PODS, "job", phase="Succeeded")
    await bound(plane, "next")


async def test_a_cordoned_node_gets_nothing_until_it_is_uncordoned(plane: World) -> None:
    await plane.node()
    await plane.api.patch(NODES, "node", "", {"spec": {"unschedulable": True}})
    await plane.run(scheduler(plane))
    await plane.api.create(PODS, pod("web"), namespace="default")
    await plane.quiet()
    assert "nodeName" not in (await plane.there(PODS, "web"))["spec"]
    await plane.api.patch(NODES, "node", "", {"spec": {"unschedulable": None}})
    await bound(plane, "web")


async def test_gates_and_other_schedulers_are_respected(plane: World) -> None:
    await plane.node()
    await plane.run(scheduler(plane))
    gated = pod("gated", schedulingGates=[{"name": "example.com/wait"}])
    await plane.api.create(PODS, gated, namespace="default")
    await plane.api.create(PODS, pod("theirs", schedulerName="someone-else"), namespace="default")
    await plane.quiet()
    for name in ("gated", "theirs"):
        assert "nodeName" not in (await plane.there(PODS, name))["spec"]
    await plane.api.patch(PODS, "gated", "default", {"spec": {"schedulingGates": None}})
    await bound(plane, "gated")


async def test_the_higher_priority_gets_the_room(plane: World) -> None:
    """Both wait; when room comes free the more important one takes it."""
    await plane.node(cpu="1")
    await plane.run(scheduler(plane))
    await plane.api.create(PODS, pod("running", cpu="1"), namespace="default")
    await bound(plane, "running")
    await plane.api.create(PODS, pod("low", cpu="1", priority=1), namespace="default")
    await plane.api.create(PODS, pod("high", cpu="1", priority=10), namespace="default")
    await plane.quiet()
    await plane.api.delete(PODS, "running", "default", grace_seconds=0)
    await bound(plane, "high")
    await plane.quiet()
    assert "nodeName" not in (await plane.there(PODS, "low"))["spec"]


async def test_the_books_are_rebuilt_from_what_is_bound(plane: World) -> None:
    """After a restart nothing is given away twice."""
    await plane.node(cpu="1")
    await plane.api.create(PODS, pod("old", cpu="1"), namespace="default")
    await plane.api.subresource(PODS, "old", "default", "binding", {"target": {"name": "node"}})
    await plane.run(scheduler(plane))
    await plane.api.create(PODS, pod("new", cpu="1"), namespace="default")
    await plane.quiet()
    assert "nodeName" not in (await plane.there(PODS, "new"))["spec"]


@pytest.mark.slow
async def test_two_thousand_workloads_cost_the_store_a_few_writes_each(plane: World) -> None:
    await plane.node(cpu="100k", memory="10Ti", pods="100k")
    await plane.run(scheduler(plane))
    before = plane.verbs.store.state.revision
    for start in range(0, 2000, 200):
        await asyncio.gather(
            *(plane.api.create(PODS, pod(f"p{i}"), namespace="default") for i in range(start, start + 200))
        )

    async def all_bound() -> bool:
        return all(o["spec"].get("nodeName") for o in plane.informers.of(PODS).items())

    await plane.until(all_bound, 60)
    assert len(plane.informers.of(PODS)) == 2000
    writes = plane.verbs.store.state.revision - before
    assert writes <= 2000 * WRITES, f"{writes} writes"
