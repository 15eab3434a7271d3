"""The acting half of preemption for a node's capacity: what the plan is made from, and carrying it out.

The plan itself is :mod:`isoplane.placement.preemption`'s.  The scheduler asks for one when a workload fits on no node, nominates
the node of the plan, and has the victims leave here: condition DisruptionTarget with the reason PreemptionByScheduler, an
Event, graceful deletion (a VM by its power button).
Which node is nominated, and who is looked at again when room comes free, is the scheduler's own file's affair.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from isoplane.client.api import Api
from isoplane.client.informer import Informers
from isoplane.controllers.events import Events
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError, Conflict, NotFound
from isoplane.objects.kinds import PODDISRUPTIONBUDGETS, QUOTAPOLICIES, Resource
from isoplane.objects.selectors import Selector
from isoplane.placement.fit import Node, demand
from isoplane.placement.preemption import Guarantees, Plan, Running, leave, plan
from isoplane.placement.usage import Usage
from isoplane.quota.disruption import allowed_by, selector_of
from isoplane.quota.read import POLICY_NAME, policy_of
from isoplane.workload.adapters import Adapter
from isoplane.workload.registry import adapter_for, workload_resources
from isoplane.workload.shape import Workload

_log = logging.getLogger(__name__)

REASON = "PreemptionByScheduler"
ATTEMPTS = 4
"""How often a victim's status is written anew when somebody else wrote in between."""
_REQUESTS = "requests."


@dataclass(slots=True)
class _Budget:
    key: str
    selector: Selector
    allowed: int
    disrupted: frozenset[str]


class Preemption:
    """Plans from what the informers know, and carries plans out."""

    def __init__(
        self, api: Api, informers: Informers, events: Events, usage: Usage, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._api = api
        self._informers = informers
        self._events = events
        self._usage = usage
        self._clock = clock
        self._budgets = informers.of(PODDISRUPTIONBUDGETS)
        self._policies = informers.of(QUOTAPOLICIES)
        self._asked: set[str] = set()
        """uids of victims whose deletion was asked for and is not seen yet."""
        self._running: dict[str, list[Running]] | None = None
        self._where: dict[str, tuple[Resource, str]] = {}
        self._allowed: dict[str, int] = {}
        self._guarantees = Guarantees()

    def forget(self) -> None:
        """Read everything anew for the next plan: a new cycle begins."""
        self._running = None

    def plan(self, workload: Workload, nodes: Mapping[str, Node], used: Mapping[str, Mapping[str, int]]) -> Plan | None:
        """Who would leave for the workload, and where; None when preemption does not help."""
        if self._usage.lowest_priority is None or self._usage.lowest_priority >= workload.priority:
            return None
        if self._running is None:
            self._running = self._read()
        found = plan(workload, nodes.values(), used, self._running, self._allowed, self._guarantees)
        if found is not None and found.victims:
            self._running = leave(self._running, found)
            self._asked.update(victim.uid for victim in found.victims)
            for victim in found.victims:
                for budget in victim.budgets:
                    self._allowed[budget] = self._allowed.get(budget, 0) - 1
        return found

    async def carry_out(self, found: Plan, workload: Workload) -> bool:
        """Have every victim leave. Returns whether each one was asked to; who was not may be planned with again."""
        message = f"Preempted by {workload.resource.singular} {workload.uid} on node {found.node}"
        done = True
        for victim in found.victims:
            try:
                await self._evict(victim, message)
            except (ApiError, OSError) as error:
                _log.warning("preempting %s for %s: %s", self._where[victim.uid][1], workload.id, error)
                self._asked.discard(victim.uid)
                done = False
        return done

    async def _evict(self, victim: Running, message: str) -> None:
        resource, key = self._where[victim.uid]
        namespace, name = metadata.split_key(key)
        adapter = _adapter(resource)
        for attempt in range(ATTEMPTS):
            try:
                obj = await self._api.get(resource, name, namespace)
                if metadata.uid(obj) != victim.uid or obj["metadata"].get("deletionTimestamp"):
                    return
                marked = adapter.mark_victim(obj, REASON, message, self._clock())
                await self._api.update(resource, marked, subresource="status")
                self._events(obj, "Warning", "Preempted", message)
                await self._api.delete(resource, name, namespace, uid=victim.uid)
                return
            except NotFound:
                return
            except Conflict:
                if attempt == ATTEMPTS - 1:
                    raise

    # what plans are made from

    def _read(self) -> dict[str, list[Running]]:
        """Node → who is there, from the caches; and with it the budgets and the guarantees."""
        budgets = self._read_budgets()
        floor = self._read_floors()
        taken: dict[str, dict[str, int]] = {tenant: {} for tenant in floor}
        running: dict[str, list[Running]] = {}
        seen: set[str] = set()
        self._where = {}
        for resource in workload_resources():
            informer = self._informers.of(resource)
            project = _adapter(resource).project
            for obj in informer.items():
                workload = informer.derived(project, obj)
                node = self._usage.node(workload.uid) or workload.node
                if not node or workload.finished:
                    continue
                seen.add(workload.uid)
                self._where[workload.uid] = (resource, metadata.key(obj))
                one = _running(workload, budgets.get(workload.namespace, ()), self._asked)
                running.setdefault(node, []).append(one)
                if not one.leaving and (sums := taken.get(workload.namespace)) is not None:
                    for name, amount in one.demand.items():
                        sums[name] = sums.get(name, 0) + amount
        self._asked &= seen
        self._guarantees = Guarantees(floor, taken)
        return running

    def _read_budgets(self) -> dict[str, list[_Budget]]:
        found: dict[str, list[_Budget]] = {}
        self._allowed = {}
        for obj in self._budgets.items():
            status = obj.get("status") or {}
            key = metadata.key(obj)
            allowed = self._allowed[key] = allowed_by(obj)
            selector = selector_of(obj)
            disrupted = frozenset(status.get("disruptedPods") or ())
            found.setdefault(metadata.namespace(obj), []).append(_Budget(key, selector, allowed, disrupted))
        return found

    def _read_floors(self) -> dict[str, dict[str, int]]:
        """Tenant → resource of a node → what its QuotaPolicy guarantees it in a cohort."""
        floors: dict[str, dict[str, int]] = {}
        for obj in self._policies.items():
            policy = policy_of(obj) if metadata.name(obj) == POLICY_NAME else None
            if policy is not None and policy.cohort and policy.guaranteed:
                floors[metadata.namespace(obj)] = {
                    name.removeprefix(_REQUESTS): amount
                    for name, amount in policy.guaranteed.items()
                    if name.startswith(_REQUESTS) or "." not in name
                }
        return floors


def _running(workload: Workload, budgets: Any, asked: set[str]) -> Running:
    labels = workload.labels
    return Running(
        uid=workload.uid,
        tenant=workload.namespace,
        priority=workload.priority,
        demand=demand(workload),
        cost=workload.disruption_cost,
        created=workload.created,
        leaving=workload.deleting or workload.uid in asked,
        migrating=workload.migrating,
        budgets=tuple(
            budget.key
            for budget in budgets
            if workload.name not in budget.disrupted and budget.selector.matches(labels)
        ),
    )


def _adapter(resource: Resource) -> Adapter:
    adapter = adapter_for(resource)
    assert adapter is not None
    return adapter
