"""Nodes that fall silent: the node and its workloads are told Unknown; workloads of nodes that are gone are removed.

A node renews its Lease.  What counts is when *this* process saw the last renewal, on a clock that only goes forward, so
neither a wrong wall clock nor a restart of the plane makes a living node look dead.  Nothing is evicted: a silent machine
may well run on, and its agent tells the truth again as soon as it is back.
Source: Kubernetes' node lifecycle controller and pod garbage collector.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from isoplane.client.api import Api
from isoplane.client.controller import Controller
from isoplane.client.informer import Informers
from isoplane.controllers.events import Events
from isoplane.objects import metadata
from isoplane.objects.errors import Conflict, NotFound
from isoplane.objects.kinds import LEASES, NODES
from isoplane.objects.metadata import Object
from isoplane.workload.registry import adapter_for, workload_resources
from isoplane.workload.shape import Workload

_log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
DEFAULT_LEASE_SECONDS = 40
UNREACHABLE_TAINT = "node.kubernetes.io/unreachable"
SETTLE_SECONDS = 10.0
"""How long a node that took its leave may be away, restarting, before its workloads are doubted."""
ORPHANED_SECONDS = 40.0
"""How long a node must have been gone before what was bound to it is removed."""
AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about a node. ``look_again`` in seconds; None: not before something changes."""

    lost: bool
    look_again: float | None


def judge(node: Mapping[str, Any], lease: Mapping[str, Any] | None, silent_for: float) -> Verdict:
    """Whether a node counts as lost, ``silent_for`` seconds after the last renewal that was seen. Pure."""
    patience = float(((lease or {}).get("spec") or {}).get("leaseDurationSeconds") or DEFAULT_LEASE_SECONDS)
    if (metadata.condition(node, "Ready") or {}).get("status") == "Unknown":
        # Lost, or its agent took its leave and may be on its way back.
        patience = min(patience, SETTLE_SECONDS)
    if silent_for < patience:
        return Verdict(False, patience - silent_for + 0.1)
    return Verdict(True, None)


