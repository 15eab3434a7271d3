"""Anything at any time: users, crashing guests, quota and controllers that die at random points; at rest all is as wanted."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from controllers_support import Object, World, vm, world
from isoplane.client.controller import Controller
from isoplane.client.informer import Informers
from isoplane.controllers.garbagecollector import GarbageCollector
from isoplane.controllers.scheduler import Scheduler
from isoplane.controllers.virtualmachine import VirtualMachineController
from isoplane.objects import metadata
from isoplane.objects.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound
from isoplane.objects.kinds import VIRTUALMACHINEINSTANCES, VIRTUALMACHINES

NAMES = ("one", "two", "three")
STRATEGIES = ("Always", "Halted", "Manual", "RerunOnFailure", "Once")


class Guests(Controller):
    """A node in a few lines: runs what is placed, ends what is deleted, and remembers how many ran under one name."""

    name = "guests"

    def __init__(self, world: World, informers: Informers, running: dict[str, str]) -> None:
        super().__init__(workers=2)
        self._world = world
        self._running = running
        self._instances = self.watch(informers.of(VIRTUALMACHINEINSTANCES))

    async def reconcile(self, key: str) -> float | None:
        vmi = self._instances.by_key(key)
        if vmi is None:
            self._running.pop(key, None)
            return None
        status = vmi.get("status") or {}
        uid, name = metadata.uid(vmi), metadata.name(vmi)
        placed, over = bool(status.get("nodeName")), status.get("phase") in ("Succeeded", "Failed")
        if metadata.is_deleting(vmi) and placed and vmi["metadata"].get("deletionGracePeriodSeconds"):
            if not over:
                await self._tell(vmi, "Succeeded")
            self._running.pop(key, None)
            await self._world.api.delete(VIRTUALMACHINEINSTANCES, name, "default", grace_seconds=0, uid=uid)
        elif placed and not over and status.get("phase") != "Running" and not metadata.is_deleting(vmi):
            assert self._running.get(key, uid) == uid, "two guests under one name"
            self._running[key] = uid
            await self._tell(vmi, "Running")
        elif over:
            self._running.pop(key, None)
        return None

    async def _tell(self, vmi: Object, phase: str) -> None:
        status = {**(vmi.get("status") or {}), "phase": phase}
        stamp = {"phase": phase, "phaseTransitionTimestamp": metadata.rfc3339(self._world.clock())}
        status["phaseTransitionTimestamps"] = [*(status.get("phaseTransitionTimestamps") or ()), stamp]
        status["conditions"] = [{"type": "Ready", "status": str(phase == "Running")}]
        await self._world.api.update(VIRTUALMACHINEINSTANCES, {**vmi, "status": status}, subresource="status")


async def begin(plane: World, running: dict[str, str], dice: random.Random) -> None:
    """A plane after kill -9: nothing is remembered."""
    plane.informers = Informers(plane.api)
    await plane.run(
        Scheduler(plane.api, plane.informers, plane.events, clock=plane.clock),
        VirtualMachineController(plane.api, plane.informers, plane.events, clock=plane.clock, jitter=dice.random),
        GarbageCollector(plane.api, plane.informers, plane.verbs.scheme),
        Guests(plane, plane.informers, running),
    )


async def disturb(plane: World, dice: random.Random) -> None:
    """One thing that somebody does."""
    name = dice.choice(NAMES)
    api = plane.api
    match dice.randrange(8):
        case 0:
            await api.create(VIRTUALMACHINES, vm(name, dice.choice(STRATEGIES)), namespace="default")
        case 1:
            policy: Any = dice.choice(["Background", "Foreground", "Orphan", None])
            await api.delete(VIRTUALMACHINES, name, "default", propagation=policy)
        case 2:
            change = {"spec": {"runStrategy": dice.choice(STRATEGIES)}}
            await api.patch(VIRTUALMACHINES, name, "default", change)
        case 3:
            await api.subresource(VIRTUALMACHINES, name, "default", dice.choice(["start", "stop", "restart"]), {})
        case 4:
            await api.delete(VIRTUALMACHINEINSTANCES, name, "default")
        case 5 | 6:
            vmi = await api.get(VIRTUALMACHINEINSTANCES, name, "default")
            if vmi.get("status", {}).get("phase") == "Running" and not metadata.is_deleting(vmi):
                vmi["status"]["phase"] = dice.choice(["Failed", "Succeeded"])
                await api.update(VIRTUALMACHINEINSTANCES, vmi, subresource="status")
        case 7:
            target = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptedByQuota", "message": "by x"}
            vmi = await api.get(VIRTUALMACHINEINSTANCES, name, "default")
            status = vmi.setdefault("status", {})
            status["conditions"] = [*(status.get("conditions") or ()), target]
            await api.update(VIRTUALMACHINEINSTANCES, vmi, subresource="status")
            await api.delete(VIRTUALMACHINEINSTANCES, name, "default", uid=metadata.uid(vmi))


async def come_to_rest(plane: World) -> None:
    """Wait, skipping every back-off, until nothing changes any more."""
    assert plane.manager is not None
    for _ in range(4):
        plane.ahead += 400
        for name in NAMES:
            plane.manager.controllers[1].enqueue(f"default/{name}")
        await plane.quiet(0.03)


async def as_wanted(plane: World) -> None:
    """What each strategy promises, once everything is at rest."""
    for name in NAMES:
        machine = await plane.find(VIRTUALMACHINES, name)
        vmi = await plane.find(VIRTUALMACHINEINSTANCES, name)
        if machine is None:
            # Set free by an orphaning deletion it may live on; then nothing of ours may hold it.
            if vmi is not None:
                assert not metadata.controller_of(vmi)
                assert not vmi["metadata"].get("finalizers")
            continue
        assert not metadata.is_deleting(machine), f"{name} hangs: {machine['metadata']}"
        if vmi is not None and metadata.controller_of(vmi) is None:
            failure = metadata.condition(machine, "Failure")
            assert failure is not None
            assert "is not owned" in failure["message"]
            continue
        strategy, status = machine["spec"]["runStrategy"], machine["status"]
        assert status["created"] is (vmi is not None)
        if vmi is not None:
            assert not metadata.is_deleting(vmi), f"{name}'s instance hangs: {vmi['metadata']}"
            assert metadata.controller_of(vmi) == metadata.owner_reference(machine)
        phase = vmi["status"]["phase"] if vmi is not None else ""
        allowed = {
            "Always": {"Running"},
            "Halted": {""},
            "Manual": {"", "Running", "Succeeded", "Failed"},
            "RerunOnFailure": {"", "Running"},
            "Once": {"Running", "Succeeded", "Failed"},
        }[strategy]
        assert phase in allowed, f"{name} is {strategy} and its instance {phase or 'missing'}: {status}"
        assert status["printableStatus"] == ("Running" if phase == "Running" else "Stopped"), status
        if phase == "Running" or strategy == "Halted":
            assert metadata.condition(machine, "QuotaSuspended") is None
        assert not status.get("stateChangeRequests"), status


@pytest.mark.parametrize("seed", range(8))
async def test_chaos(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    running: dict[str, str] = {}
    async with world(tmp_path) as plane:
        await plane.node(cpu="64", memory="64Gi", pods="100")
        await begin(plane, running, dice)
        for step in range(120):
            try:
                await disturb(plane, dice)
            except (AlreadyExists, NotFound, Conflict, Forbidden, Invalid):
                pass
            if dice.random() < 0.5:
                await asyncio.sleep(dice.random() * 0.004)
            if dice.random() < 0.08 and plane.manager is not None:
                await plane.manager.stop()
                await begin(plane, running, dice)
            if step % 40 == 39:
                await come_to_rest(plane)
                await as_wanted(plane)
        for resource in (VIRTUALMACHINES, VIRTUALMACHINEINSTANCES):
            for name in NAMES:
                try:
                    await plane.api.delete(resource, name, "default")
                except NotFound:
                    continue
        for resource in (VIRTUALMACHINES, VIRTUALMACHINEINSTANCES):
            for name in NAMES:
                await plane.gone(resource, name)
