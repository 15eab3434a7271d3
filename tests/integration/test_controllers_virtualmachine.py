"""VirtualMachines against the real store and verbs; the test plays the node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controllers_support import Object, World, vm, vmi, world
from isoplane.controllers.virtualmachine import VirtualMachineController
from isoplane.controllers.virtualmachine_plan import FINALIZER
from isoplane.objects import metadata
from isoplane.objects.errors import Conflict
from isoplane.objects.kinds import CONFIGMAPS, VIRTUALMACHINEINSTANCES, VIRTUALMACHINES


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        controller = VirtualMachineController(
            made.api, made.informers, made.events, clock=made.clock, jitter=lambda: 0.0
        )
        await made.run(controller)
        yield made


async def started(plane: World, name: str = "guest", not_uid: str = "") -> Object:
    async def holds() -> Object | None:
        found = await plane.find(VIRTUALMACHINEINSTANCES, name)
        return found if found and metadata.uid(found) != not_uid and not metadata.is_deleting(found) else None

    found: Object = await plane.until(holds)
    return found


async def printed(plane: World, word: str, name: str = "guest") -> Object:
    async def holds() -> Object | None:
        found = await plane.find(VIRTUALMACHINES, name)
        return found if found and (found.get("status") or {}).get("printableStatus") == word else None

    found: Object = await plane.until(holds)
    return found


def ran(plane: World, phase: str, seconds: float = 5.0) -> list[Object]:
    now = plane.clock()
    return [
        {"phase": "Running", "phaseTransitionTimestamp": metadata.rfc3339(now - seconds)},
        {"phase": phase, "phaseTransitionTimestamp": metadata.rfc3339(now)},
    ]


async def runs(plane: World, name: str = "guest") -> None:
    """The node has started the guest."""
    await plane.status(
        VIRTUALMACHINEINSTANCES, name, phase="Running", nodeName="node", conditions=[{"type": "Ready", "status": "True"}],
        phaseTransitionTimestamps=[{"phase": "Running", "phaseTransitionTimestamp": metadata.rfc3339(plane.clock())}],
    )  # fmt: skip


async def node_ends(plane: World, uid: str, phase: str = "Succeeded", name: str = "guest") -> None:
    """The node was asked to stop the guest: it tells the end and gives the object up."""

    async def asked() -> bool:
        found = await plane.find(VIRTUALMACHINEINSTANCES, name)
        return bool(found and metadata.uid(found) == uid and metadata.is_deleting(found))

    await plane.until(asked)
    await plane.status(VIRTUALMACHINEINSTANCES, name, phase=phase, phaseTransitionTimestamps=ran(plane, phase))
    await plane.api.delete(VIRTUALMACHINEINSTANCES, name, "default", grace_seconds=0, uid=uid)


async def act(plane: World, action: str, body: Any = None) -> None:
    await plane.api.subresource(VIRTUALMACHINES, "guest", "default", action, body or {})


async def test_always_runs_and_runs_again(plane: World) -> None:
    await plane.api.create(VIRTUALMACHINES, vm("guest"), namespace="default")
    first = await started(plane)
    assert first["metadata"]["labels"] == {"app": "guest"}
    assert first["metadata"]["finalizers"] == [FINALIZER]
    await printed(plane, "Starting")
    await runs(plane)
    machine = await printed(plane, "Running")
    assert machine["status"]["ready"] is True
    assert machine["status"]["observedGeneration"] == machine["metadata"]["generation"]

    stamps = ran(plane, "Succeeded")
    await plane.status(VIRTUALMACHINEINSTANCES, "guest", phase="Succeeded", phaseTransitionTimestamps=stamps)
    again = await started(plane, not_uid=metadata.uid(first))
    assert metadata.controller_of(again) == metadata.owner_reference(machine)


async def test_a_crash_is_waited_out(plane: World) -> None:
    await plane.api.create(VIRTUALMACHINES, vm("guest"), namespace="default")
    first = await started(plane)
    await runs(plane)
    await plane.status(VIRTUALMACHINEINSTANCES, "guest", phase="Failed", phaseTransitionTimestamps=ran(plane, "Failed"))
    await plane.gone(VIRTUALMACHINEINSTANCES, "guest")
    await plane.quiet()
    machine = await printed(plane, "CrashLoopBackOff")
    assert machine["status"]["startFailure"]["consecutiveFailCount"] == 1
    assert machine["status"]["startFailure"]["lastFailedVMIUID"] == metadata.uid(first)
    assert machine["status"]["created"] is False
    plane.ahead = 11
    assert plane.manager is not None
    plane.manager.controllers[0].enqueue("default/guest")
    await started(plane)
    await printed(plane, "Starting")


async def test_stop_and_start(plane: World) -> None:
    await plane.api.create(VIRTUALMACHINES, vm("guest"), namespace="default")
    first = await started(plane)
    await runs(plane)
    await printed(plane, "Running")
    await act(plane, "stop")
    await printed(plane, "Stopping")
    await node_ends(plane, metadata.uid(first))
    machine = await printed(plane, "Stopped")
    assert machine["spec"]["runStrategy"] == "Halted"
    await plane.gone(VIRTUALMACHINEINSTANCES, "guest")
    with pytest.raises(Conflict):
        await act(plane, "stop")
    await act(plane, "start")
    await started(plane)


async def test_restart_makes_another_instance(plane: World) -> None:
    await plane.api.create(VIRTUALMACHINES, vm("guest"), namespace="default")
    first = await started(plane)
    await runs(plane)
    await printed(plane, "Running")
    await act(plane, "restart")
    await node_ends(plane, metadata.uid(first))
    await started(plane, not_uid=metadata.uid(first))
    await runs(plane)

    async def settled() -> bool:
        found = await plane.there(VIRTUALMACHINES, "guest")
        return "stateChangeRequests" not in found["status"] and found["status"]["printableStatus"] == "Running"

    await plane.until(settled)


async def test_manual_does_what_it_is_told(plane: World) -> None:
    await plane.api.create(VIRTUALMACHINES, vm("guest", "Manual"), namespace="default")
    await printed(plane, "Stopped")
    await act(plane, "start")
    first = await started(plane)
    await runs(plane)
    await printed(plane, "Running")
    await act(plane, "stop")
    await node_ends(plane, metadata.uid(first))
    await plane.gone(VIRTUALMACHINEINSTANCES, "guest")
    machine = await printed(plane, "Stopped")
    assert machine["spec"]["runStrategy"] == "Manual"
    await plane.quiet()
    assert await plane.find(VIRTUALMACHINEINSTANCES, "guest") is None


async def test_manual_restart_of_an_ended_guest(plane: World) -> None:
    await plane.api.create(VIRTUALMACHINES, vm("guest", "Manual"), namespace="default")
    await printed(plane, "Stopped")
    await act(plane, "start")
    first = await started(plane)
    stamps = ran(plane, "Succeeded")
    await plane.status(VIRTUALMACHINEINSTANCES, "guest", phase="Succeeded", phaseTransitionTimestamps=stamps)
    await printed(plane, "Stopped")
    await act(plane, "start")
    await started(plane, not_uid=metadata.uid(first))


async def test_rerun_on_failure(plane: World) -> None:
    await plane.api.create(VIRTUALMACHINES, vm("guest", "RerunOnFailure"), namespace="default")
    first = await started(plane)
    await runs(plane)
    long_run = ran(plane, "Failed", seconds=700)
    await plane.status(VIRTUALMACHINEINSTANCES, "guest", phase="Failed", phaseTransitionTimestamps=long_run)
    second = await started(plane, not_uid=metadata.uid(first))
    await runs(plane)
    stamps = ran(plane, "Succeeded")
    await plane.status(VIRTUALMACHINEINSTANCES, "guest", phase="Succeeded", phaseTransitionTimestamps=stamps)
    await plane.gone(VIRTUALMACHINEINSTANCES, "guest")
    await printed(plane, "Stopped")
    await plane.quiet()
    assert await plane.find(VIRTUALMACHINEINSTANCES, "guest") is None
    assert metadata.uid(second) != metadata.uid(first)


async def test_once_keeps_what_ended(plane: World) -> None:
    await plane.api.create(VIRTUALMACHINES, vm("guest", "Once"), namespace="default")
    first = await started(plane)
    stamps = ran(plane, "Succeeded")
    await plane.status(VIRTUALMACHINEINSTANCES, "guest", phase="Succeeded", phaseTransitionTimestamps=stamps)
    await printed(plane, "Stopped")
    await plane.quiet()
    assert metadata.uid(await plane.there(VIRTUALMACHINEINSTANCES, "guest")) == metadata.uid(first)


async def test_the_deprecated_running_field(plane: World) -> None:
    await plane.api.create(VIRTUALMACHINES, vm("guest", None, running=True), namespace="default")
    await started(plane)
    await act(plane, "stop")
    machine = await plane.there(VIRTUALMACHINES, "guest")
    assert machine["spec"]["running"] is False


async def test_deleting_a_vm_stops_its_guest_first(plane: World) -> None:
    await plane.api.create(VIRTUALMACHINES, vm("guest"), namespace="default")
    first = await started(plane)
    await runs(plane)
    await printed(plane, "Running")
    await plane.api.delete(VIRTUALMACHINES, "guest", "default")
    await printed(plane, "Terminating")
    await node_ends(plane, metadata.uid(first))
    await plane.gone(VIRTUALMACHINEINSTANCES, "guest")
    await plane.gone(VIRTUALMACHINES, "guest")


async def test_a_change_of_the_template_asks_for_a_restart(plane: World) -> None:
    await plane.api.create(VIRTUALMACHINES, vm("guest"), namespace="default")
    first = await started(plane)
    await runs(plane)
    change = {"spec": {"template": {"spec": {"domain": {"memory": {"guest": "256Mi"}}}}}}
    await plane.api.patch(VIRTUALMACHINES, "guest", "default", change)

    async def required() -> bool:
        return metadata.condition(await plane.there(VIRTUALMACHINES, "guest"), "RestartRequired") is not None

    await plane.until(required)
    await act(plane, "restart")
    await node_ends(plane, metadata.uid(first))
    second = await started(plane, not_uid=metadata.uid(first))
    assert second["spec"]["domain"]["memory"]["guest"] == "256Mi"

    async def cleared() -> bool:
        return not await required()

    await plane.until(cleared)


async def test_an_instance_in_the_way_is_told_and_waited_for(plane: World) -> None:
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "1", "controller": True}
    other |= {
        "uid": metadata.uid(await plane.api.create(CONFIGMAPS, {"metadata": {"name": "other"}}, namespace="default"))
    }
    taken = vmi("guest")
    taken["metadata"]["ownerReferences"] = [other]
    await plane.api.create(VIRTUALMACHINEINSTANCES, taken, namespace="default")
    await plane.api.create(VIRTUALMACHINES, vm("guest"), namespace="default")

    async def told() -> bool:
        failure = metadata.condition(await plane.there(VIRTUALMACHINES, "guest"), "Failure")
        return failure is not None and "is not owned" in failure["message"]

    await plane.until(told)
    await plane.api.delete(VIRTUALMACHINEINSTANCES, "guest", "default")
    found = await started(plane)
    assert (metadata.controller_of(found) or {})["kind"] == VIRTUALMACHINES.kind

    async def forgotten() -> bool:
        return not await told()

    await plane.until(forgotten)


async def test_a_vm_made_again_takes_over_the_instance_it_left_behind(plane: World) -> None:
    await plane.api.create(VIRTUALMACHINES, vm("guest"), namespace="default")
    first = await started(plane)
    await runs(plane)
    await plane.api.delete(VIRTUALMACHINES, "guest", "default", propagation="Orphan")
    # What the garbage collector does then.
    free = {"metadata": {"ownerReferences": None}}
    await plane.api.patch(VIRTUALMACHINEINSTANCES, "guest", "default", free)
    await plane.api.patch(VIRTUALMACHINES, "guest", "default", {"metadata": {"finalizers": None}})
    await plane.gone(VIRTUALMACHINES, "guest")
    again = await plane.api.create(VIRTUALMACHINES, vm("guest"), namespace="default")

    async def owned() -> bool:
        owner = metadata.controller_of(await plane.there(VIRTUALMACHINEINSTANCES, "guest")) or {}
        return owner.get("uid") == metadata.uid(again)

    await plane.until(owned)
    await printed(plane, "Running")
    kept = await plane.there(VIRTUALMACHINEINSTANCES, "guest")
    assert metadata.uid(kept) == metadata.uid(first)
    assert metadata.condition(await plane.there(VIRTUALMACHINES, "guest"), "Failure") is None
    await act(plane, "stop")  # and it is the VM's from now on

    async def leaves() -> bool:
        return metadata.is_deleting(await plane.there(VIRTUALMACHINEINSTANCES, "guest"))

    await plane.until(leaves)


async def test_quota_takes_a_guest_back_and_gives_it_back(plane: World) -> None:
    """Whatever the strategy: told on the VM, created again, told until it runs."""
    await plane.api.create(VIRTUALMACHINES, vm("guest", "Manual"), namespace="default")
    await printed(plane, "Stopped")
    await act(plane, "start")
    first = await started(plane)
    await runs(plane)
    await printed(plane, "Running")
    target = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptedByQuota", "message": "by pod/a/b"}
    await plane.status(VIRTUALMACHINEINSTANCES, "guest", conditions=[target])
    await plane.api.delete(VIRTUALMACHINEINSTANCES, "guest", "default")
    await node_ends(plane, metadata.uid(first))
    await started(plane, not_uid=metadata.uid(first))

    async def suspended() -> Any:
        return metadata.condition(await plane.there(VIRTUALMACHINES, "guest"), "QuotaSuspended")

    found = await plane.until(suspended)
    assert found["message"] == "by pod/a/b"
    await runs(plane)

    async def resumed() -> bool:
        return await suspended() is None

    await plane.until(resumed)
    assert "startFailure" not in (await plane.there(VIRTUALMACHINES, "guest"))["status"]


async def test_an_instance_without_its_vm_does_not_hang(plane: World) -> None:
    """Somebody took the VM's finalizer away: nobody is left to record how its instance ended."""
    await plane.api.create(VIRTUALMACHINES, vm("guest"), namespace="default")
    await started(plane)
    await plane.quiet()
    await plane.api.patch(VIRTUALMACHINES, "guest", "default", {"metadata": {"finalizers": None}})
    orphan = {"metadata": {"ownerReferences": None}}
    await plane.api.patch(VIRTUALMACHINEINSTANCES, "guest", "default", orphan)
    await plane.api.delete(VIRTUALMACHINES, "guest", "default")

    async def released() -> bool:
        found = await plane.find(VIRTUALMACHINES, "guest")
        if found is not None:
            await plane.api.patch(VIRTUALMACHINES, "guest", "default", {"metadata": {"finalizers": None}})
        return found is None

    await plane.until(released)
    await plane.api.delete(VIRTUALMACHINEINSTANCES, "guest", "default", grace_seconds=0)
    await plane.gone(VIRTUALMACHINEINSTANCES, "guest")
