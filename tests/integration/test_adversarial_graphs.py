"""No object may stop the plane or its start: odd graphs of owners, against every controller, and a restart on each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from controllers_support import World, owned_by, pod, vm, vmi, world
from isoplane.client.controller import Controller
from isoplane.client.http import HttpApi
from isoplane.controllers.quota import QuotaController
from isoplane.controllers.quota_budgets import BudgetController
from isoplane.controllers.standard import standard_controllers
from isoplane.node.parts import NodeOptions
from isoplane.objects import metadata
from isoplane.objects.errors import NotFound
from isoplane.objects.kinds import (
    CONFIGMAPS,
    NAMESPACES,
    NODES,
    PODS,
    VIRTUALMACHINEINSTANCES,
    VIRTUALMACHINES,
    Resource,
)
from isoplane.objects.metadata import Object
from isoplane.plane import Plane, PlaneOptions
from plane_support import PlaneProcess

Graph = Callable[[World], Any]


async def run(plane: World) -> None:
    """Every controller that a plane runs."""
    controllers = standard_controllers(plane.api, plane.informers, plane.events, plane.verbs.scheme)
    controllers += [QuotaController(plane.api, plane.informers), BudgetController(plane.api, plane.informers)]
    await plane.run(*controllers)


def config(name: str, namespace: str = "default") -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}


async def own(plane: World, resource: Resource, name: str, *owners: Object, namespace: str = "default") -> None:
    """Set an existing object's owners."""
    references = [owned_by({"metadata": {}}, owner)["metadata"]["ownerReferences"][0] for owner in owners]
    patch = {"metadata": {"ownerReferences": references}}
    await plane.api.patch(resource, name, namespace, patch, kind="merge")


async def ring(plane: World, resource: Resource = PODS, size: int = 3) -> list[str]:
    """``size`` objects of which each owns the next, the last one the first."""
    make = {PODS: pod, CONFIGMAPS: config, VIRTUALMACHINEINSTANCES: vmi}[resource]
    names = [f"ring-{number}" for number in range(size)]
    made = [await plane.api.create(resource, make(name), namespace="default") for name in names]
    for number, name in enumerate(names):
        await own(plane, resource, name, made[number - 1])
    return names


async def three_pods(plane: World) -> None:
    """Upstream's conformance test: should not be blocked by dependency circle."""
    await ring(plane)
    await plane.api.delete(PODS, "ring-0", "default", propagation="Foreground", grace_seconds=0)


async def three_machines_all_in_the_foreground(plane: World) -> None:
    for name in await ring(plane, VIRTUALMACHINEINSTANCES):
        await plane.api.delete(VIRTUALMACHINEINSTANCES, name, "default", propagation="Foreground", grace_seconds=0)


async def its_own_owner(plane: World) -> None:
    made = await plane.api.create(CONFIGMAPS, config("self"), namespace="default")
    await own(plane, CONFIGMAPS, "self", made)
    await plane.api.delete(CONFIGMAPS, "self", "default", propagation="Foreground")


async def an_owner_in_another_namespace(plane: World) -> None:
    for name in ("one", "two"):
        await plane.api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    first = await plane.api.create(CONFIGMAPS, config("a", "one"), namespace="one")
    second = await plane.api.create(CONFIGMAPS, owned_by(config("b", "two"), first), namespace="two")
    await own(plane, CONFIGMAPS, "a", second, namespace="one")
    for name in ("one", "two"):
        await plane.api.delete(NAMESPACES, name)


async def kinds_of_all_scopes(plane: World) -> None:
    """A node owned by a Pod that it owns; a machine and its VM that own each other; owners that never were."""
    node = await plane.api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
    made = await plane.api.create(PODS, owned_by(pod("p"), node), namespace="default")
    patch = {"metadata": {"ownerReferences": owned_by({"metadata": {}}, made)["metadata"]["ownerReferences"]}}
    await plane.api.patch(NODES, "n", "", patch, kind="merge")
    machine = await plane.api.create(VIRTUALMACHINES, vm("m"), namespace="default")
    instance = await plane.there(VIRTUALMACHINEINSTANCES, "m")
    await own(plane, VIRTUALMACHINES, "m", instance)
    await own(plane, VIRTUALMACHINEINSTANCES, "m", machine, {**instance, "metadata": {"name": "x", "uid": "never"}})
    await plane.api.delete(VIRTUALMACHINES, "m", "default", propagation="Foreground")
    await plane.api.delete(NODES, "n", propagation="Foreground")


async def a_ring_with_a_finalizer(plane: World) -> None:
    """Somebody's finalizer keeps one of them: the others go, nothing spins."""
    await ring(plane, CONFIGMAPS)
    await plane.api.patch(
        CONFIGMAPS, "ring-1", "default", {"metadata": {"finalizers": ["example.com/x"]}}, kind="merge"
    )
    await plane.api.delete(CONFIGMAPS, "ring-0", "default", propagation="Foreground")


