"""The node agent: watches what is bound to this node, keeps the one controller at work, reports that the node lives.

It starts in this order: runtimes and fabric (which adopt what still runs), then the objects, then one pass over
everything found on either side.  So after kill -9 nothing is started twice, and what nobody wants any more is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from isoplane.client.api import Api
from isoplane.client.informer import Informers
from isoplane.client.workqueue import WorkQueue
from isoplane.node.network.protocol import Fabric
from isoplane.node.register import RENEW_SECONDS, Machine, Registration
from isoplane.node.runtime.protocol import Runtime
from isoplane.node.track import Desired
from isoplane.node.workload_controller import Enforcement, Events, WorkloadController
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError
from isoplane.objects.kinds import Resource
from isoplane.workload.adapters import adapter_for, workload_resources

_log = logging.getLogger(__name__)

WORKERS = 16
"""Workloads in work at a time: most of the work is waiting for processes of the host."""


class NodeAgent:
    """Runs the workloads of one node until :meth:`stop`; the workloads go on without it."""

    def __init__(
        self,
        *,
        name: str,
        api: Api,
        informers: Informers,
        runtimes: Mapping[str, Runtime],
        fabric: Fabric,
        machine: Callable[[], Machine],
        events: Events,
        enforcement: Enforcement | None = None,
        clock: Callable[[], float] = time.time,
        workers: int = WORKERS,
    ) -> None:
        self.name = name
        self._api = api
        self._informers = informers
        self._runtimes = runtimes
        self._fabric = fabric
        self._machine = machine
        self._clock = clock
        self._workers = workers
        self._queue = WorkQueue(base_delay=0.05, max_delay=60.0)
        self._where: dict[str, tuple[Resource, str]] = {}
        """uid → (resource, key) of the workloads bound to this node."""
        self._projected: dict[str, tuple[str, Desired]] = {}
        """uid → (resourceVersion, projection), so that an unchanged object is read once."""
        self.controller = WorkloadController(
            node=name,
            api=api,
            lookup=self.lookup,
            runtimes=runtimes,
            fabric=fabric,
            events=events,
            clock=clock,
            wake=self._queue.add,
            enforcement=enforcement,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._registration: Registration | None = None

    def lookup(self, uid: str) -> Desired | None:
        """The workload of this node that has ``uid``, as the cache knows it."""
        where = self._where.get(uid)
        if where is None:
            return None
        resource, key = where
        obj = self._informers.of(resource).by_key(key)
        if obj is None or metadata.uid(obj) != uid:
            return None
        revision = str(obj["metadata"].get("resourceVersion"))
        known = self._projected.get(uid)
        if known is not None and known[0] == revision:
            return known[1]
        adapter = adapter_for(resource)
        assert adapter is not None
        desired = Desired(adapter, obj, adapter.project(obj))
        self._projected[uid] = (revision, desired)
        return desired

    def enqueue(self, uid: str) -> None:
        """Look at a workload again soon."""
        self._queue.add(uid)

    async def start(self) -> None:
        """Adopt, register, reconcile. Raises RuntimeFailure or FabricFailure when the host cannot do it."""
        await self._fabric.start()
        for runtime in self._runtimes.values():
            runtime.on_change(self._queue.add)
            await runtime.start()
        for resource in workload_resources():
            informer = self._informers.of(resource)
            informer.on_change(self._watcher(resource))
        await self._informers.start()
        self._registration = Registration(self._api, self.name, self._machine(), self._fabric.node_address, self._clock)
        await self._registration.register()
        await self._adopt()
        for _ in range(self._workers):
            self._tasks.append(asyncio.ensure_future(self._work()))
        self._tasks.append(asyncio.ensure_future(self._heartbeat()))

    async def stop(self) -> None:
        """Let go of everything; what runs goes on running."""
        self._queue.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self.controller.close()
        if self._registration is not None:
            with contextlib.suppress(ApiError):
                await self._registration.leave()
        for runtime in self._runtimes.values():
            await runtime.close()
        await self._fabric.close()

    def _watcher(self, resource: Resource) -> Callable[[str, Any, Any], None]:
        adapter = adapter_for(resource)
        assert adapter is not None

        def changed(key: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
            if old is not None and (new is None or metadata.uid(old) != metadata.uid(new)):
                gone = metadata.uid(old)
                if self._where.get(gone) == (resource, key):
                    del self._where[gone]
                    self._projected.pop(gone, None)
                    self._queue.add(gone)
            if new is None:
                return
            uid = metadata.uid(new)
            if uid not in self._where:
                if adapter.project(new).node != self.name:
                    return
                self._where[uid] = (resource, key)
            self._queue.add(uid)

        return changed

    async def _adopt(self) -> None:
        """Look at everything the host has, wanted or not."""
        found: set[str] = set()
        for runtime in self._runtimes.values():
            found.update(seen.uid for seen in await runtime.observe_all())
        found.update(plug.uid for plug in await self._fabric.plugs())
        for uid in found:
            self._queue.add(uid)
        if found:
            _log.info("found %d sandboxes of an earlier run", len(found))

    async def _work(self) -> None:
        while (uid := await self._queue.get()) is not None:
            try:
                again = await self.controller.reconcile(uid)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                delay = self._queue.retry(uid)
                level = logging.WARNING if isinstance(error, ApiError) else logging.ERROR
                trace = None if isinstance(error, ApiError) else error
                _log.log(level, "%s: %s; again in %.2f s", self._named(uid), error, delay, exc_info=trace)
            else:
                self._queue.forget(uid)
                if again is not None:
                    self._queue.add(uid, max(again, 0.01))
            finally:
                self._queue.done(uid)

    def _named(self, uid: str) -> str:
        where = self._where.get(uid)
        return f"{where[0].singular}/{where[1]}" if where else uid

    async def _heartbeat(self) -> None:
        assert self._registration is not None
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._registration.renew()
            except ApiError as error:
                _log.warning("the node's lease could not be renewed: %s", error)
