"""Objects that configure quota, as the decision reads them: ResourceQuota, TenantQuota, QuotaPolicy, Cohort with its Nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.kinds import RESOURCEQUOTAS, TENANTQUOTAS, Resource
from isoplane.objects.quantity import amount, is_cpu, parse
from isoplane.quota.charge import canonical
from isoplane.quota.model import DEFAULT_MAX_GRACE, DEFAULT_MAX_PENDING, Policy, Quota
from isoplane.quota.scopes import terms
from isoplane.workload.accounting import DEFAULT_ACCOUNTING, Accounting

POLICY_NAME = "default"
"""The one QuotaPolicy of a namespace that counts."""


def quota_of(obj: Mapping[str, Any]) -> Quota:
    """A ResourceQuota or TenantQuota. Raises ValueError on a malformed quantity or scope."""
    spec = obj.get("spec") or {}
    hard = {name: amount(name, value) for name, value in (spec.get("hard") or {}).items()}
    return Quota(quota_name(str(obj.get("kind")), metadata.name(obj)), hard, terms(spec))


def quota_name(kind: str, name: str) -> str:
    """The name of a quota among those of its namespace: a TenantQuota may be called as a ResourceQuota is."""
    return f"{TENANTQUOTAS.singular}/{name}" if kind == TENANTQUOTAS.kind else name


def quota_object(quota: str) -> tuple[Resource, str]:
    """The object that a quota of this name was read from: its resource and its name."""
    kind, _, name = quota.rpartition("/")
    return (TENANTQUOTAS if kind else RESOURCEQUOTAS, name)


def _amounts(quantities: Mapping[str, Any] | None) -> dict[str, int]:
    return {canonical(name): amount(canonical(name), value) for name, value in (quantities or {}).items()}


def policy_of(obj: Mapping[str, Any]) -> Policy:
    """A QuotaPolicy. Raises ValueError on a malformed quantity."""
    spec = obj.get("spec") or {}
    threshold = spec.get("evictionThreshold")
    return Policy(
        threshold=None if threshold is None else int(threshold),
        min_run=float(spec.get("minRunSeconds") or 0),
        guaranteed=_amounts(spec.get("guaranteed")),
        borrowing=_amounts(spec.get("borrowingLimit")),
        lending=_amounts(spec.get("lendingLimit")),
        migration_reserve=_amounts(spec.get("migrationReserve")),
        cohort=str(spec.get("cohort") or ""),
        accounting=Accounting(
            str(spec.get("vmAccounting") or DEFAULT_ACCOUNTING.mode),
            str(spec.get("kubevirtVersion") or DEFAULT_ACCOUNTING.kubevirt),
        ),
        max_pending=DEFAULT_MAX_PENDING if spec.get("maxPending") is None else int(spec["maxPending"]),
    )


def max_priority(policy: Mapping[str, Any]) -> int | None:
    """The highest priority that a QuotaPolicy allows in its namespace; None: any."""
    stated = (policy.get("spec") or {}).get("maxPriority")
    return None if stated is None else int(stated)


def allocatable(node: Mapping[str, Any]) -> dict[str, int]:
    """What a node has to give, by canonical name; rounded down, for nobody may be promised what is not there."""
    found: dict[str, int] = {}
    for name, value in ((node.get("status") or {}).get("allocatable") or {}).items():
        key = canonical(name)
        exact = parse(value) * 1000 if is_cpu(key) else parse(value)
        found[key] = exact.numerator // exact.denominator
    return found


def max_grace(cohort: Mapping[str, Any]) -> int:
    """Seconds that a victim of another tenant of the cohort has at most."""
    stated = (cohort.get("spec") or {}).get("maxGraceSeconds")
    return DEFAULT_MAX_GRACE if stated is None else int(stated)


def selects(cohort: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    """Whether a node is one of those that give a cohort its capacity; without a selector every node is."""
    wanted = (cohort.get("spec") or {}).get("nodeSelector") or {}
    labels = metadata.labels(node)
    return all(labels.get(key) == value for key, value in wanted.items())


def capacity(cohort: Mapping[str, Any], nodes: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """What a cohort may promise: what it states, or the selected nodes' allocatable amounts, times the overcommit ratio.

    Rounded down.  Raises ValueError on a malformed quantity.
    """
    spec = cohort.get("spec") or {}
    ratios = {canonical(name): Fraction(str(ratio)) for name, ratio in (spec.get("overcommit") or {}).items()}
    stated = spec.get("capacity")
    total = _amounts(stated)
    for node in nodes if stated is None else ():
        if not selects(cohort, node):
            continue
        for name, value in allocatable(node).items():
            total[name] = total.get(name, 0) + value
    return {name: int(value * ratios.get(name, Fraction(1))) for name, value in total.items()}
