"""VirtualMachines: each makes its VirtualMachineInstance, and tells how it goes.

The thin half: reads both from the cache, carries :func:`~isoplane.controllers.virtualmachine_plan.decide`'s plan out and
writes :func:`~isoplane.controllers.virtualmachine_status.status_of`'s answer.  Quota, placement and running the instance are
others' work, as for any workload.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from isoplane.client.api import Api
from isoplane.client.controller import Controller
from isoplane.client.informer import Informers
from isoplane.controllers.events import Events
from isoplane.controllers.virtualmachine_plan import (
    FINALIZER,
    GENERATION,
    Plan,
    decide,
    has_finalizer,
    is_over,
    owned,
)
from isoplane.controllers.virtualmachine_status import Failure, status_of
from isoplane.objects import metadata
from isoplane.objects.errors import AlreadyExists, ApiError, NotFound
from isoplane.objects.kinds import VIRTUALMACHINEINSTANCES, VIRTUALMACHINES, Resource
from isoplane.objects.metadata import Object


class VirtualMachineController(Controller):
    """Keys are ``namespace/name``, shared by a VM and its instance."""

    name = "virtualmachine"

    def __init__(
        self,
        api: Api,
        informers: Informers,
        events: Events,
        *,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        workers: int = 4,
    ) -> None:
        super().__init__(workers=workers)
        self._api = api
        self._events = events
        self._clock = clock
        self._jitter = jitter
        self._machines = self.watch(informers.of(VIRTUALMACHINES))
        self._instances = self.watch(informers.of(VIRTUALMACHINEINSTANCES))

    async def reconcile(self, key: str) -> float | None:
        vm, vmi = self._machines.by_key(key), self._instances.by_key(key)
        if vm is None:
            await self._abandoned(vmi)
            return None
        now = self._clock()
        plan = decide(vm, vmi, now)
        mine = vmi if owned(vm, vmi) else None
        if plan.release:
            if plan.let_go and vmi is not None:
                await self._drop_finalizer(VIRTUALMACHINEINSTANCES, vmi)
            await self._drop_finalizer(VIRTUALMACHINES, vm)
            return None
        if plan.hold:
            vm = await self._hold(vm)
        if plan.adopt and vmi is not None:
            await self._adopt(vm, vmi)
            return None
        if plan.strategy:
            await self._respec(vm, plan.strategy)
            return None
        failure = await self._start(vm, plan.create) if plan.create is not None else None
        vm = await self._tell(vm, mine, plan, None if failure is None else Failure("FailedCreate", failure.message))
        if failure is not None:
            raise failure
        if mine is not None:
            await self._tend(vm, mine, plan)
        elif vmi is not None and plan.let_go:
            await self._drop_finalizer(VIRTUALMACHINEINSTANCES, vmi)
        return None if plan.wake_at is None else max(0.0, plan.wake_at - now)

    async def _tell(self, vm: Object, vmi: Mapping[str, Any] | None, plan: Plan, failure: Failure | None) -> Object:
        """Write the status when it says anything new. Raises Conflict when the VM changed since it was looked at."""
        status = status_of(vm, vmi, plan, self._clock(), jitter=self._jitter(), failure=failure)
        if status == vm.get("status"):
            return vm
        return await self._api.update(VIRTUALMACHINES, {**vm, "status": status}, subresource="status")

    async def _start(self, vm: Object, vmi: Object) -> ApiError | None:
        """Create the instance. Returns why it was refused; that one exists already shows at the next look."""
        try:
            await self._api.create(VIRTUALMACHINEINSTANCES, vmi, namespace=metadata.namespace(vm))
        except AlreadyExists:
            return None
        except ApiError as error:
            self._events(vm, "Warning", "FailedCreate", f"Error creating virtual machine instance: {error}")
            return error
        text = f"Started the virtual machine by creating the new virtual machine instance {metadata.name(vm)}"
        self._events(vm, "Normal", "SuccessfulCreate", text)
        return None

    async def _tend(self, vm: Object, vmi: Object, plan: Plan) -> None:
        """Let the instance go, now that the status tells how it ended; stop it; bring its generation up to date."""
        namespace, name = metadata.namespace(vm), metadata.name(vm)
        if plan.let_go:
            await self._drop_finalizer(VIRTUALMACHINEINSTANCES, vmi)
        if plan.stop:
            try:
                await self._api.delete(VIRTUALMACHINEINSTANCES, name, namespace, uid=plan.stop)
            except NotFound:
                return
            except ApiError as error:
                await self._tell(vm, vmi, plan, Failure("FailedDelete", error.message))
                raise
            text = f"Stopped the virtual machine by deleting the virtual machine instance {plan.stop}"
            self._events(vm, "Normal", "SuccessfulDelete", text)
        if plan.bump:
            generation = str(vm["metadata"].get("generation") or 1)
            await self._annotate(namespace, name, metadata.uid(vmi), {GENERATION: generation})

    async def _annotate(self, namespace: str, name: str, uid: str, annotations: Mapping[str, str]) -> None:
        patch = {"metadata": {"uid": uid, "annotations": dict(annotations)}}
        try:
            await self._api.patch(VIRTUALMACHINEINSTANCES, name, namespace, patch, kind="merge")
        except NotFound:
            return

    async def _adopt(self, vm: Object, vmi: Object) -> None:
        """Become the owner of an instance, and hold it; Conflict when anything of it changed meanwhile."""
        meta = vmi["metadata"]
        owned_by = [*(meta.get("ownerReferences") or ()), metadata.owner_reference(vm)]
        finalizers = list(dict.fromkeys([*(meta.get("finalizers") or ()), FINALIZER]))
        patch = {
            "metadata": {
                "uid": metadata.uid(vmi),
                "resourceVersion": meta["resourceVersion"],
                "ownerReferences": owned_by,
                "finalizers": finalizers,
            }
        }
        await self._api.patch(VIRTUALMACHINEINSTANCES, meta["name"], meta["namespace"], patch, kind="merge")
        text = f"Took over the virtual machine instance {meta['name']}, which belonged to nobody"
        self._events(vm, "Normal", "SuccessfulAdopt", text)

    async def _abandoned(self, vmi: Object | None) -> None:
        """An instance whose VM is gone, or that was set free, ends without anybody left to record how."""
        if vmi is None or not has_finalizer(vmi):
            return
        owner = metadata.controller_of(vmi)
        ends = is_over(vmi) or metadata.is_deleting(vmi)
        if owner is None or (ends and owner.get("kind") == VIRTUALMACHINES.kind):
            await self._drop_finalizer(VIRTUALMACHINEINSTANCES, vmi)

    async def _hold(self, vm: Object) -> Object:
        finalizers = [*(vm["metadata"].get("finalizers") or ()), FINALIZER]
        return await self._set_finalizers(VIRTUALMACHINES, vm, finalizers)

    async def _drop_finalizer(self, resource: Resource, obj: Object) -> None:
        finalizers = obj["metadata"].get("finalizers") or ()
        if FINALIZER in finalizers:
            try:
                await self._set_finalizers(resource, obj, [f for f in finalizers if f != FINALIZER])
            except NotFound:
                return

    async def _set_finalizers(self, resource: Resource, obj: Object, finalizers: list[str]) -> Object:
        """Replace the list; Conflict when anything of the object changed meanwhile."""
        meta = obj["metadata"]
        patch = {"metadata": {"finalizers": finalizers, "resourceVersion": meta["resourceVersion"]}}
        return await self._api.patch(resource, meta["name"], meta.get("namespace") or "", patch, kind="merge")

    async def _respec(self, vm: Object, strategy: str) -> None:
        """Change what is wanted of the VM, in the words its author uses."""
        spec: dict[str, Any] = (
            {"running": strategy == "Always"} if "running" in vm["spec"] else {"runStrategy": strategy}
        )
        meta = vm["metadata"]
        patch = {"spec": spec, "metadata": {"resourceVersion": meta["resourceVersion"]}}
        await self._api.patch(VIRTUALMACHINES, meta["name"], meta["namespace"], patch, kind="merge")
