"""PodDisruptionBudgets: how many of the workloads each selects may be disrupted now, both kinds alike.

Quota reads ``status.disruptionsAllowed`` when it chooses victims, and the eviction subresource spends it: what that wrote
into ``disruptedPods`` counts as unhealthy here until the deletion is seen.

Source: kube-controller-manager's disruption controller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from isoplane.client.api import Api
from isoplane.client.controller import Controller
from isoplane.client.informer import Informers
from isoplane.objects import metadata
from isoplane.objects.errors import NotFound
from isoplane.objects.kinds import PODDISRUPTIONBUDGETS
from isoplane.quota.disruption import DELETION_TIMEOUT, selector_of, still_disrupted
from isoplane.workload.registry import adapter_for, workload_resources
from isoplane.workload.shape import Workload

EVICTION = "eviction"
"""The subresource of the kinds that budgets can refuse to evict."""


@dataclass(frozen=True, slots=True)
class Health:
    """Of the selected workloads: how many there are, and how many serve."""

    expected: int
    healthy: int
    disrupted: Mapping[str, str] = field(default_factory=dict)
    """Pods evicted whose deletion was not seen yet, with the time of their eviction."""


def scaled(value: Any, total: int) -> int:
    """An IntOrString against a total; percentages round up. Raises ValueError when it is neither."""
    if isinstance(value, str) and value.endswith("%"):
        return -(-int(value[:-1]) * total // 100)
    return int(value)


def desired_healthy(spec: Mapping[str, Any], expected: int) -> int:
    """How many must serve: minAvailable, or what maxUnavailable leaves."""
    if spec.get("minAvailable") is not None:
        return scaled(spec["minAvailable"], expected)
    if spec.get("maxUnavailable") is not None:
        return max(0, expected - scaled(spec["maxUnavailable"], expected))
    return expected


def status_of(pdb: Mapping[str, Any], health: Health, now: str) -> dict[str, Any]:
    """The status of a budget. Pure."""
    desired = desired_healthy(pdb.get("spec") or {}, health.expected)
    allowed = max(0, health.healthy - desired) if health.expected else 0
    old = pdb.get("status") or {}
    condition = {
        "type": "DisruptionAllowed",
        "status": "True" if allowed else "False",
        "reason": "SufficientPods" if allowed else "InsufficientPods",
        "message": f"{health.healthy} of {health.expected} serve, {desired} must",
    }
    status = {
        **old,
        "observedGeneration": int((pdb.get("metadata") or {}).get("generation") or 1),
        "expectedPods": health.expected,
        "currentHealthy": health.healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": allowed,
        "conditions": metadata.set_condition(old.get("conditions") or (), condition, now),
    }
    status.pop("disruptedPods", None)
    if health.disrupted:
        status["disruptedPods"] = dict(health.disrupted)
    return status


class BudgetController(Controller):
    """Keeps the status of every PodDisruptionBudget."""

    name = "disruption"

    def __init__(self, api: Api, informers: Informers, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(workers=1)
        self._api = api
        self._informers = informers
        self._clock = clock
        self._budgets = self.watch(informers.of(PODDISRUPTIONBUDGETS))
        for resource in workload_resources():
            self.watch(informers.of(resource), self._concerned)

    def _concerned(self, obj: Mapping[str, Any]) -> Iterable[str]:
        if not len(self._budgets):
            return
        own = metadata.namespace(obj)
        for budget in self._budgets.items():
            if metadata.namespace(budget) == own and selector_of(budget).matches(metadata.labels(obj)):
                yield metadata.key(budget)

    async def reconcile(self, key: str) -> float | None:
        """Write the budget's status where it changed."""
        budget = self._budgets.by_key(key)
        if budget is None:
            return None
        health = self._health(budget)
        # An eviction that nobody carries out is forgotten in time, which no change of an object tells.
        again = DELETION_TIMEOUT + 1 if health.disrupted else None
        status = status_of(budget, health, metadata.rfc3339(self._clock()))
        if status == (budget.get("status") or {}):
            return again
        try:
            await self._api.update(PODDISRUPTIONBUDGETS, {**budget, "status": status}, subresource="status")
        except NotFound:
            return None
        return again

    def _health(self, budget: Mapping[str, Any]) -> Health:
        selected = list(self._selected(budget))
        leaving = {
            workload.name: workload.deleting for obj, workload in selected if EVICTION in workload.resource.subresources
        }
        disrupted = still_disrupted(budget.get("status") or {}, leaving, self._clock())
        healthy = 0
        for obj, workload in selected:
            ready = (metadata.condition(obj, "Ready") or {}).get("status") == "True"
            evicted = EVICTION in workload.resource.subresources and workload.name in disrupted
            healthy += ready and not workload.deleting and not evicted
        return Health(len(selected), healthy, disrupted)

    def _selected(self, budget: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Workload]]:
        """What the budget selects and has not ended."""
        own, selector = metadata.namespace(budget), selector_of(budget)
        for resource in workload_resources():
            adapter = adapter_for(resource)
            assert adapter is not None
            for obj in self._informers.of(resource).items():
                if metadata.namespace(obj) == own and selector.matches(metadata.labels(obj)):
                    workload = adapter.project(obj)
                    if not workload.finished:
                        yield obj, workload
