"""From the objects that configure quota to what the decision reads: ResourceQuota, QuotaPolicy, Cohort, Node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.kinds import COHORTS, NODES, QUOTAPOLICIES, RESOURCEQUOTAS, Resource
from isoplane.objects.metadata import Object
from isoplane.objects.quantity import amount, is_cpu, parse, whole
from isoplane.quota.charge import canonical
from isoplane.quota.model import DEFAULT_ACCOUNTING, Amounts, Policy, Quota
from isoplane.quota.scopes import terms
from isoplane.server.quota_admission.rows import CohortConfig, TenantConfig
from isoplane.store.view import ReadView

POLICY_NAME = "default"
"""The one QuotaPolicy of a namespace that counts."""


def quota_of(obj: Mapping[str, Any]) -> Quota:
    """A ResourceQuota as the decision reads it."""
    spec = obj.get("spec") or {}
    hard = {name: amount(name, value) for name, value in (spec.get("hard") or {}).items()}
    return Quota(metadata.name(obj), hard, terms(spec))


def _amounts(quantities: Mapping[str, Any] | None) -> dict[str, int]:
    return {canonical(name): amount(canonical(name), value) for name, value in (quantities or {}).items()}


def policy_of(obj: Mapping[str, Any]) -> Policy:
    """A QuotaPolicy as the decision reads it."""
    spec = obj.get("spec") or {}
    threshold = spec.get("evictionThreshold")
    return Policy(
        threshold=None if threshold is None else int(threshold),
        min_run=float(spec.get("minRunSeconds") or 0),
        guaranteed=_amounts(spec.get("guaranteed")),
        borrowing=_amounts(spec.get("borrowingLimit")),
        lending=_amounts(spec.get("lendingLimit")),
        cohort=str(spec.get("cohort") or ""),
        accounting=str(spec.get("vmAccounting") or DEFAULT_ACCOUNTING),
    )


def objects(
    view: ReadView, resource: Resource, namespace: str | None, change: Change | None
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


def tenant_config(view: ReadView, namespace: str, change: Change | None) -> TenantConfig | None:
    """What a namespace's objects say; None when there is no quota and no policy."""
    quotas = sorted((quota_of(obj) for obj in objects(view, RESOURCEQUOTAS, namespace, change)), key=lambda q: q.name)
    policies = [o for o in objects(view, QUOTAPOLICIES, namespace, change) if metadata.name(o) == POLICY_NAME]
    if not quotas and not policies:
        return None
    return TenantConfig(tuple(quotas), policy_of(policies[0]) if policies else Policy())


def capacity(view: ReadView, cohort: Mapping[str, Any], change: Change | None) -> dict[str, int]:
    """What a cohort may promise: the nodes' allocatable amounts, times the overcommit ratio, rounded down."""
    overcommit = (cohort.get("spec") or {}).get("overcommit") or {}
    ratios = {canonical(name): Fraction(str(ratio)) for name, ratio in overcommit.items()}
    total: dict[str, int] = {}
    for node in objects(view, NODES, None, change):
        for name, value in ((node.get("status") or {}).get("allocatable") or {}).items():
            key = canonical(name)
            # Rounded down, unlike requests: nobody may be promised the fraction that is not there.
            exact = parse(value) * 1000 if is_cpu(key) else parse(value)
            total[key] = total.get(key, 0) + exact.numerator // exact.denominator
    return {name: int(value * ratios.get(name, Fraction(1))) for name, value in total.items()}


def cohort_configs(view: ReadView, change: Change | None, policies: Mapping[str, Policy]) -> dict[str, CohortConfig]:
    """Every cohort with its capacity and its members. ``policies``: namespace → policy."""
    found: dict[str, CohortConfig] = {}
    for cohort in objects(view, COHORTS, None, change):
        name = metadata.name(cohort)
        members = tuple(sorted(tenant for tenant, policy in policies.items() if policy.cohort == name))
        found[name] = CohortConfig(capacity(view, cohort, change), members)
    return found


def promised(policies: Iterable[Policy]) -> dict[str, int]:
    """The sum of what is guaranteed, by resource."""
    total: dict[str, int] = {}
    for policy in policies:
        for name, value in policy.guaranteed.items():
            total[name] = total.get(name, 0) + value
    return total


def same_allocatable(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> bool:
    """Whether a node's write leaves every cohort's capacity as it is."""

    def of(node: Mapping[str, Any] | None) -> Amounts:
        allocatable = (((node or {}).get("status") or {}).get("allocatable")) or {}
        return {name: whole(value) if not is_cpu(name) else amount(name, value) for name, value in allocatable.items()}

    return of(old) == of(new)
