"""The node agent: watches what is bound to this node, keeps the one controller at work, reports that the node lives.

It starts in this order: runtimes and fabric (which adopt what still runs), then the objects, then one pass over
everything found on either side.  So after kill -9 nothing is started twice, and what nobody wants any more is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isoplane.client.api import Api
from isoplane.client.informer import Informers
from isoplane.node.network.protocol import Fabric
from isoplane.node.register import RENEW_SECONDS, Machine, Registration
from isoplane.node.runtime.protocol import Runtime
from isoplane.node.seams import Enforcement, Events
from isoplane.node.track import Desired
from isoplane.node.workload_controller import WORKERS, WorkloadController
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError, NotFound
from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object
from isoplane.workload.registry import adapter_for, workload_resources

if TYPE_CHECKING:
    from isoplane.node.network.enforcer import EnforcementStatus
    from isoplane.policy.hits import RuleHits

_log = logging.getLogger(__name__)


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
        enforcement: Callable[[str, Informers, Callable[[str], None], Events], Enforcement] | None = None,
        clock: Callable[[], float] = time.time,
        workers: int = WORKERS,
        unsafe_sysctls: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._api = api
        self._informers = informers
        self._runtimes = runtimes
        self._fabric = fabric
        self._machine = machine
        self._clock = clock
        self._where: dict[str, tuple[Resource, str]] = {}
        """uid → (resource, key) of the workloads bound to this node."""
        self._enforcement = enforcement(name, informers, self.enqueue, events) if enforcement else None
        self.controller = WorkloadController(
            node=name,
            api=api,
            lookup=self.lookup,
            runtimes=runtimes,
            fabric=fabric,
            events=events,
            clock=clock,
            enforcement=self._enforcement,
            workers=workers,
            unsafe_sysctls=unsafe_sysctls,
        )
        self._heart: asyncio.Task[None] | None = None
        self._registration: Registration | None = None

    @property
    def enforcement_status(self) -> EnforcementStatus | None:
        """What NetworkPolicy's enforcement has to say; None when nothing enforces, or before the start."""
        return self._enforcement.status if self._enforcement is not None else None

    @property
    def rule_hits(self) -> tuple[list[RuleHits], int]:
        """How often each policy's rule decided, and how many rules are left out; none when nothing enforces."""
        return self._enforcement.hits if self._enforcement is not None else ([], 0)

    def lookup(self, uid: str, newer: Callable[[Object], Object] = lambda obj: obj) -> Desired | None:
        """The workload of this node that has ``uid``, as the cache knows it, or as ``newer`` does."""
        where = self._where.get(uid)
        if where is None:
            return None
        resource, key = where
        obj = self._informers.of(resource).by_key(key)
        if obj is None or metadata.uid(obj) != uid:
            return None
        obj = newer(obj)
        adapter = adapter_for(resource)
        assert adapter is not None
        return Desired(adapter, obj, self._informers.of(resource).derived(adapter.project, obj))

    def enqueue(self, uid: str) -> None:
        """Look at a workload again soon."""
        self.controller.enqueue(uid)

    async def start(self) -> None:
        """Adopt, register, reconcile. Raises RuntimeFailure or FabricFailure when the host cannot do it."""
        await self._fabric.start()
        for runtime in self._runtimes.values():
            runtime.on_change(self.controller.enqueue)
            await runtime.start()
        for resource in workload_resources():
            informer = self._informers.of(resource)
            informer.on_change(self._watcher(resource))
        await self._informers.start()
        if self._enforcement is not None:
            await self._enforcement.start()
        self._registration = Registration(
            self._api, self.name, self._machine(), self._fabric.node_addresses, self._clock, self._fabric.ipv6_missing
        )
        await self._registration.register()
        await self._adopt()
        self.controller.changes = self._informers.changes
        await self.controller.start()
        self._heart = asyncio.ensure_future(self._heartbeat())

    async def stop(self) -> None:
        """Let go of everything; what runs goes on running."""
        await self.controller.stop()
        if self._heart is not None:
            self._heart.cancel()
            await asyncio.gather(self._heart, return_exceptions=True)
        if self._registration is not None:
            with contextlib.suppress(ApiError):
                await self._registration.leave()
        if self._enforcement is not None:
            await self._enforcement.close()
        for runtime in self._runtimes.values():
            await runtime.close()
        await self._fabric.close()

    def _watcher(self, resource: Resource) -> Callable[[str, Any, Any], None]:
        adapter, informer = adapter_for(resource), self._informers.of(resource)
        assert adapter is not None

        def changed(key: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
            if old is not None and (new is None or metadata.uid(old) != metadata.uid(new)):
                gone = metadata.uid(old)
                if self._where.get(gone) == (resource, key):
                    del self._where[gone]
                    self.controller.enqueue(gone)
            if new is None:
                return
            uid = metadata.uid(new)
            if uid not in self._where:
                if informer.derived(adapter.project, new).node != self.name:
                    return
                self._where[uid] = (resource, key)
            self.controller.enqueue(uid)

        return changed

    async def _adopt(self) -> None:
        """Look at everything the host has, wanted or not."""
        found: set[str] = set()
        for runtime in self._runtimes.values():
            found.update(seen.uid for seen in await runtime.observe_all())
        found.update(interface.uid for interface in await self._fabric.interfaces())
        for uid in found:
            self.controller.enqueue(uid)
        if found:
            _log.info("found %d sandboxes of an earlier run", len(found))

    async def _heartbeat(self) -> None:
        assert self._registration is not None
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._registration.renew()
                await self._registration.report()
            except NotFound:
                _log.warning("node %s was deleted; it registers again when the plane is started again", self.name)
            except ApiError as error:
                _log.warning("the node could not report: %s", error)
