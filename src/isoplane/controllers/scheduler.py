"""The scheduler: binds each workload, of whatever kind, to a node that has room, or says why none has.

The thin half of :mod:`isoplane.placement`: it keeps the books (what each node has in use, who waits) from informers, decides
one workload after the other in memory, and binds many at a time.  A decision is entered into the books at once and taken
back when its write fails.  Where nothing has room, workloads of lower priority may have to leave: preemption.py
beside this file plans that and carries it out.  The adapters say what binding means for a kind; quota has been decided at
admission.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from isoplane.client.api import Api
from isoplane.client.controller import Controller
from isoplane.client.informer import Informers
from isoplane.controllers.events import Events
from isoplane.controllers.preemption import Preemption
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError, Conflict, NotFound
from isoplane.objects.kinds import NODES, Resource
from isoplane.placement.fit import Choice, Node, choose, demand, node_of
from isoplane.placement.preemption import Nominations, Plan
from isoplane.placement.usage import Usage
from isoplane.placement.waiting import Waiting
from isoplane.workload.adapters import Adapter
from isoplane.workload.registry import adapter_for, workload_resources
from isoplane.workload.shape import Workload

_log = logging.getLogger(__name__)

CYCLE = "cycle"
"""The one key: a cycle decides for everybody who waits."""
BINDS = 128
"""Writes under way at a time; they share the store's commits."""
TURN = 256
"""Decisions after which others on the event loop get their turn."""
OURS = ("", "default-scheduler", "isoplane")
RETRY_SECONDS = 0.1


