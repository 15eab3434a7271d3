"""The node behind the API: logs (container output, serial console) and exec, for the workloads of this node."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping

from isoplane.client.informer import Informers
from isoplane.client.streams import ExecOptions, ExecSession, LogOptions
from isoplane.node.runtime.protocol import Interactive, Runtime, RuntimeFailure
from isoplane.objects.errors import BadRequest, Internal, NotFound
from isoplane.objects.kinds import Resource
from isoplane.workload.registry import adapter_for
from isoplane.workload.shape import Unit, UnitRole, Workload

_WHY_NO_LOG = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}
"""The kubelet's words for what it waits for (validateContainerLogStatus)."""


class LocalNode:
    """Answers for the workloads that run on this machine."""

    def __init__(
        self, informers: Informers, runtimes: Mapping[str, Runtime], clock: Callable[[], float] = time.time
    ) -> None:
        self._informers = informers
        self._runtimes = runtimes
        self._clock = clock

    def _workload(self, resource: Resource, namespace: str, name: str) -> Workload:
        adapter = adapter_for(resource)
        obj = self._informers.of(resource).get(namespace, name)
        if adapter is None or obj is None:
            raise NotFound(f'{resource.qualified} "{name}" not found')
        return adapter.project(obj)

    @staticmethod
    def _unit(workload: Workload, wanted: str) -> Unit:
        names = [unit.name for unit in workload.units]
        if not wanted:
            mains = [unit for unit in workload.units if unit.role is UnitRole.MAIN]
            chosen = workload.annotations.get("kubectl.kubernetes.io/default-container")
            if chosen in names:
                wanted = str(chosen)
            elif len(mains) == 1:
                return mains[0]
            else:
                raise BadRequest(
                    f"a container name must be specified for {workload.id}, choose one of: [{' '.join(names)}]"
                )
        for unit in workload.units:
            if unit.name == wanted:
                return unit
        raise BadRequest(f"container {wanted} is not valid for {workload.id}, choose one of: [{' '.join(names)}]")

    async def logs(
        self, resource: Resource, namespace: str, name: str, options: LogOptions
    ) -> AsyncGenerator[bytes, None]:
        """See ``client.streams.NodeBackend``."""
        workload = self._workload(resource, namespace, name)
        unit = self._unit(workload, options.container)
        runtime = self._runtimes[workload.runtime]
        since = self._clock() - options.since_seconds if options.since_seconds is not None else None
        left = options.limit_bytes
        try:
            pieces = runtime.logs(
                workload.uid,
                unit.name,
                follow=options.follow,
                tail_lines=options.tail_lines,
                since=since,
                previous=options.previous,
                timestamps=options.timestamps,
            )
            async for piece in pieces:
                if left is None:
                    yield piece
                    continue
                yield piece[:left]
                left -= len(piece)
                if left <= 0:
                    return
        except RuntimeFailure as failure:
            raise BadRequest(self._no_log(resource, workload, unit, options, failure)) from failure

    def _no_log(
        self, resource: Resource, workload: Workload, unit: Unit, options: LogOptions, failure: RuntimeFailure
    ) -> str:
        """Why there is no log, in the kubelet's words where the unit waits to start."""
        which = f'container "{unit.name}" in {resource.singular} "{workload.name}"'
        if options.previous:
            return f"previous terminated {which} not found"
        adapter, obj = adapter_for(resource), self._informers.of(resource).get(workload.namespace, workload.name)
        waiting = adapter.trouble(obj, unit.name) if adapter is not None and obj is not None else None
        if waiting is None or not waiting.reason:
            return f"container {unit.name} of {workload.id} has no log: {failure.message}"
        return f"{which} is waiting to start: {_WHY_NO_LOG.get(waiting.reason, waiting.reason)}"

    def check_exec(self, resource: Resource, namespace: str, name: str, options: ExecOptions) -> None:
        """See ``client.streams.NodeBackend``."""
        self._way_in(resource, namespace, name, options)

    def _way_in(
        self, resource: Resource, namespace: str, name: str, options: ExecOptions
    ) -> tuple[Workload, Unit, Interactive]:
        workload = self._workload(resource, namespace, name)
        unit = self._unit(workload, options.container)
        runtime = self._runtimes[workload.runtime]
        if not isinstance(runtime, Interactive):
            raise BadRequest(f"{workload.id}: commands cannot be run inside it ({runtime.name} has no way in)")
        return workload, unit, runtime

    async def exec(self, resource: Resource, namespace: str, name: str, options: ExecOptions) -> ExecSession:
        """See ``client.streams.NodeBackend``."""
        workload, unit, runtime = self._way_in(resource, namespace, name, options)
        try:
            return await runtime.open_exec(workload.uid, unit.name, options)
        except RuntimeFailure as failure:
            raise Internal(f"{workload.id}: {failure.message}") from failure
