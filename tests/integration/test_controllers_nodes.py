"""Silent and vanished nodes, and Events that are told, counted and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controllers_support import World, pod, vmi, world
from isoplane.controllers.eventexpiry import SWEEP, EventExpiry
from isoplane.controllers.events import BURST, Recorder
from isoplane.controllers.nodelifecycle import UNREACHABLE_TAINT, NodeLifecycleController
from isoplane.objects import metadata
from isoplane.objects.kinds import EVENTS, LEASES, NODES, PODS, VIRTUALMACHINEINSTANCES

READY = [{"type": "Ready", "status": "True"}]


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


class Forward:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def watched(plane: World) -> Forward:
    """A node with a lease, a Pod and a VMI that are ready on it, and the controller that watches."""
    clock = Forward()
    await plane.node()
    lease = {
        "apiVersion": LEASES.api_version,
        "kind": "Lease",
        "metadata": {"name": "node", "namespace": "kube-node-lease"},
        "spec": {"leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"},
    }
    await plane.api.create(LEASES, lease, namespace="kube-node-lease")
    await plane.api.create(PODS, pod("web"), namespace="default")
    await plane.api.subresource(PODS, "web", "default", "binding", {"target": {"name": "node"}})
    await plane.status(PODS, "web", phase="Running", conditions=READY)
    await plane.api.create(VIRTUALMACHINEINSTANCES, vmi("guest"), namespace="default")
    await plane.status(VIRTUALMACHINEINSTANCES, "guest", nodeName="node", phase="Running", conditions=READY)
    await plane.run(
        NodeLifecycleController(plane.api, plane.informers, plane.events, clock=plane.clock, monotonic=clock)
    )
    await plane.quiet()
    return clock


def look(plane: World) -> None:
    assert plane.manager is not None
    plane.manager.controllers[0].enqueue("node")


async def ready(plane: World, resource: Any, name: str) -> str:
    found = metadata.condition(await plane.there(resource, name), "Ready")
    return str((found or {}).get("status"))


async def test_a_node_that_renews_is_left_alone(plane: World) -> None:
    clock = await watched(plane)
    clock.now += 39
    look(plane)
    await plane.quiet()
    assert await ready(plane, NODES, "node") == "True"


async def test_a_silent_node_and_what_runs_on_it_are_told_unknown(plane: World) -> None:
    clock = await watched(plane)
    clock.now += 41
    look(plane)

    async def doubted() -> bool:
        states = [await ready(plane, NODES, "node"), await ready(plane, PODS, "web")]
        return [*states, await ready(plane, VIRTUALMACHINEINSTANCES, "guest")] == ["Unknown"] * 3

    await plane.until(doubted)
    await plane.quiet()
    web = await plane.there(PODS, "web")
    assert web["status"]["phase"] == "Running", "no phase is invented"
    taints = (await plane.there(NODES, "node"))["spec"]["taints"]
    assert [t["key"] for t in taints] == [UNREACHABLE_TAINT]

    # It is back: it says so itself, and the taint goes.
    await plane.api.patch(LEASES, "node", "kube-node-lease", {"spec": {"renewTime": "2026-01-01T00:01:00.000000Z"}})
    await plane.status(NODES, "node", "", conditions=READY)

    async def welcome() -> bool:
        return not (await plane.there(NODES, "node"))["spec"].get("taints")

    await plane.until(welcome)


async def test_a_node_that_took_its_leave_gets_time_to_come_back(plane: World) -> None:
    clock = await watched(plane)
    await plane.status(NODES, "node", "", conditions=[{"type": "Ready", "status": "Unknown"}])
    await plane.quiet()
    assert await ready(plane, PODS, "web") == "True"
    clock.now += 11
    look(plane)

    async def doubted() -> bool:
        return await ready(plane, PODS, "web") == "Unknown"

    await plane.until(doubted)


async def test_what_was_bound_to_a_vanished_node_is_removed_after_a_while(plane: World) -> None:
    clock = await watched(plane)
    await plane.api.delete(NODES, "node")
    await plane.quiet()
    assert await plane.find(PODS, "web") is not None
    clock.now += 41
    look(plane)
    await plane.gone(PODS, "web")
    await plane.gone(VIRTUALMACHINEINSTANCES, "guest")


async def events(plane: World) -> list[Any]:
    await plane.events.flush()
    return (await plane.api.list(EVENTS, "default")).items


async def test_an_event_says_what_happened_to_whom_and_counts(plane: World) -> None:
    web = await plane.api.create(PODS, pod("web"), namespace="default")
    plane.events(web, "Normal", "Pulled", "the image is here")
    [event] = await events(plane)
    assert event["involvedObject"]["uid"] == metadata.uid(web)
    assert (event["reason"], event["type"], event["count"]) == ("Pulled", "Normal", 1)
    assert event["metadata"]["name"].startswith("web.")
    for _ in range(3):
        plane.events(web, "Normal", "Pulled", "the image is here")
    assert [e["count"] for e in await events(plane)] == [4]
    plane.ahead += 601
    plane.events(web, "Normal", "Pulled", "the image is here")
    assert sorted(e["count"] for e in await events(plane)) == [1, 4]


async def test_one_object_cannot_fill_the_store(plane: World) -> None:
    web = await plane.api.create(PODS, pod("web"), namespace="default")
    for number in range(BURST + 50):
        plane.events(web, "Warning", "Failed", f"attempt {number}")
    assert len(await events(plane)) <= BURST + 1
    assert plane.events.dropped >= 49


async def test_an_event_that_cannot_be_written_hurts_nobody(plane: World) -> None:
    ghost = {**pod("ghost", namespace="nowhere"), "kind": "Pod"}
    plane.events(ghost, "Normal", "Seen", "once")
    assert await events(plane) == []


async def test_a_very_long_message_is_cut(plane: World) -> None:
    web = await plane.api.create(PODS, pod("web"), namespace="default")
    plane.events(web, "Warning", "Failed", "x" * 5000)
    [event] = await events(plane)
    assert len(event["message"]) <= 1024


async def test_events_expire(plane: World) -> None:
    web = await plane.api.create(PODS, pod("web"), namespace="default")
    plane.events(web, "Normal", "Old", "long ago")
    await events(plane)
    expiry = EventExpiry(plane.api, clock=plane.clock)
    await plane.run(expiry)
    await plane.quiet()
    assert len(await events(plane)) == 1
    plane.ahead += 3500
    plane.events(web, "Normal", "New", "just now")
    await events(plane)
    plane.ahead += 200
    expiry.enqueue(SWEEP)

    async def swept() -> bool:
        return [e["reason"] for e in await events(plane)] == ["New"]

    await plane.until(swept)


async def test_beyond_the_limit_the_oldest_go_first(plane: World) -> None:
    recorder = Recorder(plane.api, "test", clock=plane.clock)
    web = await plane.api.create(PODS, pod("web"), namespace="default")
    for number in range(5):
        recorder(web, "Normal", f"Reason{number}", "x")
        await recorder.flush()
        plane.ahead += 2
    expiry = EventExpiry(plane.api, clock=plane.clock, most=2)
    assert await expiry.reconcile(SWEEP) is not None
    assert sorted(e["reason"] for e in await events(plane)) == ["Reason3", "Reason4"]
    await asyncio.sleep(0)
    await recorder.close()
