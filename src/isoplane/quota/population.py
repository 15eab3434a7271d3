"""What is there, from objects: for a namespace that is counted from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from isoplane.objects import metadata
from isoplane.objects.kinds import Resource
from isoplane.objects.reader import ObjectReader
from isoplane.objects.scheme import Scheme
from isoplane.quota.census import Observed
from isoplane.quota.charge import object_amounts
from isoplane.quota.configuration import Change, objects
from isoplane.workload.accounting import DEFAULT_ACCOUNTING, Accounting
from isoplane.workload.registry import adapter_for, workload_resources
from isoplane.workload.shape import Stage


def observed(view: ObjectReader, tenant: str, accounting: Accounting, change: Change | None) -> Iterator[Observed]:
    """Every workload of a namespace."""
    for resource in workload_resources():
        adapter = adapter_for(resource)
        assert adapter is not None
        for obj in objects(view, resource, tenant, change):
            workload = adapter.project(obj)
            demand = adapter.claim(obj, accounting) if accounting != DEFAULT_ACCOUNTING else workload
            created = metadata.posix((obj.get("metadata") or {}).get("creationTimestamp")) or 0.0
            yield Observed(demand, created, workload.transitions.get(Stage.RUNNING))


def object_counts(
    scheme: Scheme, view: ObjectReader, tenant: str, names: Iterable[str], change: Change | None
) -> dict[str, int]:
    """How many objects that are no workloads a namespace has, by the names that its quotas count."""
    wanted = frozenset(names)
    counts: dict[str, int] = {}
    for resource in counted_resources(scheme, wanted):
        number = sum(1 for record in view.list(resource, tenant))
        if change is not None and change.resource is resource:
            stored = view.get(resource, change.namespace, change.name) is not None
            number += (change.obj is not None) - stored
        for name in object_amounts(resource):
            if name in wanted and number:
                counts[name] = number
    return counts


def counted_resources(scheme: Scheme, names: Set[str]) -> list[Resource]:
    """The served kinds, workloads aside, that some of these names count."""
    return [
        resource
        for resource in scheme.stored()
        if resource.namespaced
        and resource not in workload_resources()
        and not names.isdisjoint(object_amounts(resource))
    ]
