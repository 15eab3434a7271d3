"""Which kinds are workloads: each with its adapter. A third kind would be a third entry, and nothing else.

Whoever has an object and asks what it is as a workload comes here; the adapters know nothing of this.
"""

from __future__ import annotations

from isoplane.objects.kinds import Resource
from isoplane.workload.adapters import Adapter
from isoplane.workload.pod import PodAdapter
from isoplane.workload.vmi import MachineAdapter

_ADAPTERS: tuple[Adapter, ...] = (PodAdapter(), MachineAdapter())
_BY_RESOURCE = {adapter.resource: adapter for adapter in _ADAPTERS}


def adapter_for(resource: Resource) -> Adapter | None:
    """The adapter of a resource, or None when its objects are no workloads."""
    return _BY_RESOURCE.get(resource)


def workload_resources() -> tuple[Resource, ...]:
    """The resources whose objects are workloads."""
    return tuple(_BY_RESOURCE)
