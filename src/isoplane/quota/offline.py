"""A ledger imagined from manifests, and what it would answer: ``isoplane quota explain`` without a plane.

State objects are taken to be there, whatever the limits say; new ones are decided one after the other, each seeing what the ones
before it did.  The same adapters, charges and decision as the server's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from isoplane.objects import kinds, metadata
from isoplane.objects.kinds import (
    COHORTS,
    NODES,
    PODDISRUPTIONBUDGETS,
    PRIORITYCLASSES,
    QUOTAPOLICIES,
    QUOTAUSAGES,
    RESOURCEQUOTAS,
    TENANTQUOTAS,
    Resource,
)
from isoplane.objects.metadata import Object
from isoplane.quota.charge import charge_of, object_amounts
from isoplane.quota.decide import decide
from isoplane.quota.disruption import as_budget
from isoplane.quota.explain import Standing
from isoplane.quota.ledger import Ledger
from isoplane.quota.lines import full_counts
from isoplane.quota.model import Admit, Ask, Budget, Charge, Cohort, Decision, Deny, Wait, Waiting, stored
from isoplane.quota.outlook import Outlook, outlook
from isoplane.quota.priority import PriorityClass, class_name, class_of, default_class
from isoplane.quota.read import POLICY_NAME, capacity, max_grace, policy_of, quota_of
from isoplane.quota.release import ask_of
from isoplane.workload import common
from isoplane.workload.adapters import QUOTA_GATE, Adapter
from isoplane.workload.registry import adapter_for
from isoplane.workload.shape import Stage, Workload

SYSTEM_CLASSES = (
    PriorityClass("system-cluster-critical", 2_000_000_000),
    PriorityClass("system-node-critical", 2_000_001_000),
)


class Unreadable(ValueError):
    """A manifest that does not say enough, or says it wrongly: which object, what, and what to do."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What would happen to one new object."""

    ask: Ask
    decision: Decision
    standing: Standing | None = None
    """How it waits, where it is there already."""
    outlook: Outlook | None = None
    """How it goes on in its namespace once all that is asked about is there, where it waits."""


