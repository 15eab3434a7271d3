"""What the operator writes to a cluster's objects: gates off, victims away, why somebody waits. Chooses nothing.

An act that fails is logged and tried again by the next look: what binds is in the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from isoplane.client.http import HttpApi
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError, Conflict, NotFound
from isoplane.objects.event import event_of
from isoplane.objects.kinds import EVENTS, PODS
from isoplane.objects.metadata import Object
from isoplane.objects.quantity import render
from isoplane.operator.cluster import BY_NAMESPACE, Cluster, is_gated, version_of
from isoplane.operator.ledger import InFlight
from isoplane.quota.effects import Preempt, SetUsage
from isoplane.quota.read import quota_object
from isoplane.workload.adapters import QUOTA_GATE

_log = logging.getLogger(__name__)
COMPONENT = "isoplane-operator"
PREEMPTED = "PreemptedByQuota"
AT_ONCE = 32
"""Writes under way at a time."""
MESSAGE_SECONDS = 60.0
"""A Pod's condition is written at most this often, beside its first time."""
TOUCHED = "isoplane.io/given-up"


class Acts:
    """The writes of one operator. Belongs to one event loop; :meth:`close` waits for what is under way."""

    def __init__(self, api: HttpApi, clock: Callable[[], float]) -> None:
        self._api = api
        self._clock = clock
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: dict[str, tuple[str, float]] = {}
        """uid of a Pod → what its condition says, and since when."""
        self._usage: dict[tuple[str, str], SetUsage] = {}

    async def close(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # what binds

    async def admit(self, admissions: Iterable[InFlight]) -> None:
        """Take gates off. One that is refused because its Pod has changed is taken up again by the domain."""
        async with asyncio.TaskGroup() as group:
            for entry in admissions:
                group.create_task(self._ungate(entry))

    async def _ungate(self, entry: InFlight) -> None:
        try:
            async with self._slots:
                # A strategic merge patch deletes this one gate and leaves other people's; uid and version are preconditions.
                await self._api.patch(
                    PODS,
                    entry.name,
                    entry.namespace,
                    {
                        "metadata": {"uid": entry.uid, "resourceVersion": str(entry.version)},
                        "spec": {"schedulingGates": [{"name": QUOTA_GATE, "$patch": "delete"}]},
                    },
                    kind="strategic",
                )
            self._told.pop(entry.uid, None)
        except (Conflict, NotFound) as error:
            _log.debug("the gate of %s/%s stays: %s", entry.namespace, entry.name, error)
        except ApiError as error:
            _log.warning("the gate of %s/%s could not be taken off: %s", entry.namespace, entry.name, error)

    async def release_all(self, cluster: Cluster, namespace: str) -> None:
        """Let everybody go who waits in a namespace that is under quota no longer."""
        waiting = [pod for pod in cluster.pods.find(BY_NAMESPACE, namespace) if is_gated(pod)]
        await self.admit(InFlight(metadata.uid(pod), namespace, metadata.name(pod), version_of(pod)) for pod in waiting)

    async def preempt(self, pod: Object, version: int, effect: Preempt) -> None:
        """Mark a victim and delete it gracefully, at the very version at which it was chosen, or not at all."""
        name, namespace = metadata.name(pod), metadata.namespace(pod)
        condition = {
            "type": "DisruptionTarget", "status": "True", "reason": PREEMPTED, "message": effect.message,
            "lastTransitionTime": metadata.rfc3339(self._clock()),
        }  # fmt: skip
        meta = {"uid": metadata.uid(pod), "resourceVersion": str(version)}
        body = {"metadata": meta, "status": {"conditions": [condition]}}
        try:
            marked = await self._api.patch(PODS, name, namespace, body, kind="strategic", subresource="status")
            self.event(pod, PREEMPTED, effect.message, warning=True)
            await self._api.delete(
                PODS,
                name,
                namespace,
                grace_seconds=effect.grace,
                uid=metadata.uid(pod),
                resource_version=str(version_of(marked)),
            )
        except (Conflict, NotFound) as error:
            _log.info("%s was not preempted: %s", effect.charge.id, error)
        except ApiError as error:
            _log.warning("%s could not be preempted: %s", effect.charge.id, error)

    async def touch(self, pod: Object) -> int:
        """Write a Pod so that every request that names its present version fails. Returns the new version."""
        meta = {
            "uid": metadata.uid(pod), "resourceVersion": pod["metadata"]["resourceVersion"],
            "annotations": {TOUCHED: metadata.rfc3339(self._clock(), micro=True)},
        }  # fmt: skip
        written = await self._api.patch(PODS, metadata.name(pod), metadata.namespace(pod), {"metadata": meta})
        return version_of(written)

    # what tells

    def waits(self, pod: Object, message: str) -> None:
        """Say in a gated Pod's condition what it waits for; the same again costs nothing."""
        uid, now = metadata.uid(pod), self._clock()
        said, since = self._told.get(uid, ("", 0.0))
        if said == message or (said and now - since < MESSAGE_SECONDS):
            return
        self._told[uid] = (message, now)
        self._start(self._write_message(pod, message))

    async def _write_message(self, pod: Object, message: str) -> None:
        condition = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": message}
        body: dict[str, Any] = {"metadata": {"uid": metadata.uid(pod)}, "status": {"conditions": [condition]}}
        await self._api.patch(
            PODS, metadata.name(pod), metadata.namespace(pod), body, kind="strategic", subresource="status"
        )

    def event(self, obj: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell people by an Event on an object."""
        event = event_of(
            {"apiVersion": PODS.api_version, "kind": PODS.kind, **obj},
            "Warning" if warning else "Normal",
            reason,
            message,
            now=self._clock(),
            suffix=uuid.uuid4().hex[:16],
            component=COMPONENT,
        )
        self._start(self._create_event(event))

    async def _create_event(self, event: Object) -> None:
        await self._api.create(EVENTS, event, namespace=event["metadata"]["namespace"])

    def usage(self, effect: SetUsage) -> None:
        """Publish a quota's use: lazily, the last word wins."""
        key = (effect.tenant, effect.quota)
        waits = key in self._usage
        self._usage[key] = effect
        if not waits:
            self._start(self._write_usage(key))

    async def _write_usage(self, key: tuple[str, str]) -> None:
        await asyncio.sleep(0.2)
        effect = self._usage.pop(key)
        status = {
            "hard": {name: render(name, value) for name, value in effect.hard.items()},
            "used": {name: render(name, value) for name, value in effect.used.items()},
        }
        resource, name = quota_object(effect.quota)
        await self._api.patch(resource, name, effect.tenant, {"status": status}, subresource="status")

    def _start(self, act: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._guarded(act))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, act: Coroutine[Any, Any, None]) -> None:
        try:
            async with self._slots:
                await act
        except NotFound:
            pass  # its object went meanwhile
        except ApiError as error:
            _log.warning("%s", error)
