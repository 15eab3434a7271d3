"""A plane without node and network for the controllers' tests: a real store and the real verbs, in process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from isoplane.client.controller import Controller, Manager
from isoplane.client.informer import Informers
from isoplane.controllers.events import Recorder
from isoplane.objects import metadata
from isoplane.objects.errors import NotFound
from isoplane.objects.kinds import NODES, PODS, VIRTUALMACHINEINSTANCES, VIRTUALMACHINES, Resource
from isoplane.server.bootstrap import bootstrap
from isoplane.server.local import LocalApi
from isoplane.server.verbs import Verbs
from isoplane.store import Store

Object = dict[str, Any]


class World:
    """The API, the caches and a clock that the test moves."""

    def __init__(self, verbs: Verbs) -> None:
        self.verbs = verbs
        self.api = LocalApi(verbs)
        self.informers = Informers(self.api)
        self.ahead = 0.0
        self.events = Recorder(self.api, "test", clock=self.clock)
        self.manager: Manager | None = None

    def clock(self) -> float:
        """POSIX seconds, as far ahead as the test says."""
        return time.time() + self.ahead

    async def run(self, *controllers: Controller) -> None:
        self.manager = Manager(self.informers, controllers)
        await self.manager.start()

    async def find(self, resource: Resource, name: str, namespace: str = "default") -> Object | None:
        try:
            return await self.api.get(resource, name, namespace if resource.namespaced else "")
        except NotFound:
            return None

    async def until(self, holds: Callable[[], Awaitable[Any]], within: float = 5.0) -> Any:
        """What ``holds`` answers, once that is true. Fails after ``within`` seconds."""
        deadline = time.monotonic() + within
        while True:
            answer = await holds()
            if answer:
                return answer
            assert time.monotonic() < deadline, "it did not come true in time"
            await asyncio.sleep(0.005)

    async def gone(self, resource: Resource, name: str, namespace: str = "default") -> None:
        async def missing() -> bool:
            return await self.find(resource, name, namespace) is None

        await self.until(missing)

    async def there(self, resource: Resource, name: str, namespace: str = "default") -> Object:
        async def present() -> Object | None:
            return await self.find(resource, name, namespace)

        found: Object = await self.until(present)
        return found

    async def quiet(self, seconds: float = 0.05) -> None:
        """Wait until no controller has had anything to do for a moment."""
        assert self.manager is not None
        still = 0.0
        while still < seconds:
            await asyncio.sleep(0.01)
            still = still + 0.01 if self.manager.idle else 0.0

    async def status(self, resource: Resource, name: str, namespace: str = "default", **fields: Any) -> Object:
        """Play the node: write fields of a status."""
        patch = {"status": fields}
        return await self.api.patch(resource, name, namespace, patch, kind="merge", subresource="status")

    async def node(self, name: str = "node", cpu: str = "4", memory: str = "8Gi", pods: str = "110") -> Object:
        """A node that is ready."""
        await self.api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        amounts = {"cpu": cpu, "memory": memory, "pods": pods, "ephemeral-storage": "100Gi"}
        conditions = [{"type": "Ready", "status": "True", "reason": "test"}]
        return await self.status(NODES, name, "", capacity=amounts, allocatable=amounts, conditions=conditions)


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    """A fresh plane with the system namespaces, stopped at the end."""
    store = Store.open(directory, None)
    verbs = Verbs(store)
    await bootstrap(verbs)
    made = World(verbs)
    try:
        yield made
    finally:
        if made.manager is not None:
            await made.manager.stop()
        await made.events.close()
        await store.close()


def pod(name: str, *, cpu: str = "100m", memory: str = "64Mi", namespace: str = "default", **spec: Any) -> Object:
    requests = {"requests": {"cpu": cpu, "memory": memory}}
    return {
        "apiVersion": PODS.api_version,
        "kind": PODS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "main", "image": "demo/web:1", "resources": requests}], **spec},
    }


def machine_spec(memory: str = "128Mi") -> Object:
    kernel = {"container": {"image": "demo/kernel:1", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd"}}
    return {
        "domain": {
            "memory": {"guest": memory},
            "devices": {},
            "firmware": {"kernelBoot": {"kernelArgs": "console=ttyS0", **kernel}},
        }
    }


def vmi(name: str, *, namespace: str = "default") -> Object:
    return {
        "apiVersion": VIRTUALMACHINEINSTANCES.api_version,
        "kind": VIRTUALMACHINEINSTANCES.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": machine_spec(),
    }


def vm(name: str, strategy: str | None = "Always", *, namespace: str = "default", **spec: Any) -> Object:
    body: Object = {"template": {"metadata": {"labels": {"app": name}}, "spec": machine_spec()}, **spec}
    if strategy is not None:
        body["runStrategy"] = strategy
    return {
        "apiVersion": VIRTUALMACHINES.api_version,
        "kind": VIRTUALMACHINES.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": body,
    }


def owned_by(obj: Object, owner: Object, *, blocks: bool = True) -> Object:
    reference = metadata.owner_reference(owner, controller=False)
    reference["blockOwnerDeletion"] = blocks
    obj["metadata"]["ownerReferences"] = [*obj["metadata"].get("ownerReferences", ()), reference]
    return obj
