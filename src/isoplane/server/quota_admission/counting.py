"""Objects to charges: one, or a whole namespace from scratch (a first quota, another accounting, the repair pass)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.kinds import SERVED, Resource
from isoplane.quota.charge import charge_of, object_amounts
from isoplane.quota.model import DEFAULT_ACCOUNTING, Ask, Charge, Waiting, stored
from isoplane.server.quota_admission.accounts import RowAccounts
from isoplane.server.quota_admission.config import Change, objects
from isoplane.store.view import ReadView
from isoplane.workload.adapters import QUOTA_GATE, adapter_for, workload_resources
from isoplane.workload.shape import Claim, Stage

NEVER = "Never"


def ask_for(claim: Claim, now: float) -> Ask:
    """The ask of a new object."""
    return Ask(
        charge_of(claim, created=now, since=now),
        owned=claim.owned_by_tenant,
        preempts=claim.preemption_policy != NEVER,
        unspecified=claim.unspecified,
    )


def _created(obj: Mapping[str, Any]) -> float:
    return metadata.posix((obj.get("metadata") or {}).get("creationTimestamp")) or 0.0


def entries(
    accounts: RowAccounts, view: ReadView, tenant: str, change: Change | None
) -> tuple[dict[str, Charge], dict[str, Waiting]]:
    """Who is charged and who waits in a namespace, from its objects. Ages and holds known already are kept."""
    policy = accounts.policy(tenant)
    charges: dict[str, Charge] = {}
    waiting: dict[str, Waiting] = {}
    for resource in workload_resources():
        adapter = adapter_for(resource)
        assert adapter is not None
        for obj in objects(view, resource, tenant, change):
            workload = adapter.project(obj)
            known = accounts.charge(tenant, workload.uid)
            place = accounts.waiter(tenant, workload.uid)
            old = known or (place.charge if place is not None else None)
            created = old.created if old is not None else _created(obj)
            since = known.since if known is not None else workload.transitions.get(Stage.RUNNING, created)
            claim = adapter.claim(obj, policy.accounting) if policy.accounting != DEFAULT_ACCOUNTING else workload
            charge = charge_of(claim, created=created, since=since)
            if known is not None and known.stuck and charge.evicting:
                charge = replace(charge, stuck=True)
            if QUOTA_GATE in workload.gates:
                # Who ended, or is told to go, waits no longer; it was never charged, and counts as stored.
                if workload.deleting or workload.finished:
                    charges[charge.uid] = replace(charge, amounts=stored(charge.amounts), finished=True)
                    continue
                preempts = workload.preemption_policy != NEVER
                waiting[charge.uid] = (
                    replace(place, charge=charge)
                    if place is not None
                    else Waiting(charge, since=created, preempts=preempts)
                )
            else:
                charges[charge.uid] = charge
    return charges, waiting


def object_counts(view: ReadView, tenant: str, names: Iterable[str], change: Change | None) -> dict[str, int]:
    """How many objects that are no workloads a namespace has, by the names that its quotas count."""
    wanted = frozenset(names)
    counts: dict[str, int] = {}
    for resource in counted_resources(wanted):
        number = sum(1 for record in view.list(resource, tenant))
        if change is not None and change.resource is resource:
            stored = view.get(resource, change.namespace, change.name) is not None
            number += (change.obj is not None) - stored
        for name in object_amounts(resource):
            if name in wanted and number:
                counts[name] = number
    return counts


def counted_resources(names: frozenset[str]) -> list[Resource]:
    """The served kinds, workloads aside, that some of these names count."""
    return [
        resource
        for resource in SERVED
        if resource.namespaced
        and not resource.computed
        and resource not in workload_resources()
        and not names.isdisjoint(object_amounts(resource))
    ]
