"""Garbage collection and the end of namespaces, against the real store and verbs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controllers_support import Object, World, owned_by, pod, vm, world
from isoplane.controllers.garbagecollector import GarbageCollector
from isoplane.controllers.namespace import NamespaceController
from isoplane.controllers.serviceaccount import ServiceAccountController
from isoplane.controllers.virtualmachine import VirtualMachineController
from isoplane.objects import metadata
from isoplane.objects.errors import Forbidden
from isoplane.objects.kinds import (
    CONFIGMAPS,
    EVENTS,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICEACCOUNTS,
    VIRTUALMACHINEINSTANCES,
    VIRTUALMACHINES,
)


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def config(name: str, namespace: str = "default") -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}


async def create(plane: World, obj: Object) -> Object:
    return await plane.api.create(CONFIGMAPS, obj, namespace=obj["metadata"]["namespace"])


async def family(plane: World) -> tuple[Object, Object, Object]:
    """A parent, its child, its grandchild."""
    parent = await create(plane, config("parent"))
    child = await create(plane, owned_by(config("child"), parent))
    return parent, child, await create(plane, owned_by(config("grandchild"), child))


async def test_background(plane: World) -> None:
    await plane.run(GarbageCollector(plane.api, plane.informers, plane.verbs.scheme))
    await family(plane)
    await plane.api.delete(CONFIGMAPS, "parent", "default", propagation="Background")
    for name in ("parent", "child", "grandchild"):
        await plane.gone(CONFIGMAPS, name)


async def test_foreground_keeps_the_owner_until_its_dependents_are_gone(plane: World) -> None:
    await plane.run(GarbageCollector(plane.api, plane.informers, plane.verbs.scheme))
    parent = await create(plane, config("parent"))
    child = owned_by(config("child"), parent)
    child["metadata"]["finalizers"] = ["example.com/hold"]
    await create(plane, child)
    await plane.api.delete(CONFIGMAPS, "parent", "default", propagation="Foreground")

    async def waits() -> bool:
        return metadata.is_deleting(await plane.there(CONFIGMAPS, "child"))

    await plane.until(waits)
    await plane.quiet()
    assert metadata.is_deleting(await plane.there(CONFIGMAPS, "parent"))
    await plane.api.patch(CONFIGMAPS, "child", "default", {"metadata": {"finalizers": None}})
    await plane.gone(CONFIGMAPS, "child")
    await plane.gone(CONFIGMAPS, "parent")


async def test_orphan(plane: World) -> None:
    await plane.run(GarbageCollector(plane.api, plane.informers, plane.verbs.scheme))
    await family(plane)
    await plane.api.delete(CONFIGMAPS, "parent", "default", propagation="Orphan")
    await plane.gone(CONFIGMAPS, "parent")
    child = await plane.there(CONFIGMAPS, "child")
    assert not child["metadata"].get("ownerReferences")
    assert (await plane.there(CONFIGMAPS, "grandchild"))["metadata"]["ownerReferences"]


async def test_what_lost_its_owner_while_nobody_looked_goes_at_the_start(plane: World) -> None:
    parent, _, _ = await family(plane)
    await plane.api.delete(CONFIGMAPS, "parent", "default")
    again = await create(plane, config("parent"))
    assert metadata.uid(again) != metadata.uid(parent)
    await plane.run(GarbageCollector(plane.api, plane.informers, plane.verbs.scheme))
    await plane.gone(CONFIGMAPS, "child")
    await plane.gone(CONFIGMAPS, "grandchild")
    assert await plane.find(CONFIGMAPS, "parent") is not None


async def test_an_unserved_owner_keeps_its_dependents(plane: World) -> None:
    foreign = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "x"}
    kept = config("kept")
    kept["metadata"]["ownerReferences"] = [foreign]
    await create(plane, kept)
    await plane.run(GarbageCollector(plane.api, plane.informers, plane.verbs.scheme))
    await plane.quiet()
    assert await plane.find(CONFIGMAPS, "kept") is not None


async def test_a_vm_deleted_in_the_foreground_takes_its_instance_along(plane: World) -> None:
    machines = VirtualMachineController(plane.api, plane.informers, plane.events)
    await plane.run(GarbageCollector(plane.api, plane.informers, plane.verbs.scheme), machines)
    await plane.api.create(VIRTUALMACHINES, vm("guest"), namespace="default")
    await plane.there(VIRTUALMACHINEINSTANCES, "guest")
    await plane.quiet()
    await plane.api.delete(VIRTUALMACHINES, "guest", "default", propagation="Foreground")
    await plane.gone(VIRTUALMACHINEINSTANCES, "guest")
    await plane.gone(VIRTUALMACHINES, "guest")


async def test_a_vm_may_leave_its_instance_behind(plane: World) -> None:
    machines = VirtualMachineController(plane.api, plane.informers, plane.events)
    await plane.run(GarbageCollector(plane.api, plane.informers, plane.verbs.scheme), machines)
    await plane.api.create(VIRTUALMACHINES, vm("guest"), namespace="default")
    await plane.there(VIRTUALMACHINEINSTANCES, "guest")
    await plane.quiet()
    await plane.api.delete(VIRTUALMACHINES, "guest", "default", propagation="Orphan")
    await plane.gone(VIRTUALMACHINES, "guest")
    await plane.quiet()
    left = await plane.there(VIRTUALMACHINEINSTANCES, "guest")
    assert not metadata.is_deleting(left)
    assert not left["metadata"].get("ownerReferences")
    assert not left["metadata"].get("finalizers")


async def make_namespace(plane: World, name: str) -> None:
    await plane.api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


async def test_a_namespace_goes_with_everything_in_it(plane: World) -> None:
    machines = VirtualMachineController(plane.api, plane.informers, plane.events)
    garbage = GarbageCollector(plane.api, plane.informers, plane.verbs.scheme)
    accounts = ServiceAccountController(plane.api, plane.informers, ca="PEM")
    await plane.run(NamespaceController(plane.api, plane.informers, plane.verbs.scheme), garbage, machines, accounts)
    await make_namespace(plane, "team")
    await create(plane, config("settings", "team"))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": "team"}}
    await plane.api.create(SECRETS, secret, namespace="team")
    await plane.api.create(PODS, pod("web", namespace="team"), namespace="team")
    await plane.api.create(VIRTUALMACHINES, vm("guest", namespace="team"), namespace="team")
    await plane.there(VIRTUALMACHINEINSTANCES, "guest", "team")
    await plane.there(SERVICEACCOUNTS, "default", "team")
    await plane.api.delete(NAMESPACES, "team")
    await plane.gone(NAMESPACES, "team")
    for resource in (CONFIGMAPS, SECRETS, PODS, VIRTUALMACHINES, VIRTUALMACHINEINSTANCES, SERVICEACCOUNTS, EVENTS):
        assert not (await plane.api.list(resource, "team")).items


async def test_a_namespace_waits_for_finalizers_and_says_so(plane: World) -> None:
    await plane.run(NamespaceController(plane.api, plane.informers, plane.verbs.scheme))
    await make_namespace(plane, "team")
    held = config("held", "team")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await create(plane, held)
    await plane.api.delete(NAMESPACES, "team")

    async def told() -> Any:
        condition = metadata.condition(await plane.there(NAMESPACES, "team"), "NamespaceFinalizersRemaining")
        return condition if condition and condition["status"] == "True" else None

    condition = await plane.until(told)
    assert "example.com/hold has 1 in resource instances" in condition["message"]
    content = metadata.condition(await plane.there(NAMESPACES, "team"), "NamespaceContentRemaining")
    assert content is not None
    assert "configmaps has 1 resource instances" in content["message"]
    with pytest.raises(Forbidden):
        await create(plane, config("late", "team"))
    await plane.api.patch(CONFIGMAPS, "held", "team", {"metadata": {"finalizers": None}})
    await plane.gone(NAMESPACES, "team")


async def test_every_namespace_has_its_account_and_its_certificate(plane: World) -> None:
    await plane.run(ServiceAccountController(plane.api, plane.informers, ca="PEM"))
    await make_namespace(plane, "team")
    for namespace in ("default", "team"):
        await plane.there(SERVICEACCOUNTS, "default", namespace)
        found = await plane.there(CONFIGMAPS, "kube-root-ca.crt", namespace)
        assert found["data"] == {"ca.crt": "PEM"}
    await plane.api.delete(SERVICEACCOUNTS, "default", "team")
    await plane.there(SERVICEACCOUNTS, "default", "team")
    await plane.api.patch(CONFIGMAPS, "kube-root-ca.crt", "team", {"data": {"ca.crt": "forged", "more": "x"}})

    async def restored() -> bool:
        return (await plane.there(CONFIGMAPS, "kube-root-ca.crt", "team"))["data"] == {"ca.crt": "PEM"}

    await plane.until(restored)