@pytest.mark.parametrize(
    ("graph", "left"),
    [
        (three_pods, set()),
        (three_machines_all_in_the_foreground, set()),
        (its_own_owner, set()),
        (an_owner_in_another_namespace, set()),
        (kinds_of_all_scopes, set()),
        (a_ring_with_a_finalizer, {"ring-1"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_it_ends_and_everybody_is_answered(tmp_path: Path, graph: Graph, left: set[str]) -> None:
    async with world(tmp_path) as plane:
        await run(plane)
        await graph(plane)
        await settle(plane, left)
    async with world(tmp_path) as plane:  # on what is left, and before anything was done about it
        await run(plane)
        await settle(plane, left)


@pytest.mark.parametrize(
    "graph", [three_pods, its_own_owner, kinds_of_all_scopes, three_machines_all_in_the_foreground]
)
async def test_a_plane_that_starts_on_it_ends_it_too(tmp_path: Path, graph: Graph) -> None:
    async with world(tmp_path) as plane:  # killed before a controller could do anything
        if graph is kinds_of_all_scopes:
            await plane.api.create(VIRTUALMACHINEINSTANCES, vmi("m"), namespace="default")
        await graph(plane)
    async with world(tmp_path) as plane:
        await run(plane)
        await settle(plane, set())


async def test_thousands_of_dependents_hold_nobody_up(tmp_path: Path) -> None:
    many = 2_000  # as many as a quick test bears; the graph itself is tested with 10,000
    async with world(tmp_path) as plane:
        await run(plane)
        owner = await plane.api.create(CONFIGMAPS, config("owner"), namespace="default")
        dependents = [owned_by(config(f"d-{number}"), owner) for number in range(many)]
        await asyncio.gather(*(plane.api.create(CONFIGMAPS, one, namespace="default") for one in dependents))
        await plane.api.delete(CONFIGMAPS, "owner", "default", propagation="Foreground")

        async def gone() -> bool:
            return await plane.find(CONFIGMAPS, "owner") is None

        await plane.until(gone, within=60)
        assert all(metrics.stalled == 0 for metrics in plane.manager.metrics().values()) if plane.manager else False


class Stuck(Controller):
    """A controller that never comes to its work."""

    name = "stuck"

    async def started(self) -> None:
        await asyncio.Event().wait()

    async def reconcile(self, key: str) -> float | None:
        return None


async def test_a_plane_answers_and_stops_whatever_its_controllers_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isoplane.plane.standard_controllers", lambda *_, **__: [Stuck()])
    options = PlaneOptions(tmp_path / "data", "127.0.0.1:0", node=NodeOptions(simulated=True))
    plane, serving = Plane(options), asyncio.Event()
    starting = asyncio.ensure_future(plane.start(serving.set))
    await asyncio.wait_for(serving.wait(), 30)
    async with HttpApi.from_kubeconfig(options.kubeconfig_path) as api:
        assert await api.text("/readyz") == "ok"
        await api.create(CONFIGMAPS, config("written"), namespace="default")
        assert await api.get(CONFIGMAPS, "written", "default")
    assert not starting.done()
    starting.cancel()
    await asyncio.wait({starting}, timeout=30)
    assert starting.cancelled()


async def test_a_whole_plane_serves_a_store_of_odd_graphs_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as plane:
        await plane.api.create(VIRTUALMACHINEINSTANCES, vmi("m"), namespace="default")
        for graph in (
            three_pods, three_machines_all_in_the_foreground, its_own_owner, an_owner_in_another_namespace,
            kinds_of_all_scopes, a_ring_with_a_finalizer,
        ):  # fmt: skip
            await graph(plane)
    process = PlaneProcess(tmp_path, "--runtime", "simulated")
    try:
        process.start()
        async with process.api() as api:
            assert await api.get(NAMESPACES, "default")

            async def left() -> set[str]:
                found = [await api.list(resource) for resource in (PODS, CONFIGMAPS, VIRTUALMACHINES)]
                return {metadata.name(obj) for page in found for obj in page.items}

            deadline = time.monotonic() + 30
            while not (now := await left()) <= {"kube-root-ca.crt", "ring-1"}:
                assert time.monotonic() < deadline, f"still there: {now}"
                await asyncio.sleep(0.1)
        assert process.stop() == 0
    finally:
        process.close()


async def settle(plane: World, left: set[str]) -> None:
    """Only what ``left`` names is still there, and no controller came back to a key without progress."""
    system = {"kube-root-ca.crt", "default"}

    async def names() -> set[str]:
        found = set()
        for resource in (PODS, CONFIGMAPS, VIRTUALMACHINES, VIRTUALMACHINEINSTANCES, NODES):
            for obj in (await plane.api.list(resource)).items:
                # Play the node: what was on its way out has ended.
                if resource in (PODS, VIRTUALMACHINEINSTANCES) and metadata.is_deleting(obj):
                    with suppress(NotFound):  # it went meanwhile
                        await plane.api.delete(resource, metadata.name(obj), metadata.namespace(obj), grace_seconds=0)
                found.add(metadata.name(obj))
        return found - system

    async def holds() -> bool:
        return await names() == left

    await plane.until(holds, within=20)
    assert plane.manager is not None
    assert all(metrics.stalled == 0 for metrics in plane.manager.metrics().values())
