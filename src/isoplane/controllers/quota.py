"""The quota controller: nobody's wait is lost.

Admission wakes who waits in the very transaction that makes room.  What it cannot see is time: a hold that ends, a
minimum run time that is over, a first in line who may plan anew.  So for each namespace where someone is Gated, the first
few in line are asked again now and then, by a new value of an annotation; admission decides, as always.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from isoplane.client.api import Api
from isoplane.client.controller import Controller
from isoplane.client.informer import Informer, Informers
from isoplane.objects import metadata
from isoplane.objects.errors import NotFound
from isoplane.objects.kinds import Resource
from isoplane.quota.release import RETRY_ANNOTATION, RETRY_SECONDS, retried
from isoplane.workload.adapters import QUOTA_GATE
from isoplane.workload.registry import adapter_for, workload_resources
from isoplane.workload.shape import Workload


class QuotaController(Controller):
    """One key a namespace."""

    name = "quota"

    def __init__(self, api: Api, informers: Informers, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(workers=1)
        self._api = api
        self._clock = clock
        self._gated: dict[str, dict[tuple[Resource, str], Workload]] = {}
        self._turn: dict[str, int] = {}
        for resource in workload_resources():
            informers.of(resource).on_change(self._watcher(resource, informers.of(resource)))

    def _watcher(self, resource: Resource, informer: Informer) -> Callable[[str, Any, Any], None]:
        adapter = adapter_for(resource)
        assert adapter is not None

        def changed(key: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
            namespace, _ = metadata.split_key(key)
            workload = informer.derived(adapter.project, new) if new is not None else None
            line = self._gated.setdefault(namespace, {})
            if workload is None or QUOTA_GATE not in workload.gates or workload.finished or workload.deleting:
                line.pop((resource, key), None)
                if not line:
                    self._gated.pop(namespace, None)
                return
            if not line:
                self.enqueue(namespace, after=RETRY_SECONDS)
            line[(resource, key)] = workload

        return changed

    async def reconcile(self, key: str) -> float | None:
        """Ask the first in line of a namespace again."""
        line = self._gated.get(key)
        if not line:
            self._turn.pop(key, None)
            return None
        order = sorted(line.items(), key=lambda item: (-item[1].priority, item[1].created, item[1].uid))
        turn = self._turn[key] = self._turn.get(key, -1) + 1
        for (resource, _), workload in retried(order, turn):
            await self._ask(resource, workload)
        return RETRY_SECONDS

    async def _ask(self, resource: Resource, workload: Workload) -> None:
        patch = {"metadata": {"annotations": {RETRY_ANNOTATION: f"{self._clock():.3f}"}, "uid": workload.uid}}
        try:
            await self._api.patch(resource, workload.name, workload.namespace, patch, kind="merge")
        except NotFound:
            return