def lost_node(node: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The status of a node that fell silent. Pure."""
    status = dict(node.get("status") or {})
    entry = {
        **(metadata.condition(node, "Ready") or {}),
        "type": "Ready",
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "the node agent stopped renewing its lease",
    }
    status["conditions"] = metadata.set_condition(status.get("conditions") or (), entry, now)
    return status


def unreachable(obj: Mapping[str, Any], node: str, now: str) -> dict[str, Any]:
    """The status of a workload on a silent node: whatever it was, nobody knows whether it still serves. Pure."""
    status = dict(obj.get("status") or {})
    message = f"node {node} does not report"
    entry = {"type": "Ready", "status": "Unknown", "reason": "NodeUnresponsive", "message": message}
    status["conditions"] = metadata.set_condition(status.get("conditions") or (), entry, now)
    return status


class NodeLifecycleController(Controller):
    """Keys are names of nodes."""

    name = "nodelifecycle"

    def __init__(
        self,
        api: Api,
        informers: Informers,
        events: Events,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(workers=1)
        self._api = api
        self._workloads = {resource: informers.of(resource) for resource in workload_resources()}
        self._events = events
        self._clock = clock
        self._monotonic = monotonic
        self._renewed: dict[str, tuple[str, float]] = {}
        """Node → (the renewTime seen last, when it was first seen)."""
        self._gone: dict[str, float] = {}
        self._nodes = self.watch(informers.of(NODES))
        self._leases = informers.of(LEASES)
        self._leases.on_change(self._lease_changed)

    async def started(self) -> None:
        """Workloads may be bound to nodes that were removed while nobody looked."""
        for node in {workload.node for workload, _ in self._bound()}:
            self.enqueue(node)

    def _lease_changed(self, key: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        namespace, name = metadata.split_key(key)
        if namespace != LEASE_NAMESPACE or new is None:
            return
        renewed = str((new.get("spec") or {}).get("renewTime") or "")
        if self._renewed.get(name, ("", 0.0))[0] != renewed:
            first = name not in self._renewed
            self._renewed[name] = (renewed, self._monotonic())
            if first:
                self.enqueue(name)

    async def reconcile(self, key: str) -> float | None:
        node = self._nodes.by_key(key)
        if node is None:
            self._renewed.pop(key, None)
            return await self._orphans(key)
        self._gone.pop(key, None)
        seen = self._renewed.setdefault(key, ("", self._monotonic()))[1]
        verdict = judge(node, self._leases.get(LEASE_NAMESPACE, key), self._monotonic() - seen)
        if verdict.lost:
            await self._lose(key, node)
        await self._taint(node, verdict.lost)
        return verdict.look_again

    async def _lose(self, name: str, node: Object) -> None:
        now = metadata.rfc3339(self._clock())
        if (metadata.condition(node, "Ready") or {}).get("status") != "Unknown":
            await self._api.update(NODES, {**node, "status": lost_node(node, now)}, subresource="status")
            self._events(node, "Warning", "NodeNotReady", f"Node {name} status is now: NodeNotReady")
            return  # our own write calls again
        await self._each(self._bound(name), lambda workload, obj: self._doubt(workload, obj, name, now))

    async def _doubt(self, workload: Workload, obj: Object, node: str, now: str) -> None:
        if workload.finished or (metadata.condition(obj, "Ready") or {}).get("status") == "Unknown":
            return
        told = {**obj, "status": unreachable(obj, node, now)}
        try:
            await self._api.update(workload.resource, told, subresource="status")
        except (Conflict, NotFound):
            # It changed meanwhile, so somebody looks after it, or it is gone.
            return

    async def _taint(self, node: Object, lost: bool) -> None:
        """Keep new workloads off a silent node, and only as long as it is silent."""
        taints = list((node.get("spec") or {}).get("taints") or ())
        kept = [t for t in taints if t.get("key") != UNREACHABLE_TAINT]
        wanted = [*kept, {"key": UNREACHABLE_TAINT, "effect": "NoSchedule"}] if lost else kept
        if len(wanted) != len(taints):
            patch = {"spec": {"taints": wanted or None}, "metadata": {"resourceVersion": _revision(node)}}
            await self._api.patch(NODES, metadata.name(node), "", patch, kind="merge")

    async def _orphans(self, node: str) -> float | None:
        """Remove what is bound to a node that is gone, once it stayed gone."""
        orphans = self._bound(node)
        if not orphans:
            self._gone.pop(node, None)
            return None
        left = ORPHANED_SECONDS - (self._monotonic() - self._gone.setdefault(node, self._monotonic()))
        if left > 0:
            return left + 0.1
        _log.warning("node %s is gone; removing the %d workloads bound to it", node, len(orphans))
        await self._each(orphans, self._remove)
        return 1.0

    async def _remove(self, workload: Workload, obj: Object) -> None:
        try:
            await self._api.delete(
                workload.resource, workload.name, workload.namespace, grace_seconds=0, uid=workload.uid
            )
        except (NotFound, Conflict):
            return

    async def _each(self, found: Iterable[tuple[Workload, Object]], act: Callable[[Workload, Object], Any]) -> None:
        work = list(found)
        for start in range(0, len(work), AT_ONCE):
            await asyncio.gather(*(act(workload, obj) for workload, obj in work[start : start + AT_ONCE]))

    def _bound(self, node: str = "") -> list[tuple[Workload, Object]]:
        """The workloads on a node (on any, when ''). Rare enough to look through them all."""
        found: list[tuple[Workload, Object]] = []
        for resource, informer in self._workloads.items():
            adapter = adapter_for(resource)
            assert adapter is not None
            for obj in informer.items():
                workload = adapter.project(obj)
                if workload.node and (not node or workload.node == node):
                    found.append((workload, obj))
        return found


def _revision(obj: Mapping[str, Any]) -> str:
    return str((obj.get("metadata") or {}).get("resourceVersion") or "")
