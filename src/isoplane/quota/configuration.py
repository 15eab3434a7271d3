"""From the objects that configure quota to what the decision reads: ResourceQuota, TenantQuota, QuotaPolicy, Cohort, Node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.kinds import COHORTS, NODES, QUOTAPOLICIES, RESOURCEQUOTAS, TENANTQUOTAS, Resource
from isoplane.objects.metadata import Object
from isoplane.objects.reader import ObjectReader
from isoplane.quota.model import Cohort, Limits, Policy
from isoplane.quota.read import POLICY_NAME, allocatable, capacity, max_grace, policy_of, quota_of


def objects(
    view: ObjectReader, resource: Resource, namespace: str | None, change: Change | None
) -> Iterable[Mapping[str, Any]]:
    """The stored objects of a resource, as they will be once the write under way is made."""
    for record in view.list(resource, namespace):
        if change is not None and change.concerns(resource, record.namespace, record.name):
            continue
        yield record.object()
    if change is not None and change.obj is not None and change.resource is resource:
        yield change.obj


class Change:
    """The write under way: the object that is not stored yet (None: it is being removed)."""

    __slots__ = ("name", "namespace", "obj", "resource")

    def __init__(self, resource: Resource, namespace: str, name: str, obj: Object | None) -> None:
        self.resource = resource
        self.namespace = namespace
        self.name = name
        self.obj = obj

    def concerns(self, resource: Resource, namespace: str, name: str) -> bool:
        return self.resource is resource and self.namespace == namespace and self.name == name


def limits_of(view: ObjectReader, namespace: str, change: Change | None) -> Limits | None:
    """What a namespace's objects say; None when there is no quota and no policy."""
    kinds = (RESOURCEQUOTAS, TENANTQUOTAS)
    quotas = sorted(
        (quota_of(obj) for kind in kinds for obj in objects(view, kind, namespace, change)), key=lambda q: q.name
    )
    policies = [o for o in objects(view, QUOTAPOLICIES, namespace, change) if metadata.name(o) == POLICY_NAME]
    if not quotas and not policies:
        return None
    return Limits(tuple(quotas), policy_of(policies[0]) if policies else Policy())


def cohorts_of(view: ObjectReader, change: Change | None) -> tuple[Cohort, ...]:
    """Every cohort with its capacity."""
    nodes = list(objects(view, NODES, None, change))
    cohorts = objects(view, COHORTS, None, change)
    return tuple(Cohort(metadata.name(obj), capacity(obj, nodes), max_grace(obj)) for obj in cohorts)


def guaranteed(policies: Iterable[Policy]) -> dict[str, int]:
    """The sum of what is guaranteed, by resource."""
    total: dict[str, int] = {}
    for policy in policies:
        for name, value in policy.guaranteed.items():
            total[name] = total.get(name, 0) + value
    return total


def same_allocatable(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> bool:
    """Whether a node's write leaves every cohort's capacity as it is."""
    return allocatable(old or {}) == allocatable(new or {})