class Scheduler(Controller):
    """Places workloads. One cycle at a time, so decisions never race with each other."""

    name = "scheduler"

    def __init__(
        self, api: Api, informers: Informers, events: Events, *, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(workers=1)
        self._api = api
        self._informers = informers
        self._events = events
        self._clock = clock
        self._nodes: dict[str, Node] = {}
        self._usage = Usage()
        self._nominations = Nominations()
        self._preemption = Preemption(api, informers, events, self._usage, clock=clock)
        self._fresh = Waiting()
        """Not looked at yet since they or their place changed."""
        self._stuck = Waiting()
        """Looked at, and did not fit."""
        self._room = False
        """Whether room may have come free since the stuck ones were looked at."""
        self._told: dict[str, tuple[str, str]] = {}
        """uid → (why nothing has room, the node nominated)."""
        self._where: dict[str, tuple[Resource, str]] = {}
        self._limit = asyncio.Semaphore(BINDS)
        self._binding: set[asyncio.Task[None]] = set()
        informers.of(NODES).on_change(self._node_changed)
        for resource in workload_resources():
            adapter = adapter_for(resource)
            assert adapter is not None
            informers.of(resource).on_change(self._watcher(resource, adapter))

    # the books

    def _node_changed(self, key: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        known = self._nodes.pop(key, None)
        if new is None:
            return
        node = self._nodes[key] = node_of(new)
        if known is None or known != node or known.allocatable != node.allocatable or known.labels != node.labels:
            self._room_came_free()

    def _watcher(self, resource: Resource, adapter: Adapter) -> Callable[[str, Any, Any], None]:
        def changed(key: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
            if old is not None and (new is None or metadata.uid(new) != metadata.uid(old)):
                self._forget(metadata.uid(old))
            if new is None:
                return
            uid = metadata.uid(new)
            if old is not None and uid in self._usage and uid not in self._where and _phase(old) == _phase(new):
                # Bound and in the books; nothing but its end can change them.
                return
            self._enter(resource, key, self._informers.of(resource).derived(adapter.project, new))

        return changed

    def _enter(self, resource: Resource, key: str, workload: Workload) -> None:
        uid = workload.uid
        if workload.finished:
            self._forget(uid)
        elif workload.node:
            self._settle(uid)
            if self._usage.put(uid, workload.node, demand(workload), workload.priority):
                self._room_came_free()
        elif workload.gates or workload.deleting or workload.scheduler not in OURS:
            self._forget(uid)
        elif uid not in self._usage:
            self._where[uid] = (resource, key)
            if uid not in self._stuck or self._changed(workload):
                self._stuck.discard(uid)
                self._fresh.add(workload)
                self.enqueue(CYCLE)

    def _changed(self, workload: Workload) -> bool:
        """Whether a stuck workload asks for something else than when it was looked at (else its news is our own word)."""
        return not self._stuck.same(workload)

    def _settle(self, uid: str) -> None:
        """Nothing is left to decide about a workload."""
        self._fresh.discard(uid)
        self._stuck.discard(uid)
        self._told.pop(uid, None)
        self._where.pop(uid, None)
        if self._nominations.take(uid):
            self._room_came_free()

    def _forget(self, uid: str) -> None:
        self._settle(uid)
        if self._usage.take(uid):
            self._room_came_free()

    def _room_came_free(self) -> None:
        self._room = True
        if len(self._stuck):
            self.enqueue(CYCLE)

    # a cycle

    async def reconcile(self, key: str) -> float | None:
        """Decide for all who wait: those that did not fit before, if room came free, then the new ones."""
        decided = 0
        self._preemption.forget()
        if self._room:
            self._room = False
            for workload in self._stuck.drain(self._fits_or_preempts):
                self._assume(workload, self._choose(workload).node)
                decided += 1
                if decided % TURN == 0:
                    await asyncio.sleep(0)
        # Whoever is new is looked at once, the most important first, even where the first of its like did not fit:
        # each is told why.
        while len(self._fresh):
            for workload in self._fresh.drain(lambda one: True):
                choice = self._choose(workload)
                if choice.node:
                    self._assume(workload, choice.node)
                else:
                    self._stuck.add(workload)
                    self._preempt(workload)
                    self._spawn(self._tell(workload, choice.message))
                decided += 1
                if decided % TURN == 0:
                    await asyncio.sleep(0)
        if self._room and len(self._stuck):
            self.enqueue(CYCLE)
        return None

    def _choose(self, workload: Workload) -> Choice:
        used = self._nominations.seen_by(workload, self._usage.by_node)
        return choose(workload, self._nodes.values(), used)

    def _fits_or_preempts(self, workload: Workload) -> bool:
        """Whether a node has room for a stuck workload; where none has, others may have to leave for it."""
        choice = self._choose(workload)
        if not choice.node:
            self._preempt(workload)
            self._spawn(self._tell(workload, choice.message))
        return bool(choice.node)

    def _preempt(self, workload: Workload) -> None:
        """Nominate a node where room can be made, and have its victims leave."""
        used = self._nominations.seen_by(workload, self._usage.by_node)
        found = self._preemption.plan(workload, self._nodes, used)
        if found is None:
            if self._nominations.take(workload.uid):
                self._room_came_free()
            return
        self._nominations.put(workload, found.node)
        if found.victims:
            self._spawn(self._evict(found, workload))

    async def _evict(self, found: Plan, workload: Workload) -> None:
        if not await self._preemption.carry_out(found, workload):
            self._again(self._room_came_free)

    def _assume(self, workload: Workload, node: str) -> None:
        """Enter the decision, then write it."""
        self._usage.put(workload.uid, node, demand(workload), workload.priority)
        self._spawn(self._bind(workload, node))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._binding.add(task)
        task.add_done_callback(self._binding.discard)

    @property
    def idle(self) -> bool:
        return super().idle and not self._binding

    async def _bind(self, workload: Workload, node: str) -> None:
        async with self._limit:
            found = self._object(workload.uid)
            if found is None:
                self._forget(workload.uid)
                return
            adapter, obj = found
            write = adapter.place(obj, node, self._clock())
            try:
                if write.action:
                    await self._api.subresource(
                        workload.resource, workload.name, workload.namespace, write.subresource, write.body
                    )
                else:
                    await self._api.update(workload.resource, write.body, subresource=write.subresource)
            except NotFound:
                self._forget(workload.uid)
            except (ApiError, OSError) as error:
                self._give_back(workload, node, error)
            except Exception as error:
                _log.exception("binding %s to %s failed", workload.id, node)
                self._give_back(workload, node, error)
            else:
                where = f"Successfully assigned {workload.key} to {node}"
                self._events(obj, "Normal", "Scheduled", where)

    def _give_back(self, workload: Workload, node: str, error: Exception) -> None:
        """The write failed: the room is free again, and the workload, as the cache has it by then, is new again."""
        level = logging.DEBUG if isinstance(error, Conflict) else logging.WARNING
        _log.log(level, "binding %s to %s: %s", workload.id, node, error)
        if self._usage.node(workload.uid) != node:
            return

        def again() -> None:
            found = self._object(workload.uid)
            self._forget(workload.uid)
            if found is not None:
                adapter, obj = found
                self._enter(workload.resource, metadata.key(obj), adapter.project(obj))

        self._again(again)

    @staticmethod
    def _again(what: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(RETRY_SECONDS, what)

    async def _tell(self, workload: Workload, message: str) -> None:
        """Say in the status and in an Event that nothing has room, and where it is being made; once for each reason."""
        nominated = self._nominations.node(workload.uid)
        if self._told.get(workload.uid) == (message, nominated):
            return
        self._told[workload.uid] = (message, nominated)
        async with self._limit:
            found = self._object(workload.uid)
            if found is None or workload.uid not in self._stuck:
                return
            adapter, obj = found
            self._events(obj, "Warning", "FailedScheduling", message)
            new = adapter.nominate(adapter.unplaceable(obj, message, self._clock()), nominated)
            if new.get("status") == obj.get("status"):
                return
            try:
                await self._api.update(workload.resource, new, subresource="status")
            except NotFound:
                self._forget(workload.uid)
            except (ApiError, OSError) as error:
                self._told.pop(workload.uid, None)
                _log.debug("%s was not told why it waits: %s", workload.id, error)

    def _object(self, uid: str) -> tuple[Adapter, dict[str, Any]] | None:
        """The object of a workload as the cache has it, if it is still the same one."""
        where = self._where.get(uid)
        if where is None:
            return None
        obj = self._informers.of(where[0]).by_key(where[1])
        adapter = adapter_for(where[0])
        if obj is None or adapter is None or metadata.uid(obj) != uid:
            return None
        return adapter, obj

    async def stop(self) -> None:
        await super().stop()
        for task in list(self._binding):
            task.cancel()
        await asyncio.gather(*self._binding, return_exceptions=True)


def _phase(obj: Mapping[str, Any]) -> str:
    return str((obj.get("status") or {}).get("phase") or "")
