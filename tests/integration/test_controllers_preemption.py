"""A full node, against the real store and verbs: a higher priority makes a lower one leave, gracefully, and then runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controllers_support import World, pod, vm, vmi, world
from isoplane.controllers.scheduler import Scheduler
from isoplane.controllers.virtualmachine import VirtualMachineController
from isoplane.objects import metadata
from isoplane.objects.kinds import (
    EVENTS,
    NAMESPACES,
    PODDISRUPTIONBUDGETS,
    PODS,
    QUOTAPOLICIES,
    VIRTUALMACHINEINSTANCES,
    VIRTUALMACHINES,
    Resource,
)
from isoplane.objects.metadata import Object
from isoplane.workload.adapters import PRIORITY_ANNOTATION


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def start(plane: World) -> None:
    await plane.run(Scheduler(plane.api, plane.informers, plane.events, clock=plane.clock))


async def create(plane: World, obj: Object, resource: Resource = PODS, namespace: str = "default") -> None:
    await plane.api.create(resource, obj, namespace=namespace)


async def placed(plane: World, name: str, resource: Resource = PODS) -> None:
    async def holds() -> bool:
        found = await plane.find(resource, name)
        return bool(found and (found["spec"].get("nodeName") or (found.get("status") or {}).get("nodeName")))

    await plane.until(holds)


async def leaving(plane: World, name: str, resource: Resource = PODS, namespace: str = "default") -> Object:
    async def holds() -> Any:
        found = await plane.there(resource, name, namespace)
        return found if found["metadata"].get("deletionTimestamp") else None

    found: Object = await plane.until(holds)
    return found


async def stays(plane: World, name: str, resource: Resource = PODS) -> None:
    await plane.quiet()
    assert not (await plane.there(resource, name))["metadata"].get("deletionTimestamp")


async def end(plane: World, name: str, resource: Resource = PODS) -> None:
    """Play the node: the victim has ended, and is removed."""
    await plane.api.delete(resource, name, "default", grace_seconds=0)


async def test_a_lower_priority_leaves_gracefully_and_the_higher_one_gets_its_place(plane: World) -> None:
    await plane.node(cpu="1")
    await start(plane)
    await create(plane, pod("low", cpu="800m", terminationGracePeriodSeconds=20))
    await placed(plane, "low")
    await plane.status(PODS, "low", phase="Running")
    await create(plane, pod("high", cpu="800m", priority=1000))
    victim = await leaving(plane, "low")
    assert victim["metadata"]["deletionGracePeriodSeconds"] == 20
    condition = metadata.condition(victim, "DisruptionTarget")
    assert condition is not None
    assert (condition["status"], condition["reason"]) == ("True", "PreemptionByScheduler")

    async def nominated() -> bool:
        return (await plane.there(PODS, "high"))["status"].get("nominatedNodeName") == "node"

    await plane.until(nominated)
    await create(plane, pod("thief", cpu="200m", priority=500))
    await create(plane, pod("bigger-thief", cpu="800m", priority=500))
    await end(plane, "low")
    await placed(plane, "high")
    await placed(plane, "thief")  # there is room beside what was kept
    assert "nominatedNodeName" not in (await plane.there(PODS, "high"))["status"]
    assert not (await plane.there(PODS, "bigger-thief"))["spec"].get("nodeName")
    await plane.events.flush()
    told = [e for e in (await plane.api.list(EVENTS, "default")).items if e["reason"] == "Preempted"]
    assert [e["involvedObject"]["name"] for e in told] == ["low"]


async def test_a_machine_leaves_for_a_pod_and_a_pod_for_a_machine(plane: World) -> None:
    await plane.node(cpu="150m")
    await start(plane)
    await create(plane, vmi("guest"), VIRTUALMACHINEINSTANCES)
    await placed(plane, "guest", VIRTUALMACHINEINSTANCES)
    await create(plane, pod("mid", cpu="100m", priority=500))
    victim = await leaving(plane, "guest", VIRTUALMACHINEINSTANCES)
    condition = metadata.condition(victim, "DisruptionTarget")
    assert condition is not None
    assert condition["reason"] == "PreemptionByScheduler"
    await end(plane, "guest", VIRTUALMACHINEINSTANCES)
    await placed(plane, "mid")
    critical = vmi("critical")
    critical["metadata"]["annotations"] = {PRIORITY_ANNOTATION: "1000"}
    await create(plane, critical, VIRTUALMACHINEINSTANCES)
    await leaving(plane, "mid")
    await end(plane, "mid")
    await placed(plane, "critical", VIRTUALMACHINEINSTANCES)


async def test_a_machine_that_comes_again_waits_behind_whom_it_left_for(plane: World) -> None:
    """The VM makes its instance again at once; it is told why it waits, and nobody leaves a second time."""
    await plane.node(cpu="150m")
    machines = VirtualMachineController(plane.api, plane.informers, plane.events, clock=plane.clock)
    await plane.run(Scheduler(plane.api, plane.informers, plane.events, clock=plane.clock), machines)
    await create(plane, vm("keeper"), VIRTUALMACHINES)
    await placed(plane, "keeper", VIRTUALMACHINEINSTANCES)
    first = metadata.uid(await plane.there(VIRTUALMACHINEINSTANCES, "keeper"))
    await create(plane, pod("mid", cpu="100m", priority=500))
    await leaving(plane, "keeper", VIRTUALMACHINEINSTANCES)
    await end(plane, "keeper", VIRTUALMACHINEINSTANCES)

    async def again() -> bool:
        found = await plane.find(VIRTUALMACHINEINSTANCES, "keeper")
        unschedulable = found and metadata.condition(found, "PodScheduled")
        return bool(found and metadata.uid(found) != first and unschedulable)

    await plane.until(again)
    await placed(plane, "mid")
    await stays(plane, "mid")


async def test_nobody_leaves_for_a_polite_one_or_for_nothing(plane: World) -> None:
    await plane.node(cpu="1")
    await start(plane)
    await create(plane, pod("low", cpu="800m"))
    await placed(plane, "low")
    await create(plane, pod("polite", cpu="800m", priority=1000, preemptionPolicy="Never"))
    await create(plane, pod("huge", cpu="2", priority=1000))
    await create(plane, pod("elsewhere", cpu="800m", priority=1000, nodeSelector={"disk": "ssd"}))
    await stays(plane, "low")


async def test_a_second_scheduler_counts_on_who_is_leaving(plane: World) -> None:
    """After a restart in the middle of a preemption nobody else leaves."""
    await plane.node(cpu="1")
    await start(plane)
    await create(plane, pod("one", cpu="500m"))
    await create(plane, pod("two", cpu="500m"))
    await placed(plane, "one")
    await placed(plane, "two")
    await plane.status(PODS, "one", phase="Running")
    await plane.status(PODS, "two", phase="Running")
    await create(plane, pod("high", cpu="500m", priority=1000))

    async def one_leaves() -> bool:
        pods = (await plane.api.list(PODS, "default")).items
        return any(found["metadata"].get("deletionTimestamp") for found in pods)

    await plane.until(one_leaves)
    assert plane.manager is not None
    await plane.manager.stop()
    await start(plane)
    await plane.quiet()
    await asyncio.sleep(0.05)
    pods = (await plane.api.list(PODS, "default")).items
    assert sum(1 for found in pods if found["metadata"].get("deletionTimestamp")) == 1


async def test_a_budget_sends_another_pod(plane: World) -> None:
    await plane.node(cpu="1")
    await start(plane)
    guarded = pod("guarded", cpu="500m")
    guarded["metadata"]["labels"] = {"app": "db"}
    await create(plane, guarded)
    await create(plane, pod("free", cpu="500m", priority=500))
    await placed(plane, "guarded")
    await placed(plane, "free")
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "db"}}}
    await create(plane, _object(PODDISRUPTIONBUDGETS, "db", spec=budget), PODDISRUPTIONBUDGETS)
    await plane.quiet()
    await create(plane, pod("high", cpu="500m", priority=1000))
    await leaving(plane, "free")
    await stays(plane, "guarded")


async def test_a_guarantee_in_a_cohort_is_exempt(plane: World) -> None:
    await plane.node(cpu="1")
    await start(plane)
    await create(plane, _object(NAMESPACES, "team-b"), NAMESPACES, "")
    policy = {"cohort": "shared", "guaranteed": {"requests.cpu": "500m"}}
    await create(plane, _object(QUOTAPOLICIES, "default", spec=policy), QUOTAPOLICIES, "team-b")
    for name in ("kept", "extra"):
        await create(plane, pod(name, cpu="500m", namespace="team-b"), namespace="team-b")
    await plane.quiet()
    await create(plane, pod("high", cpu="500m", priority=1000))
    await plane.quiet()
    await create(plane, pod("next", cpu="500m", priority=1000))
    await plane.quiet()
    found = (await plane.api.list(PODS, "team-b")).items
    staying = [one for one in found if not one["metadata"].get("deletionTimestamp")]
    assert (len(found), len(staying)) == (2, 1), "what the tenant is guaranteed stays, whatever the priority"


def _object(resource: Resource, name: str, **rest: Any) -> Object:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, **rest}
