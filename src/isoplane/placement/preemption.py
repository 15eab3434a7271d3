"""Preemption for a node's capacity: which workloads of lower priority leave which node for one that fits nowhere. Pure.

The second half of a scheduling attempt, asked when :mod:`~isoplane.placement.fit` found no node.  On every node that would
take the workload if it were empty, all candidates leave in thought; if it then fits, they come back, the most important
first, as long as it still fits.  Of the nodes the one whose plan costs least is chosen.  Nobody leaves unless the workload
then fits, and what is leaving already counts as room to come, so that a second attempt evicts nobody again.

Quota's own preemption (:mod:`isoplane.quota`) decides who may exist at all; this decides who may run where.

Source of the rules and their order: kube-scheduler's DefaultPreemption.  Two are ours: among equal priorities what is
cheaper to disrupt goes first (a Pod before a VM), and what lies within another tenant's guarantee stays; a workload of
which the greater part lies above it may be taken when nothing else makes room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from isoplane.placement.fit import Node, demand, misfits
from isoplane.workload.shape import Workload

_NOTHING: Mapping[str, int] = {}
_NEVER = "Never"


@dataclass(frozen=True, slots=True)
class Running:
    """A workload that takes room on a node."""

    uid: str
    tenant: str
    priority: int
    demand: Mapping[str, int] = field(hash=False)
    cost: int = 1
    """What disrupting it costs: a Pod 1, a VM more."""
    created: str = ""
    """metadata.creationTimestamp: among equals the oldest stays."""
    leaving: bool = False
    """Whether it is being deleted already."""
    migrating: bool = False
    budgets: tuple[str, ...] = ()
    """The PodDisruptionBudgets that select it and do not count it as disrupted yet, by ``namespace/name``."""

    @property
    def importance(self) -> tuple[int, int, str, str]:
        """Sorts the most important first."""
        return (-self.priority, -self.cost, self.created, self.uid)


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What other tenants may not take. ``floor``: tenant → resource → amount; ``taken``: what the tenant takes in all."""

    floor: Mapping[str, Mapping[str, int]] = field(default_factory=dict, hash=False)
    taken: Mapping[str, Mapping[str, int]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """Who leaves ``node`` for the workload; nobody, when what is leaving already makes room."""

    node: str
    victims: tuple[Running, ...] = ()
    violations: int = 0
    """How many of the victims exhaust a disruption budget."""

    @property
    def cost(self) -> tuple[int, int, int, int, list[int], str]:
        """Compares plans: the least is carried out. Among equal ones the node whose most important victims are youngest."""
        top = max((victim.priority for victim in self.victims), default=-(2**31) - 1)
        started = min((victim.created for victim in self.victims if victim.priority == top), default="")
        youngest = [-ord(character) for character in started]
        total = sum(victim.priority + 2**31 for victim in self.victims)
        return (self.violations, top, total, len(self.victims), youngest, self.node)


def may_preempt(workload: Workload) -> bool:
    """Whether its preemptionPolicy lets others leave for it."""
    return workload.preemption_policy != _NEVER


def plan(
    workload: Workload,
    nodes: Iterable[Node],
    used: Mapping[str, Mapping[str, int]],
    running: Mapping[str, Sequence[Running]],
    allowed: Mapping[str, int],
    guarantees: Guarantees,
) -> Plan | None:
    """The cheapest plan, or None when no eviction makes room anywhere.

    ``used``: node → what is taken there, nominations of other workloads included. ``running``: node → who is there.
    ``allowed``: budget → how many it still lets go.
    """
    if not may_preempt(workload):
        return None
    plans: list[Plan] = []
    for node in nodes:
        if misfits(workload, node, _NOTHING):
            continue  # evicting everybody would not help
        here = running.get(node.name, ())
        missing = _missing(workload, node, used.get(node.name, _NOTHING), here)
        if not any(amount > 0 for amount in missing.values()):
            plans.append(Plan(node.name))
            continue
        for whole in (True, False):
            if found := _on_node(workload, node.name, missing, here, allowed, guarantees, whole):
                plans.append(found)
                break
    return min(plans, key=lambda found: found.cost, default=None)


def _missing(workload: Workload, node: Node, used: Mapping[str, int], here: Iterable[Running]) -> dict[str, int]:
    """Resource → how much is short on the node once what is leaving already is gone; not positive where it suffices."""
    missing = {
        name: amount - (node.allocatable.get(name, 0) - used.get(name, 0))
        for name, amount in demand(workload).items()
        if amount > 0
    }
    for other in here:
        if other.leaving:
            _add(missing, other.demand, -1)
    return missing


def _on_node(
    workload: Workload,
    node: str,
    missing: Mapping[str, int],
    here: Iterable[Running],
    allowed: Mapping[str, int],
    guarantees: Guarantees,
    whole: bool,
) -> Plan | None:
    """The victims on one node: everyone who may be taken leaves in thought, then who is not needed comes back."""
    short = dict(missing)
    candidates = [
        other
        for other in here
        if other.priority < workload.priority and not other.leaving and not other.migrating and _helps(other, short)
    ]
    taken: list[Running] = []
    takes = {tenant: dict(amounts) for tenant, amounts in guarantees.taken.items()} if guarantees.floor else {}
    for other in sorted(candidates, key=lambda one: one.importance, reverse=True):
        if other.tenant != workload.namespace and not _above(other, guarantees.floor, takes, whole):
            continue
        taken.append(other)
        _add(short, other.demand, -1)
        if other.tenant in takes:
            _add(takes[other.tenant], other.demand, -1)
    if not taken or any(amount > 0 for amount in short.values()):
        return None
    exhausting, rest = _by_budget(taken, allowed)
    victims: list[Running] = []
    violations = 0
    for group, violating in ((exhausting, True), (rest, False)):
        for other in group:
            back = dict(short)
            _add(back, other.demand, +1)
            if any(amount > 0 for amount in back.values()):
                victims.append(other)
                violations += violating
            else:
                short = back
    return Plan(node, tuple(victims), violations)


def _helps(other: Running, short: Mapping[str, int]) -> bool:
    return any(amount > 0 and other.demand.get(name, 0) > 0 for name, amount in short.items())


def _add(sums: dict[str, int], amounts: Mapping[str, int], sign: int) -> None:
    for name in sums:
        sums[name] += sign * amounts.get(name, 0)


def _above(
    other: Running, floors: Mapping[str, Mapping[str, int]], takes: Mapping[str, Mapping[str, int]], whole: bool
) -> bool:
    """Whether its tenant keeps its guarantee without it; unless ``whole``, whether most of it lies above that."""
    floor, taken = floors.get(other.tenant), takes.get(other.tenant, _NOTHING)
    for name, guaranteed in (floor or _NOTHING).items():
        amount = other.demand.get(name, 0)
        if amount > 0 and taken.get(name, 0) - (amount if whole else amount // 2) < guaranteed:
            return False
    return True


def _by_budget(taken: Iterable[Running], allowed: Mapping[str, int]) -> tuple[list[Running], list[Running]]:
    """Those whose leaving exhausts a budget, and the others, each the most important first."""
    left = dict(allowed)
    exhausting: list[Running] = []
    rest: list[Running] = []
    for other in sorted(taken, key=lambda one: one.importance):
        exhausts = False
        for budget in other.budgets:
            left[budget] = left.get(budget, 0) - 1
            exhausts = exhausts or left[budget] < 0
        (exhausting if exhausts else rest).append(other)
    return exhausting, rest


@dataclass(slots=True)
class Nominations:
    """Room that is being made: which workload is to have which node once its victims are gone.

    As in kube-scheduler, nobody of a lower priority is given what a nominated workload waits for.
    """

    _nominated: dict[str, tuple[str, int, Mapping[str, int]]] = field(default_factory=dict)
    """uid → (node, priority, demand)."""

    def put(self, workload: Workload, node: str) -> None:
        """Nominate ``node`` for the workload; an earlier nomination of it is replaced."""
        self._nominated[workload.uid] = (node, workload.priority, demand(workload))

    def take(self, uid: str) -> bool:
        """Forget a nomination. Returns whether there was one."""
        return self._nominated.pop(uid, None) is not None

    def node(self, uid: str) -> str:
        """The node nominated for a workload, or ''."""
        return self._nominated.get(uid, ("", 0, _NOTHING))[0]

    def __len__(self) -> int:
        return len(self._nominated)

    def seen_by(self, workload: Workload, used: Mapping[str, Mapping[str, int]]) -> Mapping[str, Mapping[str, int]]:
        """``used`` and what is kept for nominated workloads of at least this one's priority, itself aside."""
        kept = [
            (node, amounts)
            for uid, (node, priority, amounts) in self._nominated.items()
            if uid != workload.uid and priority >= workload.priority
        ]
        if not kept:
            return used
        seen = dict(used)
        for node, amounts in kept:
            sums = dict(seen.get(node, _NOTHING))
            for name, amount in amounts.items():
                sums[name] = sums.get(name, 0) + amount
            seen[node] = sums
        return seen


def leave(running: Mapping[str, Sequence[Running]], found: Plan) -> dict[str, list[Running]]:
    """``running`` with the plan's victims on their way, for the next decision."""
    gone = {victim.uid for victim in found.victims}
    return {
        node: [replace(other, leaving=True) if other.uid in gone else other for other in others]
        for node, others in running.items()
    }
