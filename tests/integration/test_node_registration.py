"""A node tells of itself: what it has, that it lives, and that it lives after others thought it lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from controllers_support import World, world
from isoplane.controllers.nodelifecycle import lost_node
from isoplane.node.register import REPORT_SECONDS, Registration, simulated_machine
from isoplane.objects import metadata
from isoplane.objects.errors import NotFound
from isoplane.objects.kinds import LEASES, NODES


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def registration(plane: World, memory: int = 2**30) -> Registration:
    machine = replace(simulated_machine(), memory=memory, boot_id="b007")
    return Registration(plane.api, "here", machine, "10.0.0.1", plane.clock)


async def ready(plane: World) -> dict[str, str]:
    return dict(metadata.condition(await plane.there(NODES, "here"), "Ready") or {})


async def test_a_node_says_what_it_has_and_since_when_it_is_ready(plane: World) -> None:
    await registration(plane).register()
    node = await plane.there(NODES, "here")
    assert node["status"]["nodeInfo"]["bootID"] == "b007"
    assert node["status"]["allocatable"]["memory"] == "1048576Ki"
    told = await ready(plane)
    assert told["status"] == "True"
    assert told["lastHeartbeatTime"]
    assert (await plane.there(LEASES, "here", "kube-node-lease"))["spec"]["holderIdentity"] == "here"


async def test_a_report_of_nothing_new_is_not_written(plane: World) -> None:
    here = registration(plane)
    await here.register()
    before = await plane.there(NODES, "here")
    plane.ahead += REPORT_SECONDS - 10
    await here.report()
    assert await plane.there(NODES, "here") == before
    plane.ahead += 20
    await here.report()
    assert (await ready(plane))["lastHeartbeatTime"] > before["status"]["conditions"][0]["lastHeartbeatTime"]
    assert (await ready(plane))["lastTransitionTime"] == before["status"]["conditions"][0]["lastTransitionTime"]


async def test_a_node_that_was_thought_lost_says_that_it_is_back(plane: World) -> None:
    here = registration(plane)
    await here.register()
    node = await plane.there(NODES, "here")
    now = metadata.rfc3339(plane.clock())
    await plane.api.update(NODES, {**node, "status": lost_node(node, now)}, subresource="status")
    assert (await ready(plane))["status"] == "Unknown"
    assert (await ready(plane))["lastHeartbeatTime"], "when it was heard last is kept"
    await here.report()
    assert (await ready(plane))["status"] == "True"


async def test_labels_of_people_and_what_changed_meanwhile(plane: World) -> None:
    await registration(plane).register()
    await plane.api.patch(NODES, "here", "", {"metadata": {"labels": {"rack": "7"}}}, kind="merge")
    await registration(plane, memory=2**31).register()
    node = await plane.there(NODES, "here")
    assert node["metadata"]["labels"]["rack"] == "7"
    assert node["status"]["capacity"]["memory"] == "2097152Ki"


async def test_a_deleted_node_is_not_told_again_behind_anybodys_back(plane: World) -> None:
    here = registration(plane)
    await here.register()
    await plane.api.delete(NODES, "here")
    with pytest.raises(NotFound):
        await here.report()