class Offline:
    """A namespace's worth of quota, or a cluster's, from objects."""

    def __init__(self, state: Sequence[Object], now: float) -> None:
        """Raises Unreadable."""
        self._now = now
        self._serial = 0
        self._uids: dict[str, str] = {}
        """id of a workload of the state → uid: a manifest of it means that one."""
        self._sorted: dict[Resource, list[Object]] = {}
        for obj in state:
            self._sorted.setdefault(resource_of(obj), []).append(obj)
        self._classes = {c.name: c for c in (*SYSTEM_CLASSES, *map(class_of, self._of(PRIORITYCLASSES)))}
        self.ledger = Ledger()
        self._configure()
        self._fill(state)

    def _of(self, resource: Resource) -> list[Object]:
        return self._sorted.get(resource, [])

    def _configure(self) -> None:
        quotas: dict[str, list[Object]] = {}
        for obj in (*self._of(RESOURCEQUOTAS), *self._of(TENANTQUOTAS)):
            quotas.setdefault(namespace_of(obj), []).append(obj)
        for namespace, found in quotas.items():
            self.ledger.set_quotas(namespace, [_read(quota_of, obj) for obj in found])
        for obj in self._of(QUOTAPOLICIES):
            if metadata.name(obj) == POLICY_NAME:
                self.ledger.set_policy(namespace_of(obj), _read(policy_of, obj))
        for obj in self._of(COHORTS):
            limits = _read(lambda cohort: capacity(cohort, self._of(NODES)), obj)
            self.ledger.set_cohort(Cohort(metadata.name(obj), limits, max_grace(obj)))

    def _fill(self, state: Sequence[Object]) -> None:
        known = {
            str(entry.get("uid")): (entry, field == "holds")
            for usage in self._of(QUOTAUSAGES)
            for field in ("holds", "waiting")
            for entry in (usage.get("status") or {}).get(field) or ()
        }
        labelled: dict[str, list[tuple[str, Mapping[str, str]]]] = {}
        for obj in state:
            resource = resource_of(obj)
            adapter = adapter_for(resource)
            if adapter is None:
                if resource.namespaced and not resource.computed:
                    self.ledger.count(namespace_of(obj), object_amounts(resource), +1)
                continue
            ask, workload = self._ask(adapter, obj)
            charge = ask.charge
            labelled.setdefault(charge.tenant, []).append((charge.uid, workload.labels))
            self._uids[charge.id] = charge.uid
            if QUOTA_GATE in workload.gates:
                if workload.deleting or workload.finished:
                    self.ledger.add(replace(charge, amounts=stored(charge.amounts), finished=True))
                    continue
                entry, held = known.get(charge.uid, ({}, False))
                since = metadata.posix(entry.get("since")) or workload.transitions.get(Stage.GATED, charge.created)
                self.ledger.wait(
                    Waiting(
                        charge,
                        held=held,
                        victims=tuple(entry.get("victims") or ()),
                        since=since,
                        expires=metadata.posix(entry.get("expires")) or 0,
                        preempts=ask.preempts,
                    )
                )
            else:
                self.ledger.add(charge)
        self._budgets(labelled)

    def _budgets(self, labelled: Mapping[str, Sequence[tuple[str, Mapping[str, str]]]]) -> None:
        budgets: dict[str, list[Budget]] = {}
        for obj in self._of(PODDISRUPTIONBUDGETS):
            namespace = namespace_of(obj)
            budgets.setdefault(namespace, []).append(as_budget(obj, labelled.get(namespace, ())))
        for namespace, found in budgets.items():
            self.ledger.set_budgets(namespace, found)

    def _ask(self, adapter: Adapter, obj: Object) -> tuple[Ask, Workload]:
        """The ask of a workload, with its priority resolved as admission would."""
        namespace, self._serial = namespace_of(obj), self._serial + 1
        meta = {**obj["metadata"], "namespace": namespace}
        meta.setdefault("uid", f"{obj.get('kind')}/{namespace}/{metadata.name(obj)}")
        obj = {**obj, "metadata": meta}
        try:
            name = class_name(obj)
            if name in self._classes or not common.is_resolved(obj):
                resolved = self._class(name)
                obj = adapter.set_priority(obj, resolved.name, resolved.value, resolved.preemption_policy)
            workload = adapter.project(obj)
            claim = adapter.claim(obj, self.ledger.policy(namespace).accounting)
        except ValueError as error:
            raise Unreadable(f"{describe(obj)}: {error}") from error
        # Manifests have no age: what comes later counts as newer.
        created = metadata.posix(workload.created) or float(self._serial)
        since = workload.transitions.get(Stage.RUNNING, created)
        charge = charge_of(claim, created=created, since=since)
        preempts = workload.preemption_policy != "Never"
        return Ask(charge, workload.owned_by_tenant, preempts, workload.unspecified), workload

    def _class(self, name: str) -> PriorityClass:
        if not name:
            return default_class(self._classes.values())
        found = self._classes.get(name)
        if found is None:
            known = ", ".join(sorted(self._classes))
            raise ValueError(f"no PriorityClass with name {name} was found; known here: {known}")
        return found

    def answer(self, obj: Object) -> Answer | None:
        """Decide about a new object and carry the decision out; None for what no quota looks at. Raises Unreadable."""
        resource = resource_of(obj)
        adapter = adapter_for(resource)
        if adapter is None:
            return self._counted(resource, obj)
        ask, workload = self._ask(adapter, obj)
        if known := self._uids.get(workload.id):
            ask = replace(ask, charge=replace(ask.charge, uid=known))
        if waiting := self.ledger.waiter(ask.charge.tenant, ask.charge.uid):
            return self._standing(waiting)
        decision = decide(self.ledger, ask, self._now)
        if isinstance(decision, Admit):
            self.ledger.add(replace(ask.charge, since=self._now))
        elif isinstance(decision, Wait):
            self.ledger.commit(ask, decision, self._now)
        return Answer(ask, decision)

    def _standing(self, waiting: Waiting) -> Answer:
        """What somebody waits for who is there already."""
        in_line = [other.charge.uid for other in self.ledger.waiting(waiting.charge.tenant) if not other.held]
        place = 0 if waiting.held else in_line.index(waiting.charge.uid) + 1
        ask = ask_of(waiting)
        decision = decide(self.ledger, ask, self._now)
        if waiting.held and isinstance(decision, Wait):
            decision = Wait("given-back", decision.lines, held=True)
        return Answer(ask, decision, Standing(waiting, place, len(in_line)))

    def _counted(self, resource: Resource, obj: Object) -> Answer | None:
        namespace, amounts = namespace_of(obj), object_amounts(resource)
        if not resource.namespaced or not any(n in q.hard for q in self.ledger.quotas(namespace) for n in amounts):
            return None
        name = f"{resource.singular}/{namespace}/{metadata.name(obj)}"
        ask = Ask(Charge(name, name, namespace, amounts))
        short = tuple(full_counts(self.ledger, namespace, amounts))
        if short:
            return Answer(ask, Deny("exceeded", short))
        self.ledger.count(namespace, amounts, +1)
        return Answer(ask, Admit("fits"))


def resource_of(obj: Mapping[str, Any]) -> Resource:
    """The served resource of a manifest. Raises Unreadable."""
    try:
        return kinds.of(dict(obj))
    except LookupError as error:
        raise Unreadable(f"{describe(obj)}: {error}") from error


def namespace_of(obj: Mapping[str, Any]) -> str:
    """The manifest's namespace, ``default`` when it names none."""
    return metadata.namespace(obj) or "default"


def describe(obj: Mapping[str, Any]) -> str:
    """``Pod a/web``, for messages."""
    return f"{obj.get('kind')} {metadata.key(obj)}"


def _read(read: Any, obj: Object) -> Any:
    try:
        return read(obj)
    except ValueError as error:
        raise Unreadable(f"{describe(obj)}: {error}") from error


def answers(state: Iterable[Object], new: Iterable[Object], now: float) -> list[Answer]:
    """What would happen to ``new`` objects, in order, where ``state`` is. Raises Unreadable.

    Among the new ones, what configures quota counts as state.
    """
    fresh = list(new)
    configuring = [o for o in fresh if resource_of(o) in _CONFIGURES]
    there = Offline([*state, *configuring], now)
    found = (there.answer(obj) for obj in fresh if resource_of(obj) not in _CONFIGURES)
    told = [answer for answer in found if answer is not None]
    waiting = {answer.ask.charge.tenant for answer in told if isinstance(answer.decision, Wait)}
    how = {tenant: outlook(there.ledger, tenant, now) for tenant in waiting}
    return [
        replace(answer, outlook=how[answer.ask.charge.tenant]) if isinstance(answer.decision, Wait) else answer
        for answer in told
    ]


_CONFIGURES = (
    RESOURCEQUOTAS,
    TENANTQUOTAS,
    QUOTAPOLICIES,
    COHORTS,
    NODES,
    PRIORITYCLASSES,
    PODDISRUPTIONBUDGETS,
    QUOTAUSAGES,
)
